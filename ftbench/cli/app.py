"""The command line: ``ftbench``. Importing it loads neither torch nor pandas, so ``--help`` is instant."""

from __future__ import annotations

import errno
import functools
import gc
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import ftbench
from ftbench.cli import (
    catalog,
    choose,
    download,
    finetune,
    predict,
    probe,
    report,
    run,
    status,
    summarize,
    validate,
    variability,
)
from ftbench.errors import FtbenchError, UsageError, explain
from ftbench.runs import team

HELP = """Compare ways to fine-tune a pretrained language model on little data, and trust the numbers.

Your own rows? `ftbench choose reviews.csv --text review --label stars` says what to use for them, and keeps it.

To compare methods start with `ftbench finetune --method r3f`: it fine-tunes a small real model on real headlines,
plainly and with R3F, three seeds each, offline, and prints one table.

Data goes to stdout, progress and logs to stderr. Exit codes: 0 done (a run that diverged is a result, too), 1 a run
failed, 2 wrong usage, 130 interrupted (run the same command to continue).
"""


def _reads(command: Callable[..., None]) -> Callable[..., None]:
    """The command without searches for cycles of garbage: what it reads it keeps, and to look through that again and
    again takes a quarter of its time."""

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> None:
        enabled = gc.isenabled()
        gc.disable()
        try:
            command(*args, **given)
        finally:
            if enabled:
                gc.enable()

    return run


app = typer.Typer(
    name="ftbench",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("choose")(choose.choose)
app.command("finetune")(finetune.finetune)
app.add_typer(summarize.app, name="summarize")
app.command("probe")(probe.probe)
app.command("variability")(variability.variability)
app.command("run")(run.run)
app.command("plan")(_reads(run.plan))
app.command("status")(_reads(status.status))
app.command("cancel")(status.cancel)
app.command("report")(_reads(report.report))
app.command("predict")(predict.predict)
app.command("validate")(validate.validate)
app.command("download")(download.download)
app.add_typer(catalog.app, name="list")
app.command("doctor")(catalog.doctor)


def _version(value: bool) -> None:
    if value:
        print(f"ftbench {ftbench.__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Looks at how the process was started."""
    if team.size() > 1 and context.invoked_subcommand not in team.SHARED:
        if team.rank():
            raise typer.Exit(2)
        raise UsageError(f"torchrun and accelerate launch are for ftbench {' and '.join(team.SHARED)}")


def main() -> None:
    """Runs the command line; errors become one message on stderr and an exit code."""
    sys.argv[1:] = [_with_dashes(argument) for argument in sys.argv[1:]]
    try:
        logging.basicConfig(level=_log_level(), format="%(levelname)s %(message)s")
        logging.getLogger("huggingface_hub").propagate = False  # it prints for itself: once is enough
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a full disk is one message
    except FtbenchError as error:
        label = "interrupted" if error.exit_code == 130 else "error"
        print(f"{label}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `ftbench report | head`
        _drop_stdout()
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print(f"error: cannot write the output: {explain(error)}", file=sys.stderr)
        _drop_stdout()
        sys.exit(1)


def _drop_stdout() -> None:
    """What is still buffered goes nowhere, so that Python does not stumble over it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log_level() -> str:
    level = os.environ.get("FTBENCH_LOG_LEVEL", "WARNING").upper()
    if level not in logging.getLevelNamesMapping():
        raise UsageError(f"FTBENCH_LOG_LEVEL is '{level}': expected DEBUG, INFO, WARNING or ERROR")
    return level


def _with_dashes(argument: str) -> str:
    """``--train_size`` is ``--train-size``."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value
