"""``ftbench variability``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ftbench.cli import options as flags
from ftbench.cli.arms import MACHINE, OUTPUT, OWN, ROWS, WHAT
from ftbench.cli.finetune import TASK_HELP
from ftbench.errors import UsageError

MEASURE, STUDY = "Measure", "Study"
#: what a study measures with
_MEASURE = {
    "bins": None, "pooling": "ordinary", "weighting": "class", "dtype": "fp64", "permutations": 20, "resamples": 100,
    "probe": True,
}  # fmt: skip


def variability(
    task: Annotated[list[str] | None, typer.Option("--task", "-t", help=TASK_HELP, rich_help_panel=WHAT)] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(help="Folder of downloaded data sets, as for finetune [the hub].", rich_help_panel=WHAT),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="minilm (offline), a local folder, or a hub id.", rich_help_panel=WHAT),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision of a hub model: branch, tag or commit.", rich_help_panel=WHAT)
    ] = None,
    trust_remote_code: flags.TrustRemoteCode = False,
    limit: Annotated[
        str | None,
        typer.Option(
            help="At most so many training rows, drawn stratified; 'all' for all [4000]. With --study of every split "
            "[all].",
            rich_help_panel=ROWS,
        ),
    ] = None,
    train_size: Annotated[
        str | None,
        typer.Option(help="Subsets beside the full set; a comma list is an axis.", rich_help_panel=ROWS),
    ] = None,
    imbalance: Annotated[
        str | None,
        typer.Option(
            help="Rows of the rarest class over those of the most frequent one; a comma list is an axis.",
            rich_help_panel=ROWS,
        ),
    ] = None,
    label_noise: Annotated[
        str | None,
        typer.Option(help="Share of labels flipped; a comma list is an axis.", rich_help_panel=ROWS),
    ] = None,
    data_seeds: Annotated[
        str, typer.Option(help="Seeds of the rows drawn and the labels flipped.", rich_help_panel=ROWS)
    ] = "0",
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
    pooling: Annotated[
        str,
        typer.Option(
            help="What stands for a text: ordinary (mean without special tokens, the paper's), mean (with them), cls "
            "(the token that the head reads) or last.",
            rich_help_panel=MEASURE,
        ),
    ] = "ordinary",
    bins: Annotated[
        int | None,
        typer.Option(
            help="Regression: classes from so many quantiles; 0: no nu, LogME of the numbers.", rich_help_panel=MEASURE
        ),
    ] = None,
    weighting: Annotated[
        str, typer.Option(help="class (the paper's: classes weigh equally) or sample.", rich_help_panel=MEASURE)
    ] = "class",
    dtype: Annotated[
        str,
        typer.Option(
            help="fp64, or paper: nu in float32 by the full pseudo-inverse, as the authors have it.",
            rich_help_panel=MEASURE,
        ),
    ] = "fp64",
    permutations: Annotated[
        int, typer.Option(help="Shuffled labels that make the floor, at least 19.", min=19, rich_help_panel=MEASURE)
    ] = 20,
    bootstrap: Annotated[
        int, typer.Option(help="Resamples of the rows, for the spread of l*.", min=20, rich_help_panel=MEASURE)
    ] = 100,
    probe: Annotated[
        bool, typer.Option(help="Fit a linear probe on every layer beside it.", rich_help_panel=MEASURE)
    ] = True,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Seeds of the permutations, resamples and probe [0]. With --study of the tuning [0-4].",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    study: Annotated[
        bool,
        typer.Option(
            "--study",
            help="Tune, too: layers chosen by nu, as many top ones, random ones, ones at every place, all.",
            rich_help_panel=STUDY,
        ),
    ] = False,
    budgets: Annotated[
        str | None, typer.Option(help="Study: how many layers are tuned, a comma list [2].", rich_help_panel=STUDY)
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(help="Study: full, adapter, lora or bitfit; repeat [full, adapter].", rich_help_panel=STUDY),
    ] = None,
    oracle: Annotated[
        bool | None,
        typer.Option("--oracle/--no-oracle", help="Study: tune at every place [yes].", rich_help_panel=STUDY),
    ] = None,
    steps: Annotated[str | None, typer.Option(help="Study: optimizer steps exactly.", rich_help_panel=STUDY)] = None,
    epochs: Annotated[str | None, typer.Option(help="Study: epochs exactly.", rich_help_panel=STUDY)] = None,
    lr: Annotated[
        str | None, typer.Option(help="Study: peak learning rate, as for finetune.", rich_help_panel=STUDY)
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of a row; longer texts are cut.", rich_help_panel=ROWS)] = 128,
    precision: Annotated[str, typer.Option(help="Of the pass: fp32, bf16 or fp16.", rich_help_panel=MACHINE)] = "fp32",
    device: Annotated[
        str, typer.Option(help="auto (CUDA if there, else CPU), cpu, cuda, cuda:1, mps.", rich_help_panel=MACHINE)
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1, rich_help_panel=MACHINE)] = None,
    jobs: flags.Jobs = "1",
    engine: flags.EngineName = None,
    engine_option: flags.EngineOption = None,
    jobs_per_gpu: flags.JobsPerGpu = 1,
    time_limit: flags.TimeLimit = None,
    retries: flags.Retries = 0,
    deterministic: flags.Deterministic = False,
    output_dir: flags.OutputDir = Path("runs"),
    figure: Annotated[
        Path | None, typer.Option(help="Draw the curves into FILE.png, .pdf or .svg.", rich_help_panel=OUTPUT)
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="rich, markdown, latex, csv or json.", rich_help_panel=OUTPUT)
    ] = "rich",
    force: Annotated[bool, typer.Option("--force", help="Measure again.", rich_help_panel=OUTPUT)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.", rich_help_panel=OUTPUT)] = False,
    json: flags.Json = False,
) -> None:
    """Ask which layer a task needs, before any training: hidden-state variability (nu) of every layer, from one pass.

    Beside nu stand its floor (nu of shuffled labels), the spread of the best layer over resamples, and other measures
    with a linear probe. A layer is recommended only where the data decide it. Lower nu is better.

    Examples:

        ftbench variability

        ftbench variability --task cola,mrpc,sst2 --data-dir glue_data --figure layers.png

        ftbench variability --task reviews.csv --text review --label stars --train-size 100,400 --label-noise 0.2

        ftbench variability --study --train-size 500 --budgets 1,2 --tune full --tune adapter
    """
    from ftbench.cli.layer_study import run_layer_study
    from ftbench.cli.layers import run_layers
    from ftbench.cli.study import Ask
    from ftbench.reporting.render import FORMS

    form = flags.one_of("json" if json else form, tuple(FORMS), "format")
    axes = flags.drop_none({
        "train_size": flags.parse_axis(train_size, flags.train_size, "--train-size", "a number of rows, or all"),
        "imbalance": flags.parse_axis(imbalance, float, "--imbalance", "a fraction such as 0.1"),
        "label_noise": flags.parse_axis(label_noise, float, "--label-noise", "a share such as 0.2"),
    })  # fmt: skip
    measure: dict[str, Any] = {
        "bins": bins, "permutations": permutations, "resamples": bootstrap, "probe": probe,
        "pooling": flags.one_of(pooling, ("ordinary", "mean", "cls", "last"), "pooling"),
        "weighting": flags.one_of(weighting, ("class", "sample"), "weighting"),
        "dtype": flags.one_of(dtype, ("fp64", "paper"), "dtype"),
    }  # fmt: skip
    fixed: dict[str, Any] = {
        "limit": _one_limit(limit or ("all" if study else "4000")), "max_length": max_length,
        "precision": flags.one_of(precision, ("fp32", "bf16", "fp16"), "precision"),
    }  # fmt: skip
    recipe = _recipe(steps, epochs, lr)
    _check_study(study, measure, {"--budgets": budgets, "--tune": tune, "--oracle": oracle}, recipe)
    ask = Ask(
        tasks=flags.flatten(task) or ["news-topic"],
        own={
            "text": tuple(flags.flatten(text)),
            "label": label,
            "kind": flags.one_of(kind, ("classification", "regression"), "kind"),
            "encoding": encoding,
        },
        data_dir=data_dir,
        models=flags.flatten(model) or ["minilm"],
        revision=revision,
        remote_code=trust_remote_code,
        methods=[],
        baseline=True,
        references=study,
        seeds=flags.parse_seeds(seeds or ("0-4" if study else "0"), "--seeds"),
        data_seeds=flags.parse_seeds(data_seeds, "--data-seeds"),
        axes=axes | recipe,
        fixed=flags.drop_none(fixed) | {"evaluations": 1} if study else fixed | measure,
        tune=(tune or ["full", "adapter"]) if study else (),
    )
    options = flags.machine(
        jobs=jobs, engine=engine, engine_option=engine_option,
        jobs_per_gpu=jobs_per_gpu, time_limit=time_limit, device=device, threads=threads,
        retries=retries, deterministic=deterministic, force=force, retry_failed=True,
    )  # fmt: skip
    if study:
        counts = flags.parse_axis(budgets or "2", int, "--budgets", "a number of layers") or []
        failed = run_layer_study(
            ask, output_dir, options, counts, oracle=oracle is not False, quiet=quiet, form=form, figure=figure
        )
    else:
        failed = run_layers(ask, output_dir, options, quiet=quiet, form=form, figure=figure)
    if failed:
        print(f"{failed} failed; the same command tries again", file=sys.stderr)
        raise typer.Exit(1)


def _one_limit(text: str) -> int | None:
    """Raises UsageError for several."""
    limits = flags.parse_axis(text, flags.train_size, "--limit", "a number of rows, or all") or []
    if len(limits) != 1:
        raise UsageError("--limit is one number; --train-size takes several")
    return limits[0]


def _recipe(steps: str | None, epochs: str | None, lr: str | None) -> dict[str, list[Any]]:
    """Those axes of a study's recipe that are given."""
    return flags.drop_none({
        "steps": flags.parse_axis(steps, int, "--steps", "a whole number above 0"),
        "epochs": flags.parse_axis(epochs, float, "--epochs", "a number above 0"),
        "lr": flags.parse_axis(lr, float, "--lr", "a number such as 5e-5"),
    })  # fmt: skip


def _check_study(study: bool, measure: dict[str, Any], own: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Raises UsageError for a flag that would be ignored."""
    if study:
        changed = [name for name, value in measure.items() if value != _MEASURE[name]]
        if changed:
            flag = "bootstrap" if changed[0] == "resamples" else changed[0]
            raise UsageError(f"--{flag}: a study measures as `ftbench variability` does without flags; leave it out")
        several = [name for name, values in recipe.items() if len(values) > 1]
        if several:
            raise UsageError(f"--{several[0]}: a study has one recipe, so it takes a single value")
        return
    given = [name for name, value in own.items() if value not in (None, [])] + [f"--{name}" for name in recipe]
    if given:
        raise UsageError(f"{given[0]} is for tuning: add --study, which tunes as well as measures")
