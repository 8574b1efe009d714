"""Summarization: news, posts, dialogues, e-mails, abstracts.

From the hub, or with ``--data-dir`` from tables in one folder a task (``train.*`` and ``validation.*``, or the names
below). The test split is never read. A folder with fewer rows than the published split says so.

``decoding`` holds what a source states; what none states is left at the command's defaults. Sources: BART's
``examples/bart/summarize.py`` (fairseq) for beams, length penalty, length and repeated n-grams on CNN/DailyMail and
XSum; PEGASUS's ``public_params.py`` and README (google-research/pegasus) for how many tokens of a document and of a
summary are read, and for AESLC's beams. PEGASUS's ``beam_alpha`` divides by ((5 + length) / 6)^alpha, ``generate``'s
length_penalty by length^penalty, so it is not carried over. R3F's paper (arXiv 2008.03156) gives no decoding settings.

``cnn_dailymail`` and ``aeslc`` are pinned to a commit. The others are on the hub as a loading script, which is not run,
or as a copy whose commit could not be verified: they are read from a branch, the scripts' as the hub's own conversion
to Parquet. The id of a run holds a fingerprint of the rows either way.
"""

from __future__ import annotations

from ftbench.metrics import ROUGE
from ftbench.types.task import Hub, Layout, Task

#: the hub's own conversion of a data set that is a loading script
_CONVERTED = "refs/convert/parquet"
_FILES = {"train": "train.parquet", "validation": "validation.parquet"}
_TIFU_CITE = "Kim, Kim, Kim (2019). Abstractive summarization of Reddit posts. NAACL, arXiv 1811.00783"
_TIFU_NOTE = (
    "Cased, not tokenised. The hub's copy has no splits: a fifth is set aside (at most 1,000 rows). PEGASUS's split, "
    "which papers use, is not at hand. The limits of 1,024 and 128 tokens are ours: no source for papers' was found."
)


def _columns(document: str, summary: str) -> dict[str, str]:
    """Columns of the hub to those of local tables."""
    return {document: "document", summary: "summary"}


def _tifu(length: str, summary: str, rows: int, description: str, *more: str) -> Task:
    return Task(
        name=f"reddit_tifu_{length}",
        kind="summarization",
        source=Hub("ctr4si/reddit_tifu", _CONVERTED, folder=length),
        inputs=("documents",),
        target=summary,
        metrics=ROUGE,
        layout=Layout(
            "reddit_tifu_like",
            {"train": f"{length}_train.parquet", "validation": f"{length}_validation.parquet"},
            columns=_columns("documents", summary),
            rows={"train": rows},
        ),
        decoding={"max_length": 1024, "max_target_length": 128, "max_new_tokens": 128},
        published=" ".join((_TIFU_NOTE, *more)),
        description=f"{description}; {rows:,} rows",
        licence="MIT for the collection; posts are their authors'",
        cite=_TIFU_CITE,
    )


