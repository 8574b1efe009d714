"""``ftbench run`` and ``ftbench plan``: studies that are written down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftbench.cli import options as flags
from ftbench.errors import UsageError

STUDY = "Study"
Study = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study file (study.toml), or a ready one (`ftbench list studies`).")
]
Profile = Annotated[
    str | None,
    typer.Option(help="A profile of the study, such as quick: smaller, to try it.", rich_help_panel=STUDY),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        "-o",
        help="Where runs are kept [runs/STUDY or runs/STUDY-PROFILE].",
        rich_help_panel=flags.OUTPUT,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=flags.MACHINE)]
Threads = Annotated[int | None, typer.Option(help="CPU threads of a run.", min=1, rich_help_panel=flags.MACHINE)]
PrefixCache = Annotated[str, typer.Option(help="auto, on or off, as for finetune.", rich_help_panel=flags.MACHINE)]


def run(
    study: Study,
    profile: Profile = None,
    output_dir: Folder = None,
    device: Device = "auto",
    threads: Threads = None,
    jobs: flags.Jobs = "1",
    engine: flags.EngineName = None,
    engine_option: flags.EngineOption = None,
    jobs_per_gpu: flags.JobsPerGpu = 1,
    time_limit: flags.TimeLimit = None,
    retries: flags.Retries = 0,
    deterministic: flags.Deterministic = False,
    checkpoint_every: Annotated[
        int,
        typer.Option(help="Steps between checkpoints; 0: about once a minute.", min=0, rich_help_panel=flags.MACHINE),
    ] = 0,
    prefix_cache: PrefixCache = "auto",
    save_model: Annotated[
        str | None,
        typer.Option(help="Keep weights: best, median or all, as for finetune.", rich_help_panel=flags.OUTPUT),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Do finished runs again.", rich_help_panel=flags.OUTPUT)
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do failed and diverged runs again.", rich_help_panel=flags.OUTPUT)
    ] = False,
    track: flags.Track = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress display.", rich_help_panel=flags.OUTPUT)
    ] = False,
    json: flags.Json = False,
) -> None:
    """Do the runs of a study file: axes, exceptions, stages. What is done is never done twice.

    A study file says what `ftbench finetune`, `summarize`, `probe` and `variability` are asked, with lists as axes.
    Ready ones test the claims of papers: `ftbench list studies`.

    Stop it whenever you like (Ctrl-C, or `ftbench cancel FOLDER` from elsewhere) and run the same command to continue.

    Examples:

        ftbench run claim-3 --profile quick

        ftbench run study.toml --jobs 4

        ftbench plan study.toml
    """
    given = {
        "device": device, "threads": threads, "jobs": jobs, "engine": engine, "engine_option": engine_option,
        "jobs_per_gpu": jobs_per_gpu,
        "time_limit": time_limit, "retries": retries, "deterministic": deterministic,
        "checkpoint_every": checkpoint_every, "prefix_cache": prefix_cache, "force": force,
        "retry_failed": retry_failed,
    }  # fmt: skip
    if save_model is not None:
        flags.one_of(save_model, ("best", "median", "all"), "choice of --save-model")
    from ftbench.cli.studying import run_file

    failed = run_file(study, profile, output_dir, given, save_model=save_model, track=track, quiet=quiet, as_json=json)
    if failed:
        raise typer.Exit(1)


def plan(
    study: Study,
    profile: Profile = None,
    output_dir: Folder = None,
    device: Device = "auto",
    threads: Threads = None,
    jobs: flags.Jobs = "1",
    jobs_per_gpu: flags.JobsPerGpu = 1,
    sample: Annotated[
        float,
        typer.Option(help="Seconds to spend on timing a few steps of what was not measured yet; 0: none.", min=0),
    ] = 30.0,
    print_commands: Annotated[
        bool, typer.Option("--print-commands", help="Print a command for each run to do, for any scheduler.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")] = False,
) -> None:
    """Show what a study consists of, how much of it is done, what the rest takes. Nothing is run but a short sample.

    Examples:

        ftbench plan claim-3 --profile quick

        ftbench plan study.toml --jobs 8 --sample 0

        ftbench plan study.toml --print-commands > commands.txt
    """
    from ftbench.cli.studying import plan_file

    if print_commands and json:
        raise UsageError("--print-commands and --json: give one of them")
    given = {"device": device, "threads": threads, "jobs": jobs, "jobs_per_gpu": jobs_per_gpu}
    plan_file(study, profile, output_dir, given, sample=sample, commands=print_commands, as_json=json)
