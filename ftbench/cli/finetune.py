"""``ftbench finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftbench.cli import arms
from ftbench.cli import options as flags
from ftbench.cli.arms import MACHINE, OWN, RECIPE, ROWS, WHAT

LAYERS_HELP = (
    "Which layers are tuned, counted from 1: 2:4:4 tunes 2 to 4 with the head on 4 (what lies above is not loaded), "
    "2:4:6 with the head on 6; top:3, all, or auto: up to l*, the layer that `ftbench variability` recommends, the "
    "head on it; auto:2 tunes two. 'l*-up' tunes what lies above l*. A comma list is an axis [all]."
)
TASK_HELP = (
    "A task or a group (`ftbench list tasks`), your own file (reviews.csv, with --text and --label), a task file "
    "(my-task.toml), or hub:ORG/NAME. Repeat, or give a comma list."
)


def finetune(
    task: Annotated[list[str] | None, typer.Option("--task", "-t", help=TASK_HELP, rich_help_panel=WHAT)] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder of downloaded data sets, one folder a task, as GLUE's download leaves it [the hub].",
            rich_help_panel=WHAT,
        ),
    ] = None,
    method: arms.Method = None,
    tune: arms.Tune = None,
    layers: Annotated[str | None, typer.Option("--layers", help=LAYERS_HELP, rich_help_panel=WHAT)] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="minilm (offline), a local folder, or a hub id.", rich_help_panel=WHAT),
    ] = None,
    revision: arms.Revision = None,
    trust_remote_code: flags.TrustRemoteCode = False,
    seeds: arms.Seeds = "0-2",
    epochs: arms.Epochs = None,
    steps: arms.Steps = None,
    lr: arms.Lr = None,
    batch_size: arms.BatchSize = None,
    train_size: arms.TrainSize = None,
    label_noise: Annotated[
        str | None,
        typer.Option(
            help="Share of training labels flipped to another class; a comma list is an axis.", rich_help_panel=ROWS
        ),
    ] = None,
    imbalance: Annotated[
        str | None,
        typer.Option(
            help="Rows of the rarest class over those of the most frequent one; a comma list is an axis.",
            rich_help_panel=ROWS,
        ),
    ] = None,
    data_seeds: arms.DataSeeds = "0",
    search: arms.Search = None,
    budget: arms.Budget = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Own data: text column; twice, or A,B, for pairs.", rich_help_panel=OWN)
    ] = None,
    label: Annotated[str, typer.Option(help="Own data: label column.", rich_help_panel=OWN)] = "label",
    kind: Annotated[
        str, typer.Option(help="Own data: classification or regression.", rich_help_panel=OWN)
    ] = "classification",
    encoding: Annotated[
        str, typer.Option(help="Own data: a CSV's encoding [UTF-8 or UTF-16].", rich_help_panel=OWN)
    ] = "",
    select_on: arms.SelectOn = "validation",
    max_length: Annotated[int, typer.Option(help="Tokens of a row; longer texts are cut.", rich_help_panel=ROWS)] = 128,
    micro_batch: arms.MicroBatch = None,
    precision: arms.Precision = "fp32",
    batching: arms.Batching = None,
    passes: arms.Passes = "separate",
    head: Annotated[
        str,
        typer.Option(
            help="fresh, or kept: go on with a trained checkpoint's head, its classes matched by name.",
            rich_help_panel=RECIPE,
        ),
    ] = "fresh",
    frozen_dropout: Annotated[
        bool,
        typer.Option(
            "--frozen-dropout",
            help="Dropout below the lowest tuned layer too, as in released code.",
            rich_help_panel=RECIPE,
        ),
    ] = False,
    warmup: arms.Warmup = 0.1,
    weight_decay: arms.WeightDecay = 0.01,
    clip: arms.Clip = 1.0,
    evaluations: Annotated[
        int, typer.Option(help="Evaluate at every epoch's end, but at most so often.", rich_help_panel=RECIPE)
    ] = 10,
    limit: arms.Limit = None,
    device: arms.Device = "auto",
    threads: arms.Threads = None,
    jobs: flags.Jobs = "1",
    engine: flags.EngineName = None,
    engine_option: flags.EngineOption = None,
    jobs_per_gpu: flags.JobsPerGpu = 1,
    time_limit: flags.TimeLimit = None,
    retries: flags.Retries = 0,
    deterministic: flags.Deterministic = False,
    output_dir: flags.OutputDir = Path("runs"),
    save_model: arms.SaveModel = None,
    no_baseline: arms.NoBaseline = False,
    no_references: arms.NoReferences = False,
    force: arms.Force = False,
    retry_failed: arms.RetryFailed = False,
    checkpoint_every: arms.CheckpointEvery = 0,
    prefix_cache: Annotated[
        str,
        typer.Option(
            help="auto, on or off: compute what enters the lowest tuned layer once for every row, and train from that.",
            rich_help_panel=MACHINE,
        ),
    ] = "auto",
    track: flags.Track = None,
    quiet: arms.Quiet = False,
    json: flags.Json = False,
) -> None:
    """Fine-tune on a task with a chosen method, over several seeds, beside plain fine-tuning.

    Every table has reference rows that need no fine-tuning (the majority class; logistic regression on
    the frozen encoder). Where plain fine-tuning does not beat them, methods are not compared.

    A finished run is skipped, an interrupted one continues: run the same command again.

    Examples:

        ftbench finetune --method r3f

        ftbench finetune --method r3f --seeds 0-4 --label-noise 0.2

        ftbench finetune --task reviews.csv --text review --label stars --method r3f:weight=0.5

        ftbench finetune --method r3f --method std++:compute=r3f --lr 2e-5,5e-5,1e-4 --train-size 200,500

        ftbench finetune --task mrpc,rte --method r3f --data-dir glue_data

        ftbench finetune --method r3f --tune lora --layers top:3

        ftbench finetune --layers auto:2,top:2,all

        ftbench finetune --method all --seeds 0-4

        ftbench finetune --method r3f --search weight=0.1,0.5,1,5 --budget 8
    """
    given = dict(locals())
    axes = arms.axes_of(given) | {
        "imbalance": flags.parse_axis(imbalance, float, "--imbalance", "a fraction such as 0.1"),
        "layers": flags.parse_axis(layers, str, "--layers", ""),
        "label_noise": flags.parse_axis(label_noise, float, "--label-noise", "a share such as 0.2"),
    }
    fixed = arms.recipe_of(given) | {
        "max_length": max_length,
        "head": flags.one_of(head, ("fresh", "kept"), "head"),
        "frozen_dropout": frozen_dropout or None,
    }
    own = {
        "text": tuple(flags.flatten(text)),
        "label": label,
        "kind": flags.one_of(kind, ("classification", "regression"), "kind"),
        "encoding": encoding,
    }
    ask = arms.ask_of(given, task="news-topic", model="minilm", axes=axes, fixed=fixed, own=own)
    arms.carry_out(
        ask, given, prefix_cache=flags.one_of(prefix_cache, ("auto", "on", "off"), "choice of --prefix-cache")
    )
