"""What to know about rows before training on them: balance, duplicates, leaks, empty texts, doubtful labels. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftbench.types.task import Data, Rows

#: a class with fewer training rows is named
FEW_ROWS = 8
#: the most frequent class over the rarest beyond which the balance is named
LOPSIDED = 10
#: fewer rows to score than this are named
FEW_SCORED = 50
#: of how many rows of a split this is true stands before it
LEAKED = "with a text that is in train too: their scores may be memory"


@dataclass(frozen=True)
class Examined:
    """splits: name to counts; warnings: what a user should look at before training, worst first."""

    splits: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = field(default=())


def examine(data: Data) -> Examined:
    """Counts per split and warnings. Texts are equal when they are so without case and spaces."""
    keys = {name: [text_key(row) for row in zip(*rows.texts, strict=True)] for name, rows in data.splits.items()}
    splits = {name: _counts(rows, keys[name], data.labels) for name, rows in data.splits.items()}
    warnings = [*_leaks(keys), *_contradictions(data, keys["train"])]
    if data.task.kind == "summarization":
        warnings += _doubtful_summaries(data)
    for name, found in splits.items():
        if found["empty"]:
            warnings.append(f"{name}: {found['empty']:,} of {found['rows']:,} texts are empty")
        if found["duplicates"]:
            warnings.append(
                f"{name}: {found['duplicates']:,} of {found['rows']:,} rows with the text of an earlier one"
            )
        if name != "train" and found["rows"] < FEW_SCORED:
            warnings.append(f"{name}: {found['rows']} rows only: a score on so few is mostly chance")
    return Examined(splits, (*warnings, *_doubtful_labels(data)))


def _counts(rows: Rows, keys: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    words = np.array([sum(len(text.split()) for text in row) for row in zip(*rows.texts, strict=True)])
    counts: dict[str, Any] = {
        "rows": len(rows),
        "words_median": int(np.median(words)),
        "words_max": int(words.max()),
        "empty": sum(not key.strip("\x1f") for key in keys),
        "duplicates": len(keys) - len(set(keys)),
    }
    if rows.summaries:
        lengths = [len(text.split()) for texts in rows.summaries for text in texts]
        counts["summaries"] = {
            "words_median": int(np.median(lengths)),
            "words_max": max(lengths),
            "references_max": max(len(texts) for texts in rows.summaries),
        }
    elif labels:
        counts["labels"] = {name: int((rows.labels == i).sum()) for i, name in enumerate(labels)}
    else:
        values = rows.labels
        counts["target"] = {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}
    return counts


def other_notes(data: Data) -> tuple[str, ...]:
    """The notes of ``data`` that stand in no warning of ``examine``."""
    return tuple(note for note in data.notes if LEAKED not in note)


def leaks(train: Rows, held: Rows) -> list[str]:
    """What ``examine`` says of rows set aside as ``validation`` whose text is in train too.

    Of a train text that begins with other words than all of them, no more is read.
    """
    begins = {_beginning(row) for row in zip(*held.texts, strict=True)}
    near = [text_key(row) for row in zip(*train.texts, strict=True) if _beginning(row) in begins]
    return _leaks({"train": near, "validation": [text_key(row) for row in zip(*held.texts, strict=True)]})


def _beginning(row: Sequence[str], words: int = 4) -> str:
    """The first words of a row's first text, as ``text_key`` has them."""
    return " ".join(row[0].split(maxsplit=words)[:words]).casefold()


def _leaks(keys: Mapping[str, Sequence[str]]) -> list[str]:
    train = set(keys["train"])
    found = []
    for name, own in keys.items():
        shared = sum(key in train for key in own) if name != "train" else 0
        if shared:
            found.append(f"{name}: {shared:,} of {len(own):,} rows {LEAKED}")
    return found


def _contradictions(data: Data, keys: Sequence[str]) -> list[str]:
    if not data.labels:
        return []
    given: dict[str, set[int]] = {}
    for key, label in zip(keys, data.splits["train"].labels.tolist(), strict=True):
        given.setdefault(key, set()).add(label)
    found = sum(len(labels) > 1 for labels in given.values())
    return [f"train: texts that stand there with different labels: {found:,}"] if found else []


def _doubtful_summaries(data: Data) -> list[str]:
    """Summaries that are longer than their document, or stand at its beginning."""
    found = []
    for name, rows in data.splits.items():
        pairs = [
            (text_key([document]), text_key(texts[:1]))
            for document, texts in zip(rows.texts[0], rows.summaries, strict=True)
        ]
        longer = sum(len(summary.split()) >= len(document.split()) for document, summary in pairs)
        copied = sum(document.startswith(summary) for document, summary in pairs)
        if longer:
            found.append(f"{name}: {longer:,} of {len(pairs):,} summaries are as long as their text, or longer")
        if copied:
            found.append(f"{name}: {copied:,} of {len(pairs):,} summaries are how their text begins: copying will do")
    return found


def _doubtful_labels(data: Data) -> list[str]:
    """Names that differ only in case or spaces, rare classes, a lopsided balance, a target with few values."""
    train = data.splits["train"]
    if train.summaries:
        return []
    if not data.labels:
        values = np.unique(train.labels)
        few = f"the target has {len(values)} values only: classes? (--kind classification)"
        return [few] if len(values) <= 2 else []
    alike: dict[object, list[str]] = {}
    for name in data.labels:
        alike.setdefault(_label_key(name), []).append(name)
    why = {True: "are one number", False: "differ in case or spaces only"}
    warnings = [
        f"labels {', '.join(map(repr, names))} {why[isinstance(key, float)]}"
        for key, names in alike.items()
        if len(names) > 1
    ]
    counts = Counter(data.labels[i] for i in train.labels.tolist())
    rare = [f"'{name}' ({counts[name]})" for name in data.labels if counts[name] < FEW_ROWS]
    if rare:
        more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
        warnings.append(f"classes with fewer than {FEW_ROWS} train rows: {', '.join(rare[:5])}{more}")
    most, least = max(counts.values()), min(counts.values())
    if most > LOPSIDED * least:
        warnings.append(
            f"the largest class has {most / least:.0f} times the rows of the smallest: read macro_f1 or "
            "balanced_accuracy beside accuracy"
        )
    return warnings


def _label_key(name: str) -> object:
    """What labels share that are written in two ways: their number, or the name without case and spaces."""
    folded = "".join(name.lower().split())
    try:
        number = math.nan if "_" in name else float(name)
    except ValueError:
        return folded
    return number if math.isfinite(number) else folded


def text_key(row: Sequence[str]) -> str:
    """A row's texts without case and spaces: rows that share it are told apart by nobody."""
    return "\x1f".join(" ".join(text.split()).casefold() for text in row)
