"""Flags of the commands that train methods over seeds, said once: ``finetune`` and ``summarize``."""

from __future__ import annotations

from typing import Annotated

import typer

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
