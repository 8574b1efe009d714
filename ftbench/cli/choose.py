"""``ftbench choose``: the answer for one's own data."""

from __future__ import annotations

import math
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftbench.cli import options as flags
from ftbench.cli.arms import CheckpointEvery
from ftbench.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from ftbench.models.locate import Checkpoint
    from ftbench.runs.candidates import Candidate
    from ftbench.runs.choosing import Choosing
    from ftbench.runs.grid import Grid
    from ftbench.types import Data

DATA, RACE, MACHINE, OUTPUT = "Your data", "The race", "Machine", "Runs and output"
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def choose(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Your table (CSV, TSV, JSONL, Parquet), a folder, or a task's name."),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(help="Column of the texts; twice, or A,B, for pairs [text, review ...].", rich_help_panel=DATA),
    ] = None,
    label: Annotated[str, typer.Option(help="Column of the labels.", rich_help_panel=DATA)] = "label",
    kind: Annotated[
        str,
        typer.Option(help="classification, or regression where labels are numbers to predict.", rich_help_panel=DATA),
    ] = "classification",
    encoding: Annotated[
        str, typer.Option(help="Encoding of a CSV, such as cp1252 [UTF-8 or UTF-16].", rich_help_panel=DATA)
    ] = "",
    data_dir: Annotated[
        str | None,
        typer.Option(help="Where FILE is a task's name: the folder with its download [the hub].", rich_help_panel=DATA),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Time for all of it, the last training included: 90s, 30m, 2h.", rich_help_panel=RACE)
    ] = "30m",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="minilm, a local folder or a hub id; repeat for more.", rich_help_panel=RACE
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            help="Methods beside std and linear, each at its defaults, weaker and stronger; a stack (a+b) or fields "
            "(a:x=1) as given; a comma list of names; none for std and layers only [lora,llrd,wise-ft,mixout,r3f].",
            rich_help_panel=RACE,
        ),
    ] = None,
    layers: Annotated[
        str,
        typer.Option(help="Layers to tune beside all, a comma list: auto, top:3, 2:4:4; none.", rich_help_panel=RACE),
    ] = "auto,top:half",
    margin: Annotated[
        float, typer.Option(help="A difference that is not worth a change, in points.", rich_help_panel=RACE)
    ] = 1.0,
    max_length: Annotated[int, typer.Option(help="Tokens of a row; longer texts are cut.", rich_help_panel=DATA)] = 128,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.", rich_help_panel=MACHINE)] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=MACHINE)] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1, rich_help_panel=MACHINE)] = None,
    jobs: flags.Jobs = "1",
    engine: flags.EngineName = None,
    engine_option: flags.EngineOption = None,
    jobs_per_gpu: flags.JobsPerGpu = 1,
    time_limit: flags.TimeLimit = None,
    retries: flags.Retries = 0,
    deterministic: flags.Deterministic = False,
    checkpoint_every: CheckpointEvery = 0,
    output_dir: flags.OutputDir = Path("runs"),
    json: Annotated[
        bool, typer.Option("--json", help="The choice as JSON on stdout, for scripts.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Which method, which layers, at what cost, for your rows: or whether to fine-tune at all.

    Looks at the data, sets a test part aside that nothing is chosen by, races std, a linear model on the frozen
    encoder, layers and methods on draws of the rest, drops what falls behind, trains the choice on all but the test
    part, scores it there once, and keeps it. std is kept unless another is reliably better.

    Stopped or killed, the same command goes on; with a larger --budget it looks further. The page is printed, and
    written as HTML and Markdown into the output folder.

    Examples:

        ftbench choose reviews.csv --text review --label stars --budget 30m

        ftbench choose pairs.tsv --text question --text answer --label match --methods r3f,lora --budget 2h

        ftbench choose reviews.csv --text review --label stars --model minilm --model ./my-model --methods none
    """
    from ftbench.cli.study import attended
    from ftbench.models.locate import locate
    from ftbench.runs.answer import answer
    from ftbench.runs.store import Store
    from ftbench.tasks import from_folder, resolve
    from ftbench.tasks.sources import load

    seconds = to_seconds(budget)
    kind = flags.one_of(kind, ("classification", "regression"), "kind")
    task = resolve(file, tuple(flags.flatten(text)), label, kind, encoding)  # type: ignore[arg-type]
    if task.kind == "summarization":
        raise UsageError(
            f"task '{task.name}' is of summaries: choose is for classes and numbers. Try ftbench summarize"
        )
    data = load(from_folder([task], data_dir)[0] if data_dir else task)
    models = [locate(name) for name in flags.flatten(model) or ["minilm"]]
    raced = to_candidates(data, models, methods, layers)
    fixed = {"max_length": max_length, "precision": precision}
    choosing = to_choosing(data, raced, Store(output_dir), seconds, fixed, margin=margin, device=device)
    if not quiet:
        show_data(data, choosing)
    options = flags.machine(
        jobs=jobs, engine=engine, engine_option=engine_option, jobs_per_gpu=jobs_per_gpu, time_limit=time_limit,
        device=device, threads=threads, retries=retries, deterministic=deterministic, checkpoint_every=checkpoint_every,
    )  # fmt: skip
    choosing.jobs = options.setup.jobs
    with attended(choosing.store, choosing.data, models, options, quiet=quiet) as grid:
        race(choosing, grid, quiet=quiet)
        found = answer(choosing, grid.records, shlex.join(["ftbench", *sys.argv[1:]]))
    choosing.journal.save()
    show(found, choosing, grid, as_json=json, quiet=quiet)


def to_seconds(text: str) -> float:
    """``90s``, ``30m``, ``1.5h`` or ``1h30m``. Raises UsageError for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise UsageError(f"--budget '{text}': expected a time such as 90s, 30m, 2h or 1h30m")
    seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if seconds <= 0:
        raise UsageError(f"--budget '{text}': expected more than no time")
    return seconds


def to_candidates(data: Data, models: list[Checkpoint], methods: list[str] | None, layers: str) -> list[Candidate]:
    """Raises UsageError for names and layers that are not there."""
    from ftbench.runs.candidates import DEFAULT, candidates

    asked = [part for text in methods or DEFAULT for part in _split(text)]
    ways = [way for way in flags.flatten([layers]) if way != "none"]
    half = min((model.blocks for model in models if model.blocks), default=0) // 2
    ways = [f"top:{half}" if way == "top:half" else way for way in ways if way != "top:half" or half > 1]
    wordless = any(not "".join(row).strip() for row in zip(*data.splits["train"].texts, strict=True))
    if data.task.kind != "classification" or wordless:
        ways = [way for way in ways if way != "auto"]  # nu compares classes, of texts with words
    return candidates(models, [] if asked == ["none"] else asked, ways)


def _split(text: str) -> list[str]:
    """``r3f,lora`` is two; ``r3f:weight=1,eps=1`` is one: a comma before a field belongs to the method."""
    return [part.strip() for part in re.split(r",(?![\w-]+=)", text) if part.strip()]


def to_choosing(
    data: Data, raced: list[Candidate], store: Any, budget: float, fixed: dict[str, Any], *, margin: float, device: str
) -> Choosing:
    """Raises UsageError for rows that nothing can be chosen by."""
    from ftbench.runs.choosing import Choosing
    from ftbench.runs.race import Rules
    from ftbench.tasks.parts import set_aside

    if not 0 <= margin < math.inf:
        raise UsageError(f"--margin is {margin:g}: expected 0 or more points")
    return Choosing(set_aside(data), raced, store, budget, fixed=fixed, rules=Rules(margin=margin / 100), device=device)


def show_data(data: Data, choosing: Choosing) -> None:
    """What is known of the rows before anything is trained, on stderr."""
    from ftbench.cli.output import describe_data
    from ftbench.tasks.examine import examine, other_notes

    pool, test = (len(choosing.parts.whole.splits[name]) for name in ("train", "validation"))
    print(
        f"{describe_data(data)}\nTo choose by: {pool:,} rows. Test part, looked at once: {test:,} rows.",
        file=sys.stderr,
    )
    known = [warning for warning in examine(data).warnings if not warning.startswith("validation: ")]
    for warning in (*known, *choosing.parts.notes):
        print(f"! {warning}", file=sys.stderr)
    for note in other_notes(data):
        print(f"- {note}", file=sys.stderr)


def race(choosing: Choosing, grid: Grid, *, quiet: bool) -> None:
    """Does the stages, telling how it stands. What was spent is kept, also when it is interrupted."""
    if not quiet:
        choosing.tell = grid.progress.message  # type: ignore[attr-defined]
        names = ", ".join(choosing.by_name)
        choosing.tell(f"In the race, as far as the time goes: {names}")
    asked = grid.options.should_stop
    grid.options = replace(grid.options, should_stop=lambda: asked() or choosing.is_hopeless)
    try:
        grid.run(choosing.stages(grid))
    except Interrupted as error:
        if asked() or not choosing.is_hopeless:
            raise
        raise UsageError(
            f"--budget {choosing.budget:g}s is too short: not one run of {choosing.race.baseline} ended in it. Give "
            "more, and the same command goes on"
        ) from error
    finally:
        choosing.journal.save()


def show(found: Any, choosing: Choosing, grid: Grid, *, as_json: bool, quiet: bool) -> None:
    """Writes the page and prints it."""
    import json as codec

    from ftbench.reporting.choice_page import page_of, to_html, to_markdown, to_terminal
    from ftbench.runs.files import plain, slug, to_json, write_atomic

    assert choosing.final is not None
    page = page_of(found, choosing.final)
    base = choosing.store.root / f"choice-{slug(found.task)}"
    write_atomic(Path(f"{base}.html"), to_html(page, grid.records).encode())
    write_atomic(Path(f"{base}.md"), to_markdown(page).encode())
    write_atomic(Path(f"{base}.json"), to_json(found.to_json()))
    if as_json:
        print(codec.dumps(plain({**found.to_json(), "says": list(page.conclusions)}), indent=2, ensure_ascii=False))
    else:
        print(to_terminal(page), end="")
    if not quiet:
        print(f"The page is {base}.html, and {base}.md.", file=sys.stderr)
