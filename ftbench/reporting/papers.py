"""Published figures beside ours: like with like, or not at all."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftbench.lookup import find
from ftbench.reporting.budget import expected_best
from ftbench.reporting.cells import Cell, to_cells, unique
from ftbench.types import Column, Record, Table

_COLUMNS = (
    Column("task", "task", numeric=False), Column("metric", "metric", numeric=False),
    Column("method", "method", numeric=False), Column("model", "model", numeric=False),
    Column("statistic", "statistic", numeric=False), Column("published", "published"), Column("ours", "ours"),
    Column("n", "runs"), Column("why", "why not", numeric=False),
)  # fmt: skip
RULE = (
    "Ours stands beside a published figure only for the same model, task, metric and method, all training rows and "
    "clean labels, as the same statistic (best of k: expected best of k of our runs). 'why not' says what is unlike."
)


@dataclass(frozen=True)
class Published:
    """One figure, on the scale of 0 to 1, and what it is a figure of."""

    paper: str
    source: str
    model: str
    like: tuple[str, ...]
    split: str
    task: str
    metric: str
    method: str
    statistic: str
    runs: int
    value: float
    verified: bool
    note: str

    @property
    def how(self) -> str:
        """``median of 10``."""
        how = f"{self.statistic} of {self.runs}" if self.runs else self.statistic
        return how if self.verified else f"{how}, unverified"


def published() -> list[Published]:
    """Every figure in ``published.toml``."""
    text = (Path(__file__).parent / "published.toml").read_text("utf-8")
    return [figure for table in tomllib.loads(text)["table"] for figure in _figures(table)]


def _figures(table: dict[str, object]) -> Iterator[Published]:
    about = {key: table[key] for key in ("paper", "source", "model", "split", "statistic", "runs", "verified", "note")}
    tasks, metrics, rows, like = (table[key] for key in ("tasks", "metrics", "rows", "like"))
    assert isinstance(tasks, list) and isinstance(metrics, list) and isinstance(rows, dict) and isinstance(like, list)
    for method, values in rows.items():
        for task, metric, value in zip(tasks, metrics, values, strict=True):
            if value != "-":
                yield Published(
                    **about, like=tuple(like), task=task, metric=metric, method=method, value=round(value / 100, 6)  # type: ignore[arg-type]
                )  # fmt: skip


def paper_table(records: Sequence[Record], paper: str, *, selection: str = "last") -> Table:
    """The paper's figures for the tasks of these runs, with ours where they are of the same thing.

    Raises UsageError for an unknown paper.
    """
    every = published()
    find({figure.paper: figure.paper for figure in every}, paper, "paper")
    arms, _ = to_cells(unique(records), selection)
    tasks = {cell.spec.task for cell in arms}
    figures = [figure for figure in every if figure.paper == paper and figure.task in tasks]
    figures.sort(key=lambda figure: (figure.task, figure.model, figure.statistic))
    rows = tuple(_row(figure, arms) for figure in figures)
    sources = dict.fromkeys(f"{f.source}; {f.split}. {f.note}" for f in figures)
    missing = "" if figures else f"The paper has no figure for {', '.join(sorted(tasks)) or 'no task'}."
    return Table(f"Beside published figures: {paper}", _COLUMNS, rows, tuple(filter(None, (RULE, missing, *sources))))


def _row(figure: Published, arms: Sequence[Cell]) -> dict[str, object]:
    row: dict[str, object] = {
        "task": figure.task, "metric": figure.metric, "method": figure.method, "model": figure.model,
        "statistic": figure.how, "published": figure.value, "ours": None, "n": None, "why": "",
    }  # fmt: skip
    same = [cell for cell in arms if cell.spec.task == figure.task and cell.method == figure.method]
    if not same:
        return {**row, "why": f"no runs of {figure.method}"}
    alike = [cell for cell in same if not _unlike(cell, figure)]
    if len(alike) != 1:
        return {**row, "why": "several recipes: choose with --where" if alike else _unlike(same[0], figure)}
    scores = _scores(alike[0], figure.metric)
    ours = _statistic(scores, figure)
    why = f"best of {figure.runs} needs as many runs" if scores and ours is None else "" if scores else "no scores"
    return {**row, "ours": ours, "n": len(scores), "why": why}


def _unlike(cell: Cell, figure: Published) -> str:
    """What makes the run's figure one of another thing."""
    spec, found = cell.spec, []
    name = cell.setting("model").rstrip("/").rsplit("/", 1)[-1].lower()
    if name not in figure.like:
        found.append(f"model {name or 'unnamed'}")
    if spec.train_size is not None:
        found.append(f"{spec.train_size} rows")
    if spec.label_noise or spec.imbalance is not None or spec.limit is not None or spec.select_on or spec.folds:
        found.append("other rows")
    if spec.layers:
        found.append(f"layers {spec.layers}")
    if spec.encoder:
        found.append(f"tuned on {spec.encoder} before")
    if spec.head == "kept":
        found.append("head of the checkpoint")
    if not _scores(cell, figure.metric):
        found.append(f"no {figure.metric}" if figure.metric != "?" else "metric not said")
    return ", ".join(found)


def _scores(cell: Cell, metric: str) -> list[float]:
    return [score for r in cell.ok if (score := r.result.score(metric, cell.selection)) is not None]


def _statistic(scores: Sequence[float], figure: Published) -> float | None:
    if not scores:
        return None
    if figure.statistic == "best":
        return float(expected_best(scores, figure.runs)[-1]) if len(scores) >= figure.runs else None
    return statistics.median(scores) if figure.statistic == "median" else statistics.fmean(scores)
