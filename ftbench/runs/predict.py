"""Which trained model a word names, and the table that it is used on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftbench.errors import UsageError
from ftbench.lookup import match_labels
from ftbench.models.locate import Checkpoint, locate
from ftbench.runs.store import read
from ftbench.tasks import TASKS
from ftbench.tasks.columns import check_texts, text_cells
from ftbench.tasks.downloads import to_task_columns
from ftbench.tasks.files import read_lines, read_table
from ftbench.types import RunSpec, Task
from ftbench.types.run import TUNED
from ftbench.types.task import Layout

if TYPE_CHECKING:
    from pandas import DataFrame

    from ftbench.training.predict import Predicted

DEFAULT_LENGTH = 128
#: a file that has a text a line
LINES = ".txt"
#: the flag that keeps weights, and the commands that have it
KEEP, KEEPING = "--save-model", {"finetune", "summarize", "run"}


@dataclass(frozen=True)
class Trained:
    """A trained model and what it was trained on; ``spec`` is None for one that ftbench did not train."""

    checkpoint: Checkpoint
    task: Task | None
    columns: tuple[str, ...]
    spec: RunSpec | None = None

    @property
    def max_length(self) -> int:
        return self.spec.max_length if self.spec else DEFAULT_LENGTH

    @property
    def precision(self) -> str:
        return self.spec.precision if self.spec else "fp32"

    @property
    def writes(self) -> bool:
        """Whether it writes summaries."""
        return self.spec is not None and self.spec.kind == "summarize"


def find_trained(
    name: str, revision: str | None = None, task: Task | None = None, *, remote_code: bool = False
) -> Trained:
    """The model of a run's folder, of the only run with weights below a folder, of a model folder or of the hub.

    Raises UsageError for a run that kept no weights (with the command that keeps them), for a folder with several such
    runs, and for a task of summaries without a run that says how they are written.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir() or (folder / "config.json").exists():
        parent = folder.parent
        if folder.name == "model" and (parent / "result.json").exists():
            return _of_run(parent, revision, remote_code=remote_code)
        if task is not None and task.kind == "summarization":
            raise UsageError(f"--task {task.name}: summaries are written by a run of `ftbench summarize`, as it did")
        return Trained(locate(name, revision, remote_code=remote_code), task, task.inputs if task else ())
    if (folder / "result.json").exists():
        return _of_run(folder, revision, remote_code=remote_code)
    kept = sorted(path.parents[1] for path in folder.rglob("model/config.json"))
    if len(kept) == 1:
        return _of_run(kept[0], revision, remote_code=remote_code)
    if not kept:
        raise UsageError(
            f"no run with weights in '{name}': fine-tune with --save-model best, or give a model's folder or hub id"
        )
    shown = "".join(f"\n  {path}{_headline(path)}" for path in kept[:10]) + ("\n  …" if len(kept) > 10 else "")
    raise UsageError(f"'{name}' has {len(kept)} runs with weights: name one of{shown}")


def _headline(folder: Path) -> str:
    """``" (accuracy 0.912)"``, to choose by; nothing where the run's result cannot be read."""
    try:
        result = read(folder).result
        metric = result.facts["headline"]
        return f" ({metric} {result.score(metric):.3f})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _of_run(folder: Path, revision: str | None, *, remote_code: bool) -> Trained:
    try:
        spec = read(folder).result.spec
    except ValueError as error:
        raise UsageError(f"run '{folder}' cannot be read: {error}") from error
    if not (folder / "model").is_dir():
        if spec.kind not in TUNED or spec.is_trial:
            kind = "trial of a search" if spec.is_trial else spec.kind
            raise UsageError(f"run '{folder}' is a {kind}, which keeps no weights: give a run of a method")
        raise UsageError(f"run '{folder}' kept no weights. This trains it again and keeps them: {_command(folder)}")
    columns = tuple(spec.source.get("text", ()))
    task = TASKS.get(spec.task)
    found = locate(str(folder / "model"), revision, remote_code=remote_code)
    return Trained(found, task, columns or (task.inputs if task else ()), spec)


def _command(folder: Path) -> str:
    """The command that made the run, with ``--save-model all`` where it has that; the others keep them anyway."""
    try:
        command = [str(word) for word in json.loads((folder / "environment.json").read_text())["command"]]
    except (OSError, ValueError, KeyError, TypeError):
        command = ["ftbench", "finetune"]
    if not KEEPING & set(command[1:2]):
        return shlex.join(command)
    said = [
        word
        for before, word in zip(["", *command], command, strict=False)
        if KEEP not in (before, word.partition("=")[0])
    ]
    return shlex.join([*said, KEEP, "all"])


