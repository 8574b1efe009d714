"""A study file carried out, or looked at before that."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftbench.cli.output import print_records
from ftbench.cli.study import Prepared, attended
from ftbench.cli.written import prepare, settings
from ftbench.errors import UsageError
from ftbench.methods import names_only
from ftbench.models.locate import Checkpoint
from ftbench.reporting.render import render
from ftbench.runs.estimate import Estimate, estimate
from ftbench.runs.files import plain, slug
from ftbench.runs.grid import Grid
from ftbench.runs.overview import STATES, Overview, grouped, look_ahead, merge
from ftbench.runs.progress import Unshown
from ftbench.runs.store import Store
from ftbench.runs.study import rehearse
from ftbench.runs.study_file import Source, StudyFile, idle_rules, read_study
from ftbench.runs.study_file import Stage as Section
from ftbench.runs.work import Options
from ftbench.types import Column, Data, Record, Search, Table
from ftbench.types.run import TUNED


@dataclass(frozen=True)
class Whole:
    """The commands of one section of a study as one."""

    name: str
    parts: Sequence[Prepared]

    @property
    def data(self) -> dict[str, Data]:
        return {key: one for part in self.parts for key, one in part.data.items()}

    @property
    def models(self) -> dict[str, Checkpoint]:
        return {key: one for part in self.parts for key, one in part.models.items()}

    @property
    def options(self) -> Options:
        return self.parts[0].options

    @property
    def stages(self) -> list[Any]:
        return merge([part.stages for part in self.parts])


@names_only()
def run_file(
    name: str,
    profile: str | None,
    output_dir: Path | None,
    machine: Mapping[str, Any],
    *,
    save_model: str | None,
    track: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Does the study and prints its tables. Returns how many runs failed. Raises what ``Grid.run`` raises."""
    study, source, store = _opened(name, profile, output_dir)
    wholes = [_whole(section, source, store, machine) for section in study.stages]
    for whole in wholes:
        _rehearse(whole, store)
    records: list[Record] = []
    searches: list[Search] = []
    for whole in wholes:
        if not quiet and whole.name:
            print(f"Stage {whole.name}", file=sys.stderr)
        options = replace(whole.options, keep_model=whole.options.keep_model or save_model is not None)
        with attended(store, whole.data.values(), whole.models.values(), options, quiet=quiet, track=track) as grid:
            grid.parents = [parent for part in whole.parts for parent in part.parents]
            try:
                grid.run(whole.stages)
                if save_model:
                    grid.keep_models(save_model)
            finally:
                searches += [one for part in whole.parts for one in part.answers(store, grid.records)]
        records += grid.records
    print_records(list({r.result.spec.id: r for r in records}.values()), searches, form="json" if as_json else "rich")
    failed = sum(record.result.status == "failed" for record in records)
    if not quiet:
        _say_what_next(study, store, failed)
    return failed


@names_only()
def plan_file(
    name: str,
    profile: str | None,
    output_dir: Path | None,
    machine: Mapping[str, Any],
    *,
    sample: float,
    commands: bool,
    as_json: bool,
) -> None:
    """Prints the study's runs by state, then what the rest takes; or a command for each run to do."""
    study, source, store = _opened(name, profile, output_dir)
    wholes = [_whole(section, source, store, machine) for section in study.stages]
    looks = [look_ahead(whole.stages, store) for whole in wholes]
    if commands:
        for whole, look in zip(wholes, looks, strict=True):
            _print_commands(whole, look, store)
        return
    if not as_json:
        print(_about(study, store))
        for whole, look in zip(wholes, looks, strict=True):
            print(render(_table(whole, look), "rich").rstrip("\n"), flush=True)

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    share = sample / max(1, sum(bool(look.to_do) for look in looks))
    costs = [
        estimate(look, whole.data, whole.models, whole.options, seconds=share, tell=tell)
        for whole, look in zip(wholes, looks, strict=True)
    ]
    if as_json:
        print(json.dumps(plain(_document(study, store, wholes, looks, costs)), indent=2, allow_nan=False))
    else:
        print(_in_words(looks, costs, wholes[0].options.setup.jobs))


def _opened(name: str, profile: str | None, output_dir: Path | None) -> tuple[StudyFile, Source, Store]:
    study, source = read_study(name, profile, settings())
    for said in idle_rules(study):
        print(f"note: {said}", file=sys.stderr)
    usual = Path("runs") / slug(f"{study.name}-{study.profile}" if study.profile else study.name)
    return study, source, Store(output_dir or usual)


def _whole(section: Section, source: Source, store: Store, machine: Mapping[str, Any]) -> Whole:
    parts = prepare(section, source, store.root, machine)
    if not parts:
        where = f" in stage {section.name}" if section.name else ""
        raise UsageError(f"{source.path.name}: no run is left{where}: the excludes take out every combination")
    return Whole(section.name, parts)