SUMMARIZATION = (
    Task(
        name="cnn_dailymail",
        kind="summarization",
        source=Hub("abisee/cnn_dailymail", "96df5e686bee6baa90b8bee7c28b81fa3fa6223d", "3.0.0"),
        inputs=("article",),
        target="highlights",
        metrics=ROUGE,
        layout=Layout(
            "cnn_dailymail",
            {"train": "train_cased_200.parquet", "validation": "validation_cased_1000.parquet"},
            columns=_columns("article", "highlights"),
            rows={"train": 287_113, "validation": 13_368},
        ),
        decoding={
            "max_length": 1024,
            "max_target_length": 128,
            "num_beams": 4,
            "length_penalty": 2.0,
            "min_new_tokens": 55,
            "max_new_tokens": 140,
            "no_repeat_ngram_size": 3,
        },
        published=(
            "Version 3.0.0: cased, not tokenised; a highlight a line, which papers' R-L (rougeLsum here) needs. See et "
            "al. (2017) and older systems: lower case, PTB tokens. BART: cased, a source cut to 1,024 tokens; scored "
            "after PTB tokenising both sides, with files2rouge."
        ),
        description="highlights of a news article; 287,113 / 13,368 rows",
        licence="Apache-2.0 for the collection; texts are CNN's and the Daily Mail's",
        cite="Hermann et al. (2015). NIPS, arXiv 1506.03340; See, Liu, Manning (2017). ACL, arXiv 1704.04368",
    ),
    Task(
        name="gigaword",
        kind="summarization",
        source=Hub("SalmanFaroz/gigaword", "main"),
        inputs=("article",),
        target="summary",
        metrics=ROUGE,
        layout=Layout(
            "gigaword",
            {"train": "train_10k.parquet", "validation": "valid_1k.parquet"},
            columns={"article": "document"},
            rows={"train": 3_803_957, "validation": 189_651},
        ),
        decoding={"max_length": 128, "max_target_length": 32, "max_new_tokens": 32},
        published=(
            "Lower case, PTB tokens, digits as #; rare words are `<unk>` in train and `UNK` in the official test of "
            "1,951 rows, both one word to ROUGE. Whether a paper scored references with them is rarely said: `ftbench "
            "summarize score --without-unk` leaves them out. One sentence to one headline: rougeL is rougeLsum."
        ),
        description="headline of a news story's first sentence; 3,803,957 / 189,651 rows",
        licence="derived from LDC's Gigaword, research use",
        cite="Rush, Chopra, Weston (2015). A neural attention model. EMNLP, arXiv 1509.00685",
    ),
    _tifu(
        "long",
        "tldr",
        42_139,
        "TL;DR of a Reddit post",
        "An open report could not reproduce R3F's score (fairseq issue 4411).",
    ),
    _tifu("short", "title", 79_740, "title of a Reddit post"),
    Task(
        name="xsum",
        kind="summarization",
        source=Hub("EdinburghNLP/xsum", "main"),
        inputs=("document",),
        target="summary",
        metrics=ROUGE,
        layout=Layout("xsum", _FILES, rows={"train": 204_045, "validation": 11_332}),
        decoding={
            "max_length": 1024,
            "max_target_length": 64,
            "num_beams": 6,
            "length_penalty": 1.0,
            "min_new_tokens": 10,
            "max_new_tokens": 60,
            "no_repeat_ngram_size": 3,
        },
        published="Cased, not tokenised (Narayan et al.: lower case, tokenised). One sentence, so rougeL is rougeLsum.",
        description="the one sentence that introduces a BBC article; 204,045 / 11,332 rows",
        licence="texts are the BBC's, research use",
        cite="Narayan, Cohen, Lapata (2018). Don't give me the details. EMNLP, arXiv 1808.08745",
    ),
    Task(
        name="samsum",
        kind="summarization",
        source=Hub("knkarthick/samsum", "main"),
        inputs=("dialogue",),
        target="summary",
        metrics=ROUGE,
        layout=Layout("samsum", _FILES, columns={"dialogue": "document"}, rows={"train": 14_731, "validation": 818}),
        decoding={"max_length": 512, "max_target_length": 96, "max_new_tokens": 96},
        published="Cased, not tokenised; a turn a line (in one line where a copy lost the breaks). Limits are ours.",
        description="summary of a messenger dialogue; 14,731 / 818 rows",
        licence="CC BY-NC-ND 4.0",
        cite="Gliwa, Mochol, Biesek, Wawer (2019). SAMSum corpus. arXiv 1911.12237",
    ),
    Task(
        name="aeslc",
        kind="summarization",
        source=Hub("Yale-LILY/aeslc", "2305f2e63b68056f9b9037a3805c8c196e0d5581"),
        inputs=("email_body",),
        target="subject_line",
        metrics=ROUGE,
        layout=Layout(
            "aeslc",
            {"train": "train.parquet", "validation": "dev.parquet"},
            columns=_columns("email_body", "subject_line"),
            references="references",
            rows={"train": 14_436, "validation": 1_960},
        ),
        decoding={"max_length": 512, "max_target_length": 32, "num_beams": 5, "max_new_tokens": 32},
        published=(
            "Cased. The authors' dev and test files have three more subject lines by annotators, the hub's copy has "
            "the writer's only: scores against four are higher."
        ),
        description="subject line of an e-mail; 14,436 / 1,960 rows",
        licence="CC BY-NC-SA 4.0",
        cite="Zhang, Tetreault (2019). This email could save your life. ACL, arXiv 1906.03497",
    ),
    Task(
        name="scitldr",
        kind="summarization",
        source=Hub("allenai/scitldr", _CONVERTED, folder="Abstract"),
        inputs=("source",),
        target="target",
        metrics=ROUGE,
        layout=Layout(
            "scitldr_a",
            {"train": "train.parquet", "validation": "dev.parquet"},
            columns=_columns("source", "target"),
            references="references",
            rows={"train": 1_992, "validation": 619},
        ),
        decoding={"max_length": 512, "max_target_length": 64, "max_new_tokens": 64},
        published="Cased; several references, the best counts. Abstracts only (SciTLDR-A). Limits are ours.",
        description="one-sentence summary of a paper's abstract; 1,992 / 619 rows",
        licence="Apache-2.0",
        cite="Cachola, Lo, Cohan, Weld (2020). TLDR. Findings of EMNLP, arXiv 2004.15011",
    ),
)
