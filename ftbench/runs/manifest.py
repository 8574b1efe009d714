"""The plan file of a study: all that a worker needs to do any of its runs, and all that ``ftbench status`` reads.

    runs/.studies/<name>.json    runs, tasks, checkpoints, options
    runs/.studies/<name>/        logs of workers, and what engines keep

The name is a hash of the study's first runs, of where its models are and of how it is carried out: the same command
finds its plan again, and no other command changes what workers go by. No torch here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbench.errors import StoreError, UsageError
from ftbench.models.locate import Checkpoint
from ftbench.runs.files import to_json, write_atomic, writing_in
from ftbench.runs.store import Store
from ftbench.tasks.portable import task_to_json
from ftbench.types import Data, RunSpec

FOLDER = ".studies"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One plan file, read.

    tasks:   data fingerprint -> the task, see ``tasks.portable``
    models:  fingerprint -> checkpoint
    parents: id -> folder of finished runs of other stores that runs of the study start from
    options: what ``runs.work.Options`` has, but for functions
    """

    path: Path
    runs: Sequence[RunSpec]
    tasks: Mapping[str, Any]
    models: Mapping[str, Checkpoint]
    parents: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    command: Sequence[str] = ()

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self.path.parent.parent

    @property
    def folder(self) -> Path:
        """Where logs go; not made yet."""
        return self.path.with_suffix("")

    def rows_folder(self, cache: Path | None) -> Path:
        """Where workers find the rows, see ``runs.rows``."""
        return cache or self.folder

    @staticmethod
    def cancel_file(path: Path) -> Path:
        """The file that asks all who work on the plan at ``path`` to stop."""
        return path.with_suffix(".cancel")

    def write(self) -> None:
        """Writes the file where it differs. Raises StoreError.

        What stands there already stays: another command that shares the plan may be in a later stage, with workers that
        look for its runs. Runs that are only there for that are marked ``earlier``.
        """
        with writing_in(self.root):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self.path.parent):
                packed = self._packed(self._before())
                if not self.path.is_file() or self.path.read_bytes() != packed:
                    write_atomic(self.path, packed)

    def _packed(self, before: Manifest | None) -> bytes:
        store, own = Store(self.root), {spec.id for spec in self.runs}

        def packed(spec: RunSpec, **more: bool) -> dict[str, Any]:
            return {"id": spec.id, "folder": _relative(store, spec), "spec": _short(spec), **more}

        others = [packed(spec, earlier=True) for spec in before.runs if spec.id not in own] if before else []
        parents = {**(before.parents if before else {}), **self.parents}
        return to_json({
            "schema": SCHEMA,
            "command": list(self.command),
            "options": dict(self.options),
            "tasks": {**(before.tasks if before else {}), **self.tasks},
            "models": {name: _checkpoint_to_json(model) for name, model in self.models.items()},
            "parents": {name: str(folder.absolute()) for name, folder in parents.items()},
            "runs": [*map(packed, self.runs), *others],
        }, indent=None)  # fmt: skip

    def _before(self) -> Manifest | None:
        """The file as it is; None where there is none that can be read."""
        try:
            return Manifest.read(self.path)
        except StoreError:
            return None

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises StoreError saying what is wrong with the file."""
        try:
            raw = json.loads(path.read_text())
            if raw["schema"] != SCHEMA:
                raise ValueError(f"schema {raw['schema']}, this ftbench reads {SCHEMA}")
            return cls(
                path=path,
                runs=[RunSpec.from_json(each["spec"]) for each in raw["runs"]],
                tasks=raw["tasks"],
                models={name: _checkpoint_from_json(each) for name, each in raw["models"].items()},
                parents={name: Path(folder) for name, folder in raw["parents"].items()},
                options=raw["options"],
                command=raw["command"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"cannot read the plan of a study, {path}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within, no other process is in here for the folder; where its file system has locks."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def tasks_of(data: Iterable[Data], *, strict: bool = True) -> dict[str, Any]:
    """For ``Manifest.tasks``. strict: raises UsageError for a task that only this process can have, else left out."""
    packed = {}
    for one in data:
        try:
            packed[one.fingerprint] = task_to_json(one.task)
        except UsageError:
            if strict:
                raise
    return packed


def path_for(
    root: Path, first: Iterable[RunSpec], models: Mapping[str, Checkpoint], options: Mapping[str, Any]
) -> Path:
    """The plan file of the study that begins with these runs, done with these models and options."""
    where = {name: _checkpoint_to_json(model) for name, model in models.items()}
    digest = hashlib.sha256("".join(sorted(spec.id for spec in first)).encode() + to_json([where, dict(options)]))
    return root / FOLDER / f"{digest.hexdigest()[:12]}.json"


def manifests(root: Path) -> list[Path]:
    """The plan files under a store, the latest first."""
    return sorted((root / FOLDER).glob("*.json"), key=lambda path: (-path.stat().st_mtime, path.name))


def _relative(store: Store, spec: RunSpec) -> str:
    return store.folder(spec).relative_to(store.root).as_posix()


def _short(spec: RunSpec) -> dict[str, Any]:
    """Without the fields that have the value they were introduced with."""
    full = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    introduced = {f.name: f.metadata["introduced"] for f in dataclasses.fields(spec) if "introduced" in f.metadata}
    kept = {name: value for name, value in full.items() if name not in introduced or value != introduced[name]}
    if "methods" in kept:
        kept["methods"] = [dataclasses.asdict(method) for method in spec.methods]
    return kept


def _checkpoint_to_json(model: Checkpoint) -> dict[str, Any]:
    fields = {**model.__dict__, "folder": str(model.folder.absolute())}
    return {**fields, "origin": _checkpoint_to_json(model.origin) if model.origin else None}


def _checkpoint_from_json(fields: Mapping[str, Any]) -> Checkpoint:
    origin = _checkpoint_from_json(fields["origin"]) if fields["origin"] else None
    return Checkpoint(**{**fields, "folder": Path(fields["folder"]), "origin": origin})
