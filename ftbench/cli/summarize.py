"""``ftbench summarize``, and ``ftbench summarize score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftbench.cli import arms
from ftbench.cli import options as flags
from ftbench.cli import score as scoring
from ftbench.cli.arms import OWN, RECIPE, ROWS, WHAT

WRITING = "How summaries are written"
TASK_HELP = (
    "A task (`ftbench list tasks`), your own file (pairs.csv, with --text and --summary), or hub:ORG/NAME. Repeat, or "
    "give a comma list [news-headline: BBC articles and their headlines, offline]."
)
MODEL_HELP = (
    "bert2bert:minilm (offline: an encoder-decoder made of the embedded encoder), bert2bert:FOLDER, or an "
    "encoder-decoder that transformers loads: a local folder or a hub id (BART, PEGASUS, T5 ...)."
)

app = typer.Typer(
    invoke_without_command=True,
    help="Fine-tune on summarization with a chosen method, beside plain fine-tuning; `score` scores any system's file.",
)


app.command("score")(scoring.score)


@app.callback()
def summarize(
    context: typer.Context,
    task: Annotated[list[str] | None, typer.Option("--task", "-t", help=TASK_HELP, rich_help_panel=WHAT)] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Folder of downloaded data sets [the hub].", rich_help_panel=WHAT)
    ] = None,
    method: arms.Method = None,
    tune: arms.Tune = None,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help=MODEL_HELP, rich_help_panel=WHAT)] = None,
    revision: arms.Revision = None,
    trust_remote_code: flags.TrustRemoteCode = False,
    seeds: arms.Seeds = "0",
    epochs: arms.Epochs = None,
    steps: arms.Steps = None,
    lr: Annotated[
        str | None,
        typer.Option(
            help="Peak learning rate [3e-5; 3e-4 for bert2bert]; a comma list is an axis.", rich_help_panel=RECIPE
        ),
    ] = None,
    batch_size: arms.BatchSize = None,
    train_size: Annotated[
        str | None,
        typer.Option(help="Training rows, drawn; 'all' for all; a comma list is an axis.", rich_help_panel=ROWS),
    ] = None,
    data_seeds: arms.DataSeeds = "0",
    search: arms.Search = None,
    budget: arms.Budget = None,
    text: Annotated[str, typer.Option(help="Own data: column of the documents.", rich_help_panel=OWN)] = "",
    summary: Annotated[str, typer.Option(help="Own data: column of the summaries.", rich_help_panel=OWN)] = "summary",
    encoding: Annotated[
        str, typer.Option(help="Own data: a CSV's encoding [UTF-8 or UTF-16].", rich_help_panel=OWN)
    ] = "",
    select_on: arms.SelectOn = "validation",
    max_source_length: Annotated[
        int | None, typer.Option(help="Tokens of a document; longer ones are cut [512].", rich_help_panel=ROWS)
    ] = None,
    max_target_length: Annotated[
        int | None, typer.Option(help="Tokens of a summary trained on; longer ones are cut [64].", rich_help_panel=ROWS)
    ] = None,
    source_prefix: Annotated[
        str | None, typer.Option(help="Put before every document, as 'summarize: ' for T5.", rich_help_panel=ROWS)
    ] = None,
    limit: arms.Limit = None,
    label_smoothing: Annotated[
        str | None,
        typer.Option(
            help="Share of the target given to other words [0.1]; a comma list is an axis.", rich_help_panel=RECIPE
        ),
    ] = None,
    smoothed_over: Annotated[
        str,
        typer.Option(
            help="all: words share it, as in transformers and R-Drop; others: all but the right one, as in R3F's code.",
            rich_help_panel=RECIPE,
        ),
    ] = "all",
    micro_batch: arms.MicroBatch = None,
    precision: arms.Precision = "fp32",
    batching: arms.Batching = None,
    passes: arms.Passes = "separate",
    warmup: arms.Warmup = 0.1,
    weight_decay: arms.WeightDecay = 0.01,
    clip: arms.Clip = 1.0,
    num_beams: Annotated[
        str | None, typer.Option(help="Beams; 1 is greedy [4]; a comma list is an axis.", rich_help_panel=WRITING)
    ] = None,
    length_penalty: Annotated[
        str | None,
        typer.Option(help="Above 1 favours long summaries [1]; a comma list is an axis.", rich_help_panel=WRITING),
    ] = None,
    min_new_tokens: Annotated[
        int | None, typer.Option(help="Fewest tokens of a summary [none].", rich_help_panel=WRITING)
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a summary [64].", rich_help_panel=WRITING)
    ] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No n-gram of so many tokens twice in a summary [off].", rich_help_panel=WRITING)
    ] = None,
    early_stopping: Annotated[
        bool | None,
        typer.Option(help="Stop once there are as many whole summaries as beams [off].", rich_help_panel=WRITING),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(help="Evaluate at the end of epochs, at most so often [4].", rich_help_panel=RECIPE),
    ] = None,
    evaluation_rows: Annotated[
        int | None,
        typer.Option(help="Rows written while training, all at the end [100].", rich_help_panel=WRITING),
    ] = None,
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
    track: flags.Track = None,
    quiet: arms.Quiet = False,
    json: flags.Json = False,
) -> None:
    """Fine-tune on summarization with a chosen method, beside plain fine-tuning, and score what is written.

    Every table has floors that need no model: the first words of the document (lead). Settings of published systems
    are a task's defaults; what was used is in each run's spec.json.

    A finished run is skipped, an interrupted one continues, in the middle of training or of writing: run the same
    command again. `ftbench summarize score` scores the file of any system.

    Examples:

        ftbench summarize --method r3f

        ftbench summarize --method r3f:weight=0.01,variant=released --smoothed-over others --seeds 0-2

        ftbench summarize --task pairs.csv --text article --summary title --model ./bart-base --method r3f

        ftbench summarize --task gigaword --data-dir data/summarization --method r3f --steps 300

        ftbench summarize score --predictions mine.txt --references refs.jsonl
    """
    if context.invoked_subcommand:
        return
    given = dict(locals())
    axes = arms.axes_of(given) | {
        "label_smoothing": flags.parse_axis(label_smoothing, float, "--label-smoothing", "a share such as 0.1"),
        "num_beams": flags.parse_axis(num_beams, int, "--num-beams", "a whole number above 0"),
        "length_penalty": flags.parse_axis(length_penalty, float, "--length-penalty", "a number such as 2"),
    }
    fixed = arms.recipe_of(given) | {
        "max_length": max_source_length, "max_target_length": max_target_length, "source_prefix": source_prefix,
        "smoothed_over": flags.one_of(smoothed_over, ("all", "others"), "choice of --smoothed-over"),
        "min_new_tokens": min_new_tokens, "max_new_tokens": max_new_tokens,
        "no_repeat_ngram_size": no_repeat_ngram_size, "early_stopping": early_stopping,
        "evaluation_rows": evaluation_rows,
    }  # fmt: skip
    own = {"text": (text,) if text else (), "label": summary, "kind": "summarization", "encoding": encoding}
    ask = arms.ask_of(
        given, task="news-headline", model="bert2bert:minilm", axes=axes, fixed=fixed, own=own, writes=True
    )
    arms.carry_out(ask, given)
