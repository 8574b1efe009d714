"""``ftbench probe``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ftbench.cli import options as flags
from ftbench.errors import UsageError

WHAT, ENCODER, PROBE = "What", "How the encoder is tuned", "How it is probed"
MACHINE, OUTPUT = "Machine", "Runs and output"
PROTOCOLS = ("generalization", "chain", "cycle")
POOLINGS = ("mean", "ordinary", "cls", "last")


def probe(
    protocol: Annotated[
        str,
        typer.Option(
            help="generalization: tune on --source, probe --targets. chain: tune on --tasks in turn, probe after each. "
            "cycle: the chain --cycles times, each task probed before it is tuned.",
            rich_help_panel=WHAT,
        ),
    ] = "generalization",
    source: Annotated[
        str | None, typer.Option(help="generalization: the task to tune on.", rich_help_panel=WHAT)
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option(help="chain, cycle: the tasks to tune on, in order.", rich_help_panel=WHAT)
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="r3f: the R3F paper's tasks, sst2 qnli qqp rte.", rich_help_panel=WHAT)
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            help="Tasks to probe; in a chain also 'source' (its first task) [source] or 'all'.", rich_help_panel=WHAT
        ),
    ] = None,
    cycles: Annotated[int, typer.Option(help="cycle: how many times.", min=1, rich_help_panel=WHAT)] = 3,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="Probe this instead of tuning anything: a run's folder (with --save-model), a model folder or a hub "
            "id. Repeat for several; --model is what they are compared with.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(help="Folder of downloaded data sets, one folder a task [the hub].", rich_help_panel=WHAT),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="minilm (offline), a local folder, or a hub id.", rich_help_panel=ENCODER),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.", rich_help_panel=ENCODER)] = None,
    trust_remote_code: flags.TrustRemoteCode = False,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="As in `ftbench finetune`; std runs beside them.", rich_help_panel=ENCODER),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds: 0-4 or 0,2,5.", rich_help_panel=ENCODER)] = "0-2",
    train_size: Annotated[
        str | None, typer.Option(help="Rows to tune on, drawn stratified; 'all' for all.", rich_help_panel=ENCODER)
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs exactly.", rich_help_panel=ENCODER)] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps exactly.", rich_help_panel=ENCODER)] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate [by the model's width].", rich_help_panel=ENCODER)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step [16].", rich_help_panel=ENCODER)] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16, for tuning.", rich_help_panel=ENCODER)] = "fp32",
    checkpoint: Annotated[
        str,
        typer.Option(
            help="The weights that are probed and that the next task starts from: of the last step, or of the best "
            "evaluation, as in the R3F paper.",
            rich_help_panel=ENCODER,
        ),
    ] = "last",
    select_on: Annotated[
        str,
        typer.Option(
            help="Where the best evaluation is chosen: train:0.1 holds out a tenth of the rows to tune on.",
            rich_help_panel=ENCODER,
        ),
    ] = "validation",
    pooling: Annotated[
        list[str] | None,
        typer.Option(
            help="A text's vector: mean of the tokens, ordinary (mean without special tokens), cls (what the head "
            "reads) or last. Repeat for several [mean].",
            rich_help_panel=PROBE,
        ),
    ] = None,
    probe_size: Annotated[
        str, typer.Option(help="Rows to fit a probe on, drawn stratified; 'all' for all.", rich_help_panel=PROBE)
    ] = "10000",
    repeats: Annotated[
        int, typer.Option(help="Probes fitted, each on another draw.", min=1, rich_help_panel=PROBE)
    ] = 3,
    reference_text: Annotated[
        bool,
        typer.Option(
            help="Measure collapse on news-article too, the same texts for every task.", rich_help_panel=PROBE
        ),
    ] = True,
    max_length: Annotated[
        int, typer.Option(help="Tokens of a row; longer texts are cut.", rich_help_panel=PROBE)
    ] = 128,
    limit: Annotated[
        int | None, typer.Option(help="At most so many rows of every split.", rich_help_panel=PROBE)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=MACHINE)] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1, rich_help_panel=MACHINE)] = None,
    jobs: flags.Jobs = "1",
    engine: flags.EngineName = None,
    engine_option: flags.EngineOption = None,
    jobs_per_gpu: flags.JobsPerGpu = 1,
    time_limit: flags.TimeLimit = None,
    retries: flags.Retries = 0,
    deterministic: flags.Deterministic = False,
    output_dir: flags.OutputDir = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Do finished runs again.", rich_help_panel=OUTPUT)] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do failed and diverged runs again.", rich_help_panel=OUTPUT)
    ] = False,
    track: flags.Track = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.", rich_help_panel=OUTPUT)] = False,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the probes into this file: .png, .pdf or .svg.", rich_help_panel=OUTPUT),
    ] = None,
    json: flags.Json = False,
) -> None:
    """Measure what fine-tuning leaves of an encoder: how far has it collapsed?

    The encoder is tuned, frozen, and a linear probe is fitted on each of its layers for other tasks, beside the
    pretrained encoder untouched and a random one. Collapse metrics of each layer stand beside the probe.

    Weights of the tuned encoders are kept in the output folder, since later stages start from them. A finished run is
    skipped, an interrupted one continues: run the same command again.

    Examples:

        ftbench probe --source news-topic --targets news-match --method r3f

        ftbench probe --source sst2 --targets trec,mrpc --method r3f --method capcort-i --train-size 1000

        ftbench probe --protocol chain --preset r3f --method r4f --train-size 500 --data-dir glue_data

        ftbench probe --encoder runs/reviews/r3f-seed0-1a2b3c4d5e6f --targets news-topic
    """
    flags.one_of(protocol, PROTOCOLS, "protocol")
    chosen = flags.flatten(pooling) or ["mean"]
    for one in chosen:
        flags.one_of(one, POOLINGS, "pooling")
    single = flags.drop_none({"epochs": epochs, "steps": steps, "lr": lr, "batch_size": batch_size})
    sizes = flags.parse_axis(train_size, flags.train_size, "--train-size", "a number of rows, or all")
    recipe = {name: [value] for name, value in single.items()} | flags.drop_none({"train_size": sizes})
    rows = flags.parse_axis(probe_size, flags.train_size, "--probe-size", "a number of rows, or all") or [None]
    if len(rows) > 1 or (rows[0] is not None and rows[0] < 1):
        raise UsageError(f"--probe-size {probe_size}: expected one number of rows, at least 1, or all")
    from ftbench.cli.probing import ProbeAsk, run_probes

    ask = ProbeAsk(
        protocol=protocol,
        source=source,
        tasks=flags.flatten(tasks),
        preset=preset,
        targets=flags.flatten(targets),
        cycles=cycles,
        encoders=flags.flatten(encoder),
        data_dir=data_dir,
        models=flags.flatten(model) or ["minilm"],
        revision=revision,
        remote_code=trust_remote_code,
        methods=list(method or []),
        seeds=flags.parse_seeds(seeds, "--seeds"),
        recipe=recipe,
        fixed={
            "precision": flags.one_of(precision, ("fp32", "bf16", "fp16"), "precision"),
            "checkpoint": flags.one_of(checkpoint, ("last", "best"), "checkpoint"),
            "select_on": flags.select_on(select_on),
            **flags.drop_none({"max_length": max_length, "limit": limit}),
        },
        poolings=chosen,
        probe_size=rows[0],
        repeats=repeats,
        reference_text=reference_text,
    )
    options = flags.machine(
        jobs=jobs, engine=engine, engine_option=engine_option,
        jobs_per_gpu=jobs_per_gpu, time_limit=time_limit, device=device, threads=threads,
        retries=retries, deterministic=deterministic, force=force, retry_failed=retry_failed,
        keep_model=True, need_models=True,
    )  # fmt: skip
    failed = run_probes(ask, output_dir, options, quiet=quiet, as_json=json, figure=figure, track=track)
    if failed:
        print(f"{failed} failed; --retry-failed does them again", file=sys.stderr)
        raise typer.Exit(1)
