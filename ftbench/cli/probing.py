"""From a question about encoders to probe runs carried out and printed."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftbench.cli.output import describe, describe_data
from ftbench.cli.study import attended, load_once
from ftbench.errors import UsageError
from ftbench.lookup import find
from ftbench.models.locate import Checkpoint, locate
from ftbench.reporting.pictures import check_name
from ftbench.reporting.probe_figure import draw_probes
from ftbench.reporting.probes import between_table, probe_tables
from ftbench.reporting.render import render
from ftbench.runs import protocols
from ftbench.runs.between import between_seeds
from ftbench.runs.files import plain
from ftbench.runs.protocols import Protocol
from ftbench.runs.stages import Request, parse_arms
from ftbench.runs.store import Store, read
from ftbench.runs.work import Options
from ftbench.tasks import expand, from_folder, resolve
from ftbench.types import Data, Record, RunSpec

#: the texts on which collapse is measured for every encoder alike
REFERENCE_TEXT = "news-article"


@dataclass(frozen=True, kw_only=True)
class ProbeAsk:
    """What is to be probed, in the user's words. recipe: axes of one value each; fixed: RunSpec fields of tuning."""

    protocol: str
    source: str | None
    tasks: Sequence[str]
    preset: str | None
    targets: Sequence[str]
    cycles: int
    encoders: Sequence[str]
    data_dir: str | None
    models: Sequence[str]
    revision: str | None
    methods: Sequence[str]
    seeds: Sequence[int]
    recipe: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any]
    poolings: Sequence[str]
    probe_size: int | None
    repeats: int
    reference_text: bool
    remote_code: bool = False


def run_probes(
    ask: ProbeAsk,
    output_dir: Path,
    options: Options,
    *,
    quiet: bool,
    as_json: bool,
    figure: Path | None = None,
    track: str | None = None,
) -> int:
    """Does the protocol and prints its tables. Returns how many runs failed. Raises what ``Grid.run`` raises."""
    if figure is not None:
        check_name(figure)
    names = chain_of(ask)
    models = [locate(name, ask.revision, remote_code=ask.remote_code) for name in ask.models]
    given = [_given(name, models, remote_code=ask.remote_code) for name in ask.encoders]
    probed = target_names(ask, names)
    everything = list(dict.fromkeys([*names, *probed, *([REFERENCE_TEXT] if ask.reference_text else [])]))
    tasks = [resolve(name) for name in everything]
    for task in tasks:
        if task.kind == "summarization":
            raise UsageError(f"task '{task.name}' is a summarization: expected one with labels, which a probe predicts")
    if ask.data_dir is not None:
        tasks = from_folder(tasks, ask.data_dir)
    loaded = dict(zip(everything, map(load_once, tasks), strict=True))
    tuned = [loaded[name] for name in names]
    measured = [*probed, *([REFERENCE_TEXT] if ask.reference_text else [])]
    targets = [loaded[name] for name in everything if name in measured]
    stages = [stage for probing in _probings(ask) for stage in _stages(ask, probing, models, tuned, targets, given)]
    if not quiet:
        for data in loaded.values():
            print(describe_data(data), file=sys.stderr)
    checkpoints = [*models, *(one for one in given if isinstance(one, Checkpoint))]
    with attended(Store(output_dir), loaded.values(), checkpoints, options, quiet=quiet, track=track) as grid:
        grid.parents = [one for one in given if isinstance(one, Record)]
        grid.run(stages)
    probes = [record for record in grid.records if record.result.spec.kind == "probe"]
    if figure is not None:
        draw_probes(probes, figure)
    _print(probes, grid.records, as_json=as_json)
    if not quiet:
        print(f"Runs are in {output_dir}/; `ftbench report {output_dir}` prints this again.", file=sys.stderr)
    return sum(record.result.status == "failed" for record in grid.records)


def chain_of(ask: ProbeAsk) -> list[str]:
    """The tasks to tune on, in order. Raises UsageError for flags that do not go together, or that are missing."""
    if ask.encoders:
        if ask.source or ask.tasks or ask.preset or ask.methods:
            raise UsageError("--encoder is probed as it is: leave out --source, --tasks, --preset and --method")
        return []
    preset = list(find(protocols.PRESETS, ask.preset, "preset")) if ask.preset else []
    if ask.protocol == "generalization":
        if ask.tasks or preset:
            raise UsageError("--tasks and --preset are for chains: add --protocol chain, or name one --source")
        if not ask.source:
            raise UsageError("--protocol generalization needs --source TASK, the task to tune on, or --encoder")
        return [ask.source]
    if ask.source:
        raise UsageError(f"--source is for --protocol generalization: a {ask.protocol} takes --tasks or --preset")
    names = expand(ask.tasks) if ask.tasks else preset
    if len(names) < 2:
        raise UsageError(f"--protocol {ask.protocol} needs --tasks with two tasks or more, or --preset r3f")
    return names


