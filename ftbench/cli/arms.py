"""Flags of the commands that train methods over seeds (``finetune``, ``summarize``), said once; what becomes of them.

``given`` is a command's arguments by name: its ``locals()`` where it begins.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftbench.cli import options as flags

if TYPE_CHECKING:
    from ftbench.cli.study import Ask

METHOD_HELP = (
    "A method, with fields after a colon: r3f:weight=0.5,eps=1e-3. A + stacks methods into one arm. Repeat for "
    "more arms; std runs beside them. `all` is every method at its defaults; `ftbench list methods` shows them."
)
TUNE_HELP = (
    "What is tuned in the chosen layers: full, bitfit, lora or adapter, with fields as in lora:rank=16. It is the "
    "method of that name, put before every arm. Repeat for several [full]."
)
SEARCH_HELP = (
    "Values to choose from on a slice of train: weight=0.1,1 (of each method that has the field), r3f:weight=0.1,1, "
    "lr=2e-5,1e-4 (of the recipe; lr alone, or not said, is searched around its default). Repeat for more."
)
WHAT, OWN, ROWS, RECIPE, MACHINE, OUTPUT = "What", "Your own data", "Rows", "Recipe", "Machine", "Runs and output"

Method = Annotated[list[str] | None, typer.Option("--method", help=METHOD_HELP, rich_help_panel=WHAT)]
Tune = Annotated[list[str] | None, typer.Option("--tune", help=TUNE_HELP, rich_help_panel=WHAT)]
Revision = Annotated[
    str | None, typer.Option(help="Revision of a hub model: branch, tag or commit.", rich_help_panel=WHAT)
]
Seeds = Annotated[
    str, typer.Option(help="Seeds: 0-4 or 0,2,5. At least six make a test possible.", rich_help_panel=WHAT)
]
Epochs = Annotated[str | None, typer.Option(help="Epochs exactly; a comma list is an axis.", rich_help_panel=RECIPE)]
Steps = Annotated[
    str | None, typer.Option(help="Optimizer steps exactly; a comma list is an axis.", rich_help_panel=RECIPE)
]
Lr = Annotated[
    str | None,
    typer.Option(
        help="Peak learning rate [1e-4, 5e-5 or 2e-5 by the model's width]; a comma list is an axis.",
        rich_help_panel=RECIPE,
    ),
]
BatchSize = Annotated[
    str | None, typer.Option(help="Rows a step [16]; a comma list is an axis.", rich_help_panel=RECIPE)
]
TrainSize = Annotated[
    str | None,
    typer.Option(help="Training rows, drawn stratified; 'all' for all; a comma list is an axis.", rich_help_panel=ROWS),
]
DataSeeds = Annotated[str, typer.Option(help="Seeds of the rows drawn and the labels flipped.", rich_help_panel=ROWS)]
Search = Annotated[list[str] | None, typer.Option("--search", help=SEARCH_HELP, rich_help_panel=RECIPE)]
Budget = Annotated[
    int | None,
    typer.Option(help="Configurations that a search tries for every arm, std too [8].", rich_help_panel=RECIPE),
]
SelectOn = Annotated[
    str,
    typer.Option(
        help="Where the best epoch is chosen: train:0.1 holds out a tenth of train. A search always holds out, a "
        "fifth unless told.",
        rich_help_panel=ROWS,
    ),
]
MicroBatch = Annotated[
    int | None, typer.Option(help="Rows in memory at once; gradients accumulate.", rich_help_panel=RECIPE)
]
Precision = Annotated[
    str, typer.Option(help="fp32, bf16 or fp16 (autocast; weights stay fp32).", rich_help_panel=RECIPE)
]
Batching = Annotated[
    str | None, typer.Option(help="random, or bucket by length [random below 2,000 rows].", rich_help_panel=RECIPE)
]
Passes = Annotated[
    str, typer.Option(help="separate, or joined: a method's passes as one batch.", rich_help_panel=RECIPE)
]
Warmup = Annotated[float, typer.Option(help="Share of the steps with rising learning rate.", rich_help_panel=RECIPE)]
WeightDecay = Annotated[float, typer.Option(help="Decoupled decay of matrices.", rich_help_panel=RECIPE)]
Clip = Annotated[float, typer.Option(help="Largest gradient norm; 0 for none.", rich_help_panel=RECIPE)]
Limit = Annotated[
    int | None, typer.Option(help="At most so many rows of every split, for a quick try.", rich_help_panel=ROWS)
]
Device = Annotated[
    str, typer.Option(help="auto (CUDA if there, else CPU), cpu, cuda, cuda:1, mps.", rich_help_panel=MACHINE)
]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", min=1, rich_help_panel=MACHINE)]
SaveModel = Annotated[
    str | None,
    typer.Option(
        help="Keep weights of each arm's best or median seed, or of all. Plain transformers loads them, but for "
        "adapters, which ftbench predict alone can use.",
        rich_help_panel=OUTPUT,
    ),
]
NoBaseline = Annotated[
    bool, typer.Option("--no-baseline", help="Do not run std beside other methods.", rich_help_panel=OUTPUT)
]
NoReferences = Annotated[
    bool, typer.Option("--no-references", help="Do not score the reference rows.", rich_help_panel=OUTPUT)
]
Force = Annotated[bool, typer.Option("--force", help="Do finished runs again.", rich_help_panel=OUTPUT)]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Do failed and diverged runs again.", rich_help_panel=OUTPUT)
]
CheckpointEvery = Annotated[
    int, typer.Option(help="Steps between checkpoints; 0: about once a minute.", min=0, rich_help_panel=MACHINE)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.", rich_help_panel=OUTPUT)]

#: fields of ``flags.machine`` that both commands have
_HOW = (
    "jobs", "engine", "engine_option", "jobs_per_gpu", "time_limit", "device", "threads", "retries", "deterministic",
    "force", "retry_failed", "checkpoint_every",
)  # fmt: skip


def axes_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The axes that both commands have. Raises UsageError naming flag and value."""
    return {
        "epochs": flags.parse_axis(given["epochs"], float, "--epochs", "a number above 0"),
        "steps": flags.parse_axis(given["steps"], int, "--steps", "a whole number above 0"),
        "lr": flags.parse_axis(given["lr"], float, "--lr", "a number such as 5e-5"),
        "batch_size": flags.parse_axis(given["batch_size"], int, "--batch-size", "a whole number above 0"),
        "train_size": flags.parse_axis(
            given["train_size"], flags.train_size, "--train-size", "a number of rows, or all"
        ),
    }