def _rehearse(whole: Whole, store: Store) -> None:
    """Raises UsageError for arms that cannot run."""
    first = whole.stages[0]([]) if whole.stages else []
    waiting = [(spec.method, spec) for spec in first if spec.kind in TUNED and store.find(spec) is None]
    if refused := rehearse(waiting, whole.data, whole.models):
        raise UsageError("; ".join(dict.fromkeys(refused.values())))


def _print_commands(whole: Whole, look: Overview, store: Store) -> None:
    """On stdout a command a run; what has to wait for them, on stderr."""
    grid = Grid(store, whole.data, whole.models, Unshown(), whole.options)
    grid.parents = [parent for part in whole.parts for parent in part.parents]
    plan = grid.write_plan(list(look.runs.values()), for_workers=True)
    now = [spec for spec in look.to_do if all(parent not in {s.id for s in look.to_do} for parent in spec.parents)]
    for spec in now:
        print(f"{sys.executable} -m ftbench.runs.worker {plan.path.absolute()} {spec.id}")
    later = len(look.to_do) - len(now)
    if later or look.open_ended:
        what = f"{later} runs start from these" if later else "further runs follow from these"
        print(f"note: {what}; print the commands again once these are done", file=sys.stderr)


def _about(study: StudyFile, store: Store) -> str:
    lines = [f"{study.title or study.name}{f' (claim {study.claim})' if study.claim else ''}, into {store.root}/"]
    said = [f"verified: {text}" for text in study.verified] + [f"our choice: {text}" for text in study.ours]
    lines += [textwrap.fill(text, 118, initial_indent="  ", subsequent_indent="    ") for text in said]
    if study.profiles and not study.profile:
        lines.append(f"  profiles: {', '.join(study.profiles)}")
    return "\n".join(lines)


def _table(whole: Whole, look: Overview) -> Table:
    rows = []
    for names, counts in grouped(look):
        rows.append({**names, "runs": sum(counts.values()), **{state: counts[state] for state in STATES}})
    keys = [key for key in ("kind", "task", "method") if any(key in row for row in rows)]
    columns = [Column(key, key, numeric=False) for key in keys]
    columns += [Column(key, key) for key in ("runs", *STATES)]
    notes = ("Further runs follow from results that are not there yet.",) if look.open_ended else ()
    return Table(f"Runs{f' of stage {whole.name}' if whole.name else ''}", tuple(columns), tuple(rows), notes)


def _in_words(looks: Sequence[Overview], costs: Sequence[Estimate], jobs: int) -> str:
    left = sum(len(look.to_do) for look in looks)
    total = sum(len(look.runs) for look in looks)
    done = sum(look.counts()["done"] for look in looks)
    said = f"{total:,} runs: {done:,} done, {left:,} to do."
    if not left:
        return said
    hours, measured = sum(cost.hours for cost in costs), sum(cost.measured for cost in costs)
    if measured:
        guessed = sum(cost.guessed for cost in costs)
        by = f" ({guessed} kinds of run guessed by others; --sample times more)" if guessed else ""
        said += f" About {_duration(hours / jobs)} with {jobs} at a time{by}"
    kept, passing = sum(cost.bytes for cost in costs), max(cost.passing for cost in costs)
    return f"{said}{', ' if measured else ' About '}{_size(kept)} on disk, and {_size(passing)} while it runs."


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(hours * 60))} minutes"


def _size(number: int) -> str:
    for unit in ("kB", "MB", "GB"):
        number = -(-number // 1000)
        if number < 1000:
            return f"{number} {unit}"
    return f"{-(-number // 1000)} TB"


def _document(
    study: StudyFile, store: Store, wholes: Sequence[Whole], looks: Sequence[Overview], costs: Sequence[Estimate]
) -> dict[str, Any]:
    stages = []
    for whole, look, cost in zip(wholes, looks, costs, strict=True):
        runs = [
            {"id": s.id, "kind": s.kind, "task": s.task, "method": s.method, "seed": s.seed, "state": look.state(s)}
            for s in look.runs.values()
        ]
        known = cost.measured or not look.to_do  # without a measured run nothing is known of the time
        about = {
            "hours": cost.hours if known else None, "bytes": cost.bytes, "measured": cost.measured,
            "guessed": cost.guessed,
        }  # fmt: skip
        stages.append({"name": whole.name, "open_ended": bool(look.open_ended), "estimate": about, "runs": runs})
    return {"study": study.name, "profile": study.profile, "folder": str(store.root), "stages": stages}


def _say_what_next(study: StudyFile, store: Store, failed: int) -> None:
    if failed:
        print(f"{failed} failed; --retry-failed does them again", file=sys.stderr)
    claim = f"; `ftbench report {store.root} --claim {study.claim}` says what they say of it" if study.claim else ""
    print(f"Runs are in {store.root}/; `ftbench report {store.root}` prints this again{claim}.", file=sys.stderr)
