"""How far the studies of a folder are, read from disk alone; and asking them to stop. No torch here."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbench.errors import StoreError, UsageError, explain
from ftbench.lookup import beside, nearest
from ftbench.runs.claim import NAME, holder
from ftbench.runs.manifest import FOLDER, Manifest, manifests
from ftbench.types.run import CHECKPOINT

#: what a run can be, in the order of a table
STATES = ("done", "diverged", "failed", "running", "interrupted", "to do")
OVER = {"done", "diverged", "failed"}


@dataclass(frozen=True)
class RunState:
    """One planned run. who: the process that has it; why: what went wrong."""

    id: str
    folder: str
    state: str
    who: str = ""
    why: str = ""


@dataclass(frozen=True)
class StudyState:
    """One plan file and its runs. stopping: it was asked to stop, and nothing was started since."""

    name: str
    command: str
    stopping: bool
    runs: Sequence[RunState] = field(default_factory=tuple)

    def counts(self) -> dict[str, int]:
        """Runs by state, in the order of ``STATES``."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}


def studies(root: Path) -> list[StudyState]:
    """Every study of the folder, the latest first. Raises UsageError where there is none."""
    paths = manifests(root)
    if not paths:
        what = "has no study" if root.is_dir() else "is no folder"
        below = sorted(str(each.parent) for each in root.glob(f"*/{FOLDER}"))
        near = f" Below it: {', '.join(below[:5])}." if below else ""
        near = near if root.is_dir() else nearest(str(root), beside(root, Path.is_dir))
        raise UsageError(f"'{root}' {what}: expected the output folder (-o) of a command, with {FOLDER}/ in it.{near}")
    return [_study(root, path) for path in paths]


def _study(root: Path, path: Path) -> StudyState:
    try:
        raw = json.loads(path.read_text())
        found = [(each, _run(root, str(each["id"]), str(each["folder"]))) for each in raw["runs"]]
        runs = [run for each, run in found if run.state == "running" or not each.get("earlier")]
        command = " ".join(map(str, raw["command"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"cannot read the plan of a study, {path}: {type(error).__name__}: {error}") from error
    return StudyState(path.stem, command, Manifest.cancel_file(path).exists(), runs)


def _run(root: Path, identity: str, place: str) -> RunState:
    if os.path.isabs(place) or ".." in Path(place).parts:
        raise ValueError(f"'{place}' lies outside the folder")
    folder = os.path.join(root, place)
    result = _result(folder)
    if os.path.exists(os.path.join(folder, NAME)) and (who := holder(Path(folder))):
        return RunState(identity, place, "running", who=who)
    if result is not None:
        status = str(result.get("status"))
        return RunState(identity, place, {"ok": "done"}.get(status, status), why=str(result.get("error") or ""))
    begun = os.path.exists(os.path.join(folder, CHECKPOINT))
    return RunState(identity, place, "interrupted" if begun else "to do")


def _result(folder: str) -> Mapping[str, Any] | None:
    """What says how a run ended; None where it has not, or cannot be read."""
    try:
        with open(os.path.join(folder, "result.json"), "rb") as stream:
            found = json.loads(stream.read())
        return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


def cancel(root: Path, name: str | None, *, wait: float, poll: float = 0.5) -> tuple[list[str], int]:
    """Asks studies to stop that are not over, or the one called ``name``; waits until no run goes on, or so long.

    Returns the names of those asked, and how many runs still go on. Raises UsageError for an unknown name.
    """
    found = studies(root)
    if name is not None and name not in [study.name for study in found]:
        raise UsageError(f"no study '{name}' in '{root}'. There is {', '.join(study.name for study in found)}")
    asked = [study.name for study in found if name in (None, study.name) and study.counts().keys() - OVER]
    for each in asked:
        path = Manifest.cancel_file(root / FOLDER / f"{each}.json")
        try:
            path.touch()
        except OSError as error:
            raise StoreError(f"cannot write {path}: {explain(error)}") from error
    deadline = time.monotonic() + wait
    while (left := _running(root, asked)) and time.monotonic() < deadline:
        time.sleep(poll)
    return asked, left


def _running(root: Path, names: Sequence[str]) -> int:
    return sum(s.counts().get("running", 0) for s in studies(root) if s.name in names)
