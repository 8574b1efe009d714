"""Text classification beside GLUE: topics, questions, opinions, inference, reading.

From the hub, each at one commit that holds plain files and no loading script, or with ``--data-dir`` from tab-separated
(IMDb: Parquet) files in one folder a task. Where the source has no validation split, a fixed fifth of train (at
most 1,000 rows) is set aside; the test split is never read.

The six that make up ``capcort-13`` together with seven of GLUE are our choice: which six the paper (arXiv
2105.05633) used could not be verified.
"""

from __future__ import annotations

from ftbench.types.task import Hub, Layout, Task

_TOPIC = ("accuracy", "macro_f1")
_OPINION = {"text": "sentence"}
_PAIR = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}
_ENTAILMENT = ("entailment", "neutral", "contradiction")
_UNSTATED = "research use, no licence stated"
LANGUAGES = ("en", "ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")

CLASSIFICATION = (
    Task(
        name="ag_news",
        kind="classification",
        source=Hub("fancyzhx/ag_news", "eb185aade064a813bc0b7f42de02595523103ca4"),
        inputs=("text",),
        labels=("World", "Sports", "Business", "Sci/Tech"),
        metrics=_TOPIC,
        layout=Layout("AGNews", columns=_OPINION, ids=True),
        description="topic of a news story; 120,000 rows",
        licence="research and non-commercial use",
        cite="Zhang, Zhao, LeCun (2015). Character-level convolutional networks. NIPS, arXiv 1509.01626",
    ),
    Task(
        name="trec",
        kind="classification",
        # the main branch is a loading script; this commit is the hub's own conversion of it to Parquet
        source=Hub("CogComp/trec", "65752bf53af25bc935a0dce92fb5b6c930728450"),
        inputs=("text",),
        target="coarse_label",
        labels=("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
        metrics=_TOPIC,
        layout=Layout("TREC", columns={**_OPINION, "coarse_label": "label"}),
        description="what a question asks for, 6 coarse classes; 5,452 rows",
        licence=_UNSTATED,
        cite="Li, Roth (2002). Learning question classifiers. COLING; Hovy et al. (2001). HLT",
    ),
    Task(
        name="imdb",
        kind="classification",
        source=Hub("stanfordnlp/imdb", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", "plain_text"),
        inputs=("text",),
        labels=("neg", "pos"),
        metrics=("accuracy",),
        layout=Layout("IMDb", {"train": "train.parquet", "validation": "dev.parquet"}, columns=_OPINION, ids=True),
        description="is the film review positive? Long texts: raise --max-length; 25,000 rows",
        licence="cite the paper",
        cite="Maas et al. (2011). Learning word vectors for sentiment analysis. ACL",
    ),
    Task(
        name="snli",
        kind="classification",
        source=Hub("stanfordnlp/snli", "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b", "plain_text"),
        inputs=("premise", "hypothesis"),
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        layout=Layout("SNLI", columns=_PAIR),
        unlabelled="drop",
        description="does the caption follow from the other? 549,367 / 9,842 rows on which annotators agreed",
        licence="CC BY-SA 4.0",
        cite="Bowman, Angeli, Potts, Manning (2015). A large annotated corpus. EMNLP, arXiv 1508.05326",
    ),
    Task(
        name="yelp_polarity",
        kind="classification",
        source=Hub(
            "fancyzhx/yelp_polarity",
            "bbf1c97a1f0cf005e5aded43839fd814654a1557",
            "plain_text",
            names={"1": "negative", "2": "positive"},
        ),
        inputs=("text",),
        labels=("negative", "positive"),
        metrics=("accuracy",),
        layout=Layout("YelpPolarity", columns=_OPINION, ids=True),
        description="is the review of a business positive? Long texts: raise --max-length; 560,000 rows",
        licence="Yelp's dataset terms",
        cite="Zhang, Zhao, LeCun (2015). Character-level convolutional networks. NIPS, arXiv 1509.01626",
    ),
    Task(
        name="boolq",
        kind="classification",
        source=Hub("google/boolq", "35b264d03638db9f4ce671b711558bf7ff0f80d5", names={"False": "no", "True": "yes"}),
        inputs=("question", "passage"),
        target="answer",
        labels=("no", "yes"),
        metrics=("accuracy",),
        layout=Layout("BoolQ", columns={"answer": "label"}, ids=True),
        description="answer a question from a passage; long texts: raise --max-length; 9,427 / 3,270 rows",
        licence="CC BY-SA 3.0",
        cite="Clark et al. (2019). BoolQ. NAACL, arXiv 1905.10044",
    ),
    Task(
        name="mr",
        kind="classification",
        source=Hub("cornell-movie-review-data/rotten_tomatoes", "aa13bc287fa6fcab6daf52f0dfb9994269ffea28"),
        inputs=("text",),
        labels=("neg", "pos"),
        metrics=("accuracy",),
        layout=Layout("MR", columns=_OPINION, ids=True),
        description="is the sentence of a film review positive? The hub's split, none is official; 8,530 / 1,066 rows",
        licence=_UNSTATED,
        cite="Pang, Lee (2005). Seeing stars. ACL",
    ),
    Task(
        name="scitail",
        kind="classification",
        # of the four configurations only this one has all 23,596 train rows
        source=Hub("allenai/scitail", "0cc4353235b289165dfde1c7c5d1be983f99ce44", "snli_format"),
        inputs=("sentence1", "sentence2"),
        target="gold_label",
        labels=("entailment", "neutral"),
        metrics=("accuracy",),
        layout=Layout("SciTail", names={"entails": "entailment"}),
        description="does an answer to a science question follow from the sentence? 23,596 / 1,304 rows",
        licence="Apache-2.0 by third parties' word",
        cite="Khot, Sabharwal, Clark (2018). SciTaiL. AAAI",
    ),
    Task(
        name="xnli",
        kind="classification",
        source=Hub("facebook/xnli", "b8dd5d7af51114dbda02c0e3f6133f332186418e", "en", groups=LANGUAGES),
        inputs=("premise", "hypothesis"),
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        description="train on English, score in 15 languages; the headline is over all, each language beside it",
        licence="CC BY-NC 4.0",
        cite="Conneau et al. (2018). XNLI. EMNLP, arXiv 1809.05053",
    ),
)
