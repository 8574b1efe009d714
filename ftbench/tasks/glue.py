"""The nine tasks of GLUE (Wang, Singh, Michael, Hill, Levy, Bowman: GLUE. ICLR 2019, arXiv 1804.07461).

From the hub at one commit, or with ``--data-dir`` from the official download, one folder a task. Label names
are in the order of the official files and of the hub. The hidden labels of the test files are never read;
``ftbench predict --glue`` writes the files that the benchmark's server scores.

Metrics are the benchmark's. The first is the headline. For MRPC and QQP, which the benchmark scores by accuracy
and by the F1 of "the two mean the same", that is accuracy, as in R3F's and RoBERTa's tables: always answering yes
has an F1 of 0.81 on MRPC. MNLI's headline is the matched split; the mismatched one is scored beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ftbench.types.task import Hub, Layout, Task

REPOSITORY = "nyu-mll/glue"
#: parquet files, no loading script
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
_GLUE = "Wang et al. (2019). GLUE. ICLR 2019, arXiv 1804.07461"


def _glue(
    name: str,
    layout: Layout,
    inputs: tuple[str, ...],
    labels: tuple[str, ...],
    metrics: tuple[str, ...],
    description: str,
    licence: str,
    cite: str,
    splits: Mapping[str, str] | None = None,
) -> Task:
    return Task(
        name=name,
        kind="classification" if labels else "regression",
        source=Hub(REPOSITORY, REVISION, name, splits or {}),
        inputs=inputs,
        labels=labels,
        metrics=metrics,
        layout=layout,
        description=description,
        licence=licence,
        cite=f"{cite}; in {_GLUE}",
    )


_RESEARCH = "corpus: research use, no licence stated"

GLUE = (
    _glue(
        "cola",
        Layout(
            "CoLA",
            header=("source", "label", "mark", "sentence"),
            tests={"test.tsv": "CoLA.tsv"},
            ids=True,
        ),
        ("sentence",),
        ("unacceptable", "acceptable"),
        ("matthews", "accuracy"),
        "is the sentence grammatical? 8,551 / 1,043 rows",
        _RESEARCH,
        "Warstadt, Singh, Bowman (2019). Neural network acceptability judgments. TACL 7, arXiv 1805.12471",
    ),
    _glue(
        "sst2",
        Layout("SST-2", tests={"test.tsv": "SST-2.tsv"}, ids=True),
        ("sentence",),
        ("negative", "positive"),
        ("accuracy",),
        "is the film review positive? phrases to train on, 67,349 / 872 rows",
        _RESEARCH,
        "Socher et al. (2013). Recursive deep models for semantic compositionality over a sentiment treebank. EMNLP",
    ),
    _glue(
        "mrpc",
        Layout(
            "MRPC",
            columns={"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
            tests={"test.tsv": "MRPC.tsv"},
            ids=True,
        ),
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        ("accuracy", "f1"),
        "do both sentences say the same? 3,668 / 408 rows",
        "Microsoft research licence",
        "Dolan, Brockett (2005). Automatically constructing a corpus of sentential paraphrases. IWP",
    ),
    _glue(
        "qqp",
        Layout("QQP", columns={"label": "is_duplicate"}, tests={"test.tsv": "QQP.tsv"}, ids=True),
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        "are both questions the same? 363,846 / 40,430 rows",
        "Quora's terms, non-commercial",
        "Iyer, Dandekar, Csernai (2017). First Quora dataset release: question pairs",
    ),
    _glue(
        "stsb",
        Layout("STS-B", columns={"label": "score"}, tests={"test.tsv": "STS-B.tsv"}),
        ("sentence1", "sentence2"),
        (),
        ("pearson", "spearman"),
        "how alike in meaning are both sentences, 0 to 5? A regression with squared error, 5,749 / 1,500 rows",
        "several, see the STS benchmark",
        "Cer et al. (2017). SemEval-2017 task 1. arXiv 1708.00055",
    ),
    _glue(
        "mnli",
        Layout(
            "MNLI",
            {"train": "train.tsv", "validation": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"},
            columns={"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
            tests={
                "test_matched.tsv": "MNLI-m.tsv",
                "test_mismatched.tsv": "MNLI-mm.tsv",
                "diagnostic.tsv": "AX.tsv",
            },
            optional=("mismatched",),
        ),
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        ("accuracy",),
        "does the second sentence follow from the first? 392,702 / 9,815 matched and 9,832 mismatched rows",
        "OANC and others",
        "Williams, Nangia, Bowman (2018). A broad-coverage challenge corpus. NAACL, arXiv 1704.05426",
        {"train": "train", "validation": "validation_matched", "mismatched": "validation_mismatched"},
    ),
    _glue(
        "qnli",
        Layout("QNLI", tests={"test.tsv": "QNLI.tsv"}),
        ("question", "sentence"),
        ("entailment", "not_entailment"),
        ("accuracy",),
        "does the sentence answer the question? 104,743 / 5,463 rows",
        "CC BY-SA 4.0 (SQuAD)",
        "Rajpurkar et al. (2016). SQuAD. EMNLP, arXiv 1606.05250",
    ),
    _glue(
        "rte",
        Layout("RTE", tests={"test.tsv": "RTE.tsv"}),
        ("sentence1", "sentence2"),
        ("entailment", "not_entailment"),
        ("accuracy",),
        "does the second sentence follow from the first? 2,490 / 277 rows",
        _RESEARCH,
        "Dagan et al. (2006), Bar Haim et al. (2006), Giampiccolo et al. (2007), Bentivogli et al. (2009): RTE 1-3, 5",
    ),
    _glue(
        "wnli",
        Layout("WNLI", tests={"test.tsv": "WNLI.tsv"}, ids=True),
        ("sentence1", "sentence2"),
        ("not_entailment", "entailment"),
        ("accuracy",),
        "what does the pronoun stand for? 635 / 71 rows; validation contradicts train by design",
        "CC BY 4.0",
        "Levesque, Davis, Morgenstern (2012). The Winograd schema challenge. KR",
    ),
)
