"""Commands as a study file has them: their flags as settings, and their plans without their work."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ftbench.cli.finetune import finetune
from ftbench.cli.probe import probe
from ftbench.cli.study import Prepared, preparing
from ftbench.cli.summarize import summarize
from ftbench.cli.variability import variability
from ftbench.errors import UsageError
from ftbench.methods import names_only
from ftbench.runs.study_file import Source, Stage, cells

#: what a study file may ask for
COMMANDS: dict[str, Callable[..., None]] = {
    "finetune": finetune,
    "probe": probe,
    "variability": variability,
    "summarize": summarize,
}
#: of a command that has further ones below it: none of those is meant
ALONE = SimpleNamespace(invoked_subcommand=None)
#: flags that say how and where runs are done, not which (those of `ftbench run`), and one that runs a model's code
OF_THE_RUN = (
    "device", "threads", "jobs", "engine", "engine_option", "jobs_per_gpu", "time_limit", "retries",
    "deterministic", "output_dir", "force", "retry_failed", "checkpoint_every", "prefix_cache", "quiet", "json",
    "figure", "track", "form", "save_model", "context", "trust_remote_code",
)  # fmt: skip


def settings() -> dict[str, dict[str, Any]]:
    """Command -> its settings by their names in study files, each with its type."""
    return {command: {_dashed(name): kind for name, kind in _flags(run).items()} for command, run in COMMANDS.items()}


@names_only()
def prepare(stage: Stage, source: Source, output_dir: Path, machine: Mapping[str, Any]) -> list[Prepared]:
    """What the commands of a stage would do. machine: flags of ``OF_THE_RUN`` that are given.

    Raises UsageError with file and line.
    """
    run = COMMANDS[stage.command]
    kinds = {_dashed(name): kind for name, kind in _flags(run).items()}
    found = []
    for cell in _singles(stage, kinds):
        values = {name.replace("-", "_"): _value(source, name, value, kinds[name]) for name, value in cell.items()}
        given = {**machine, "context": ALONE}
        own = {name: value for name, value in given.items() if name in inspect.signature(run).parameters}
        try:
            with preparing() as prepared:
                run(**{**values, **own, "output_dir": output_dir, "quiet": True})
        except UsageError as error:
            line = source.line_with(str(error))
            raise UsageError(f"{source.path.name}{f', line {line}' if line else ''}: {error}") from error
        found += prepared
    return found


def _singles(stage: Stage, kinds: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells; axes of flags that take one value are split, too."""
    for cell in cells(stage):
        many = [name for name, value in cell.items() if name in stage.axes and isinstance(value, list)]
        single = [name for name in many if not _takes(kinds[name], str) and not _takes_list(kinds[name])]
        combinations: list[dict[str, Any]] = [{}]
        for name in single:
            combinations = [{**one, name: value} for one in combinations for value in cell[name]]
        yield from ({**cell, **one} for one in combinations)


def _flags(run: Callable[..., None]) -> dict[str, Any]:
    """Parameter -> its type without typer's words."""
    hints = typing.get_type_hints(run)
    return {name: hints[name] for name in inspect.signature(run).parameters if name not in OF_THE_RUN}


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _options(kind: Any) -> tuple[Any, ...]:
    return (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        else (kind,)
    )


def _takes(kind: Any, what: type) -> bool:
    return what in _options(kind)


def _takes_list(kind: Any) -> bool:
    return any(typing.get_origin(option) is list for option in _options(kind))


def _value(source: Source, name: str, value: Any, kind: Any) -> Any:
    """A value of the file as the flag's own type. Raises UsageError."""
    if _takes_list(kind):
        return [str(each) for each in (value if isinstance(value, list) else [value])]
    if _takes(kind, str) and not isinstance(value, bool):
        return ",".join(_text(each) for each in value) if isinstance(value, list) else _text(value)
    for wanted in (bool, int, float):
        if _takes(kind, wanted) and isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool):
            return value
    if _takes(kind, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    expected = " or ".join(words[option] for option in _options(kind) if option in words)
    line = next((n for at in ("defaults", "axes") if (n := source.line([at, name]))), None)
    where = f"{source.path.name}{f', line {line}' if line else ''}"
    raise UsageError(f"{where}: '{name}' is {value!r}: expected {expected}")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