def target_names(ask: ProbeAsk, tuned: Sequence[str]) -> list[str]:
    """The tasks to probe. Raises UsageError where there are none."""
    if ask.protocol == "cycle" and not ask.encoders:
        if ask.targets:
            raise UsageError("--protocol cycle probes its own tasks: leave out --targets")
        return []
    if ask.protocol == "chain" and not ask.encoders:
        words = {"source": [tuned[0]], "all": list(tuned)}
        asked = ask.targets or ["source"]
        return list(dict.fromkeys(name for word in asked for name in words.get(word) or expand([word])))
    if not ask.targets:
        raise UsageError("--targets is missing: name the tasks to probe, such as --targets trec,mrpc")
    return expand(ask.targets)


def _stages(
    ask: ProbeAsk,
    probing: Mapping[str, Any],
    models: Sequence[Checkpoint],
    tuned: Sequence[Data],
    targets: Sequence[Data],
    given: Sequence[Checkpoint | Record],
) -> list[Any]:
    if given:
        (model,) = models
        first = protocols.references(models, targets, probing)
        specs = [_probe_given(one, data, model, probing) for one in given for data in targets]
        return [lambda records: [*first, *specs]]
    moves = {
        "generalization": lambda: protocols.generalization(tuned[0], targets),
        "chain": lambda: protocols.chain(tuned, targets),
        "cycle": lambda: protocols.cycle(tuned, ask.cycles, next(iter(targets), None)),
    }[ask.protocol]()
    request = Request(
        data=(),
        models=models,
        arms=parse_arms(ask.methods, baseline=True),
        seeds=ask.seeds,
        axes=ask.recipe,
        fixed=ask.fixed,
        references=False,
    )
    return protocols.stages(Protocol(tuning=request, moves=moves, probing=probing))


def _probings(ask: ProbeAsk) -> list[dict[str, Any]]:
    """RunSpec fields of the probes, for each pooling."""
    kept = {name: ask.fixed[name] for name in ("max_length", "limit") if name in ask.fixed}
    return [
        {"pooling": pooling, "repeats": ask.repeats, "train_size": ask.probe_size, **kept} for pooling in ask.poolings
    ]


def _probe_given(one: Checkpoint | Record, data: Data, model: Checkpoint, probing: Mapping[str, Any]) -> RunSpec:
    if isinstance(one, Record):
        return protocols.probe_of(one.result.spec, data, model, probing)
    return protocols.probe_given(one.name, one, data, model, probing)


def _given(name: str, models: Sequence[Checkpoint], *, remote_code: bool) -> Checkpoint | Record:
    """A run of a store, or a checkpoint. Raises UsageError for a run of another pretrained model or without weights."""
    if len(models) != 1:
        raise UsageError("--encoder is compared with one --model, the checkpoint that it was tuned from")
    folder = Path(name).expanduser()
    if not (folder / "result.json").is_file():
        found = locate(name, remote_code=remote_code)
        if found.width != models[0].width:
            raise UsageError(
                f"--encoder {name} has width {found.width}, --model {models[0].name} {models[0].width}: probes and "
                "metrics depend on the width. Name a --model of the same width, the one that it was tuned from"
            )
        return found
    try:
        record = read(folder)
    except (ValueError, OSError) as error:
        raise UsageError(f"--encoder {name}: {error}") from error
    spec = record.result.spec
    if spec.kind != "finetune" or record.result.status != "ok":
        raise UsageError(
            f"--encoder {name}: expected a finished fine-tuning run, found {spec.kind}, {record.result.status}"
        )
    if spec.weights != models[0].fingerprint:
        raise UsageError(
            f"--encoder {name} was tuned from '{spec.model}' ({spec.weights}), not from '{models[0].name}' "
            f"({models[0].fingerprint}): name that checkpoint with --model"
        )
    if not (folder / "model").is_dir():
        raise UsageError(
            f"--encoder {name} kept no weights. To train it once more, to the same numbers: {_to_keep_weights(folder)}"
        )
    return record


def _to_keep_weights(folder: Path) -> str:
    """The command that made a run, with the flag that keeps its weights."""
    try:
        command = [str(word) for word in json.loads((folder / "environment.json").read_text())["command"]]
    except (OSError, ValueError, KeyError, TypeError):
        return "run its `ftbench finetune` command again with --save-model all"
    keeps = ["--save-model", "all"] if command[1:2] == ["finetune"] else []  # `ftbench probe` keeps them anyway
    return shlex.join([*command, *keeps])


def _print(probes: Sequence[Record], records: Sequence[Record], *, as_json: bool) -> None:
    tables = {**probe_tables(probes), "between": between_table(probes, between_seeds)}
    if as_json:
        shown = {name: json.loads(render(table, "json")) if table else None for name, table in tables.items()}
        print(json.dumps(plain({**shown, "runs": [describe(r) for r in records]}), indent=2, allow_nan=False))
        return
    wanted = (table for name, table in tables.items() if table and name != "collapse")  # hundreds of rows: for scripts
    print("\n\n".join(render(table, "rich").rstrip("\n") for table in wanted))
