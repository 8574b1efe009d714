"""Flags that several commands share, said once, and the small languages inside them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ftbench.errors import UsageError

if TYPE_CHECKING:
    from ftbench.runs.work import Options

T = TypeVar("T")
MAX_SEEDS = 10_000

OutputDir = Annotated[
    Path,
    typer.Option(
        "--output-dir",
        "-o",
        help="Where runs are kept; a finished run is never done twice.",
        rich_help_panel="Runs and output",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python files that come with the model, which can do anything; it is recorded in the runs.",
        rich_help_panel="What",
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        help="tensorboard or wandb: write each run there once it is stored; later commands add what is missing [off].",
        rich_help_panel="Runs and output",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the table and the runs as JSON on stdout.", rich_help_panel="Runs and output"),
]
MACHINE, OUTPUT = "Machine", "Runs and output"
Jobs = Annotated[
    str,
    typer.Option(
        help="Runs at a time, in worker processes of one thread each unless --threads; auto: as many as GPUs or cores. "
        "With --engine slurm 1 and auto are as many as SLURM gives.",
        rich_help_panel=MACHINE,
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="here (one run after the other in this process), local (worker processes) or slurm [here; local with "
        "--jobs]. Any gives the same results.",
        rich_help_panel=MACHINE,
    ),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        help="For slurm: an option of sbatch, such as partition=gpu, account=me, mem=16G, gpus-per-node=1; requeues=N: "
        "how often a run may come to --time-limit and continue [10]. Repeat for more.",
        rich_help_panel=MACHINE,
    ),
]
JobsPerGpu = Annotated[int, typer.Option(help="Runs at a time on one GPU.", min=1, rich_help_panel=MACHINE)]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        help="A run that takes longer is stopped and counts as failed: 90 (seconds), 30m, 2h.", rich_help_panel=MACHINE
    ),
]
Retries = Annotated[
    int, typer.Option(help="A run that fails is tried again so many times.", min=0, rich_help_panel=MACHINE)
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Refuse what torch cannot compute the same way twice (on GPUs).",
        rich_help_panel=MACHINE,
    ),
]


def machine(
    *,
    jobs: str,
    engine: str | None,
    jobs_per_gpu: int,
    time_limit: str | None,
    device: str,
    threads: int | None,
    retries: int,
    deterministic: bool,
    engine_option: list[str] | None = None,
    **others: Any,
) -> Options:
    """How a study is carried out, from the flags of a command. others: further fields of Options.

    Raises UsageError for what cannot be: see ``runs.machine.setup``.
    """  # fmt: skip
    from ftbench.runs.machine import setup
    from ftbench.runs.work import Options

    chosen = setup(
        jobs=jobs, engine=engine, jobs_per_gpu=jobs_per_gpu, time_limit=seconds(time_limit) if time_limit else None,
        device=device, threads=threads, extra=engine_options(engine_option or []),
    )  # fmt: skip
    return Options(
        device=device,
        threads=chosen.threads,
        cache=cache_folder(),
        retries=retries,
        deterministic=deterministic,
        setup=chosen,
        **others,
    )


def engine_options(texts: list[str]) -> dict[str, str]:
    """``["partition=gpu", "exclusive"]`` to ``{"partition": "gpu", "exclusive": ""}``. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name in found:
            raise UsageError(f"--engine-option '{text}': expected an option of sbatch, each once, as in partition=gpu")
        found[name] = value
    return found


def seconds(text: str) -> float:
    """``"90"``, ``"90s"``, ``"30m"``, ``"2h"`` to seconds. Raises UsageError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        value = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--time-limit '{text}': expected seconds above 0, or such as 30m or 2h")
    return value


def parse_seeds(text: str, flag: str) -> list[int]:
    """``"0-4"``, ``"0,2,5"`` or ``"0-2,7"`` to a list without repeats, in the order given.

    Raises UsageError for anything else, a range that runs backwards, or too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"{flag} '{text}': expected whole numbers and ranges, such as 0-4 or 0,2,5")
        low, high = int(first), int(last or first)
        if high < low:
            raise UsageError(f"{flag} '{text}': the range {part.strip()} runs backwards. Did you mean {high}-{low}?")
        if high - low >= MAX_SEEDS:
            raise UsageError(f"{flag} '{text}': more than {MAX_SEEDS} seeds")
        seeds += range(low, high + 1)
    return list(dict.fromkeys(seeds))


def parse_axis(text: str | None, convert: Callable[[str], T], flag: str, expected: str) -> list[T] | None:
    """``"1e-5,5e-5"`` to values; None stays None. Raises UsageError naming flag and value."""
    if text is None:
        return None
    values = []
    for part in text.split(","):
        try:
            values.append(convert(part.strip()))
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{flag} '{part.strip()}': expected {expected}") from error
    return list(dict.fromkeys(values))


def train_size(text: str) -> int | None:
    """A number of rows; ``all`` is None."""
    return None if text == "all" else int(text)


def select_on(text: str) -> float:
    """``"train:0.1"`` to 0.1; ``validation`` to 0."""
    if text == "validation":
        return 0.0
    source, _, fraction = text.partition(":")
    try:
        value = float(fraction)
    except ValueError:
        value = -1.0
    if source != "train" or not 0 < value < 1:
        raise UsageError(f"--select-on '{text}': expected train:FRACTION, such as train:0.1, or validation")
    return value


def one_of(value: str, known: tuple[str, ...], flag: str) -> str:
    """``value`` if it is known. Raises UsageError with the nearest."""
    from ftbench.lookup import find

    return find({name: name for name in known}, value, flag)


def cache_folder() -> Path:
    """``$FTBENCH_HOME``, else the user's cache folder."""
    if home := os.environ.get("FTBENCH_HOME"):
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ftbench"


def flatten(texts: list[str] | None) -> list[str]:
    """Repeated options and comma lists to one list without repeats."""
    return list(dict.fromkeys(part.strip() for text in texts or [] for part in text.split(",") if part.strip()))


def drop_none(values: dict[str, Any]) -> dict[str, Any]:
    """Without the entries that were not given."""
    return {key: value for key, value in values.items() if value is not None}
