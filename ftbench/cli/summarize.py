"""``ftbench summarize``, and ``ftbench summarize score``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

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
    axes = flags.drop_none({
        "epochs": flags.parse_axis(epochs, float, "--epochs", "a number above 0"),
        "steps": flags.parse_axis(steps, int, "--steps", "a whole number above 0"),
        "lr": flags.parse_axis(lr, float, "--lr", "a number such as 5e-5"),
        "batch_size": flags.parse_axis(batch_size, int, "--batch-size", "a whole number above 0"),
        "train_size": flags.parse_axis(train_size, flags.train_size, "--train-size", "a number of rows, or all"),
        "label_smoothing": flags.parse_axis(label_smoothing, float, "--label-smoothing", "a share such as 0.1"),
        "num_beams": flags.parse_axis(num_beams, int, "--num-beams", "a whole number above 0"),
        "length_penalty": flags.parse_axis(length_penalty, float, "--length-penalty", "a number such as 2"),
    })  # fmt: skip
    fixed: dict[str, Any] = flags.drop_none({
        "select_on": flags.select_on(select_on), "max_length": max_source_length,
        "max_target_length": max_target_length, "source_prefix": source_prefix, "micro_batch": micro_batch,
        "smoothed_over": flags.one_of(smoothed_over, ("all", "others"), "choice of --smoothed-over"),
        "precision": flags.one_of(precision, ("fp32", "bf16", "fp16"), "precision"),
        "batching": batching and flags.one_of(batching, ("random", "bucket"), "batching"),
        "passes": flags.one_of(passes, ("separate", "joined"), "passes"),
        "warmup": warmup, "weight_decay": weight_decay, "clip": clip, "limit": limit,
        "min_new_tokens": min_new_tokens, "max_new_tokens": max_new_tokens,
        "no_repeat_ngram_size": no_repeat_ngram_size, "early_stopping": early_stopping,
        "evaluations": evaluations, "evaluation_rows": evaluation_rows,
    })  # fmt: skip
    if save_model is not None:
        flags.one_of(save_model, ("best", "median", "all"), "choice of --save-model")
    from ftbench.cli.study import Ask, run_study

    ask = Ask(
        tasks=flags.flatten(task) or ["news-headline"],
        own={"text": (text,) if text else (), "label": summary, "kind": "summarization", "encoding": encoding},
        data_dir=data_dir,
        models=flags.flatten(model) or ["bert2bert:minilm"],
        revision=revision,
        methods=list(method or []),
        tune=list(tune or []),
        baseline=not no_baseline,
        references=not no_references,
        seeds=flags.parse_seeds(seeds, "--seeds"),
        data_seeds=flags.parse_seeds(data_seeds, "--data-seeds"),
        axes=axes,
        fixed=fixed,
        search=list(search or []),
        budget=budget,
        writes=True,
    )
    options = flags.machine(
        jobs=jobs, engine=engine, engine_option=engine_option, jobs_per_gpu=jobs_per_gpu,
        time_limit=time_limit, device=device, threads=threads,
        retries=retries, deterministic=deterministic, force=force, retry_failed=retry_failed,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip
    failed = run_study(ask, output_dir, options, save_model=save_model, quiet=quiet, as_json=json, track=track)
    if failed:
        print(f"{failed} failed; --retry-failed does them again", file=sys.stderr)
        raise typer.Exit(1)