def recipe_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of RunSpec with one value that both commands have. Raises UsageError for a word that is none."""
    batching, plain = given["batching"], ("micro_batch", "warmup", "weight_decay", "clip", "evaluations", "limit")
    return {
        **{name: given[name] for name in plain},
        "select_on": flags.select_on(given["select_on"]),
        "precision": flags.one_of(given["precision"], ("fp32", "bf16", "fp16"), "precision"),
        "batching": batching and flags.one_of(batching, ("random", "bucket"), "batching"),
        "passes": flags.one_of(given["passes"], ("separate", "joined"), "passes"),
    }


def ask_of(
    given: Mapping[str, Any], *, task: str, model: str, axes: Mapping[str, Any], fixed: Mapping[str, Any], **own: Any
) -> Ask:
    """What is asked for. task, model: those that are taken where none is named; own: further fields of Ask.

    Raises UsageError for what is wrong with a flag.
    """
    if given["save_model"] is not None:
        flags.one_of(given["save_model"], ("best", "median", "all"), "choice of --save-model")
    from ftbench.cli.study import Ask

    return Ask(
        tasks=flags.flatten(given["task"]) or [task],
        data_dir=given["data_dir"],
        models=flags.flatten(given["model"]) or [model],
        revision=given["revision"],
        remote_code=given["trust_remote_code"],
        methods=list(given["method"] or []),
        tune=list(given["tune"] or []),
        baseline=not given["no_baseline"],
        references=not given["no_references"],
        seeds=flags.parse_seeds(given["seeds"], "--seeds"),
        data_seeds=flags.parse_seeds(given["data_seeds"], "--data-seeds"),
        axes=flags.drop_none(dict(axes)),
        fixed=flags.drop_none(dict(fixed)),
        search=list(given["search"] or []),
        budget=given["budget"],
        **own,
    )


def carry_out(ask: Ask, given: Mapping[str, Any], **own: Any) -> None:
    """Does the study and prints it. own: further fields of Options. Raises typer.Exit where a run failed."""
    from ftbench.cli.study import run_study

    options = flags.machine(**{name: given[name] for name in _HOW}, **own)
    shown = {"quiet": given["quiet"], "as_json": given["json"], "track": given["track"]}
    failed = run_study(ask, given["output_dir"], options, save_model=given["save_model"], **shown)
    if failed:
        print(f"{failed} failed; --retry-failed does them again", file=sys.stderr)
        raise typer.Exit(1)