def read_new(
    path: Path, trained: Trained, columns: Sequence[str] = (), encoding: str = ""
) -> tuple[DataFrame, tuple[tuple[str, ...], ...]]:
    """The table to predict for, and its texts, one tuple for each input column.

    columns: the text columns, where they are not those that the model was trained on; not needed for a table of one.
    The official files of a declared task may keep their own column names. A file of ``LINES`` has a text a line.
    encoding: of a CSV or a file of texts, where it is not UTF-8. Raises UsageError for a file that cannot be read, is
    empty or lacks a text column.
    """
    layout = trained.task.layout if trained.task else None
    header = layout.header if layout and path.name in layout.files.values() else ()
    wanted = tuple(columns) or trained.columns
    if path.suffix.lower() == LINES:
        wanted = wanted or ("text",)
        table = _table_of_lines(path, wanted, encoding)
    else:
        table = read_table(path, header, encoding).rename(columns=str)
    if not wanted and len(table.columns) == 1:
        wanted = tuple(table.columns)
    if not wanted:
        listed = ", ".join(table.columns)
        raise UsageError(f"which column of '{path}' holds the text? Say it with --text COLUMN. Columns: {listed}")
    if trained.writes and len(wanted) > 1:
        raise UsageError(f"--text {','.join(wanted)}: summaries are written of one column")
    official = layout if not columns else None
    try:
        check_texts(wanted, list(table.columns), f"'{path}'", theirs=official.columns if official else None)
    except UsageError as error:
        raise UsageError(f"{error}{'' if columns else ' (another: --text COLUMN)'}") from error
    named = to_task_columns(table, official) if official else table
    if not len(table):
        raise UsageError(f"'{path}' has no rows")
    taken = [name for name in table.columns if name == "prediction" or name.startswith("probability_")]
    if taken:
        raise UsageError(f"'{path}' has a column '{taken[0]}' already: rename it, it would be replaced")
    return table, tuple(text_cells(named[column], column, f"'{path}'") for column in wanted)


def _table_of_lines(path: Path, columns: Sequence[str], encoding: str) -> DataFrame:
    """A text a line, in the column that the model reads. Raises UsageError for a model of pairs."""
    import pandas

    if len(columns) > 1:
        raise UsageError(f"'{path}' has a text a line, and the model reads {' and '.join(columns)}: give a table")
    return pandas.DataFrame({columns[0]: read_lines(path, encoding)}, dtype=object)


def predict(
    trained: Trained,
    texts: tuple[tuple[str, ...], ...],
    *,
    max_length: int | None = None,
    device: str = "auto",
    attend: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:
    """Predictions for the texts, cut and computed as in training unless told; summaries written with the settings of
    the run. attend: told how many summaries are written of how many. Raises UsageError."""
    from ftbench.training.predict import predict_texts, summarize_texts

    length = max_length or trained.max_length
    if trained.spec is not None and trained.writes:
        spec = replace(trained.spec, max_length=length)
        return summarize_texts(trained.checkpoint, texts, spec, device=device, attend=attend)
    return predict_texts(trained.checkpoint, texts, max_length=length, precision=trained.precision, device=device)


def with_predictions(table: DataFrame, predicted: Predicted, labels: Sequence[str]) -> DataFrame:
    """The table with ``prediction``, a summary where those are written, and ``probability_<label>`` for each class, as
    its last columns."""
    out = table.copy()
    if predicted.probabilities is None:
        out["prediction"] = predicted.values
        return out
    out["prediction"] = [labels[i] for i in predicted.values]
    for i, label in enumerate(labels):
        out[f"probability_{label}"] = predicted.probabilities[:, i].round(6)
    return out


def task_labels(names: Sequence[str], task: Task | None) -> list[str]:
    """A model's class names in the words of the task: by name, by order for ``LABEL_0`` and the like.

    Raises UsageError where they are not the same names.
    """
    if task is None or task.kind == "summarization" or (not task.labels and task.kind == "classification"):
        return list(names)
    if task.kind == "regression":
        if names:
            raise UsageError(f"the model's classes are {', '.join(names)}; task '{task.name}' is a regression")
        return []
    order = match_labels(names, task.labels)
    if order is None:
        raise UsageError(
            f"the model's classes are {', '.join(names)}; task '{task.name}' has {', '.join(task.labels)}: "
            "they cannot be matched"
        )
    return [task.labels[order.index(i)] for i in range(len(names))]


def require_test_file(path: Path, task: Task | None) -> Layout:
    """Raises UsageError for a file that is none of the task's test files, and for a task without such files."""
    layout = task.layout if task else None
    if task is None or layout is None or not layout.tests:
        raise UsageError("--glue: the model was not trained on a GLUE task; say which with --task")
    if path.name not in layout.tests:
        known = ", ".join(layout.tests)
        raise UsageError(f"--glue: '{path.name}' is no test file of task '{task.name}'. Expected {known}")
    return layout


def submission(
    path: Path, table: DataFrame, predicted: Predicted, labels: Sequence[str], task: Task
) -> tuple[str, str]:
    """Name and content of the file that GLUE's server scores: index and prediction, tab-separated.

    Labels are as in the official files, by name or by id; STS-B's scores are kept within 0 to 5.
    Raises UsageError for a file that is none of the task's test files.
    """
    layout = require_test_file(path, task)
    index = [str(i) for i in (table["index"] if "index" in table.columns else range(len(table)))]
    values: list[Any]
    if predicted.probabilities is None:
        values = [f"{min(5.0, max(0.0, value)):.3f}" for value in predicted.values]
    elif layout.ids:
        values = [task.labels.index(labels[i]) for i in predicted.values]
    else:
        values = [labels[i] for i in predicted.values]
    lines = ["index\tprediction", *(f"{i}\t{value}" for i, value in zip(index, values, strict=True))]
    return layout.tests[path.name], "\n".join(lines) + "\n"
