"""The store: one folder a run, written so that a run is never lost and never mislabelled.

    runs/<task>/search-<arm>-<id>.json    how a configuration was chosen
    runs/<task>/<arm>-seed<N>-<id>/
        spec.json             what was asked, all fields
        result.json           what came out; written last, its presence means: finished
        cost.json             what it took
        history.jsonl         losses and scores over the steps
        predictions.parquet   every validation example: label, prediction, probabilities
        environment.json      versions, machine, command
        checkpoint.safetensors, claim.json    while it runs
        model/                where it was kept; loads in plain from_pretrained

Names are for people, the id is the key. No torch here: reading results is instant.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from ftbench.errors import StoreError, UsageError, explain
from ftbench.runs.claim import Claim, take
from ftbench.runs.files import slug, to_json, to_jsonl, write_atomic, writing_in
from ftbench.types import Cost, Record, Result, RunSpec, Search
from ftbench.types.run import CHECKPOINT, Status

SCHEMA = 1
#: schema n -> a function that turns such a result.json into one of schema n + 1
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


@dataclass
class Found:
    """What reading a folder gave: records, and a line for each thing passed over."""

    records: list[Record] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)


class NewerSchema(ValueError):
    """A result that a newer ftbench wrote: not damaged, but not to be read here."""


class Store:
    """Runs under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, tuple[int, dict[str, str]]] = {}

    def folder(self, spec: RunSpec) -> Path:
        """Where the run lives. An id that is there under another name is found too."""
        task = self.root / slug(spec.task)
        arm = spec.kind if spec.kind in ("reference", "variability") else spec.method
        usual = task / f"{slug(arm)}-seed{spec.seed}-{spec.id}"
        known = None if usual.is_dir() else self._names(task).get(spec.id)
        return task / known if known else usual

    def _names(self, task: Path) -> dict[str, str]:
        """Run folders of a task by the id at their end; listed anew when one was added, so that many runs are cheap."""
        try:
            changed = task.stat().st_mtime_ns
        except OSError:
            return {}
        at, names = self._listed.get(task, (0, {}))
        if at != changed:
            names = {name.rpartition("-")[2]: name for name in sorted(os.listdir(task), reverse=True)}
            self._listed[task] = changed, names
        return names

    def find(self, spec: RunSpec) -> Record | None:
        """The finished run, or None. A damaged result is set aside, so that the run is done again.

        Raises StoreError for the whole result of a newer ftbench, and for one that cannot be read just now.
        """
        try:
            folder = self.folder(spec)
            return read(folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"cannot read the store in {self.root}: {explain(error)}") from error
        except NewerSchema as error:
            raise StoreError(f"{folder}: {error}. Update ftbench, or choose another --output-dir") from error
        except ValueError:
            with contextlib.suppress(OSError):
                os.replace(folder / "result.json", folder / f"result.json.damaged-{uuid.uuid4().hex[:6]}")
            return None

    def claim(self, spec: RunSpec) -> Claim | None:
        """Makes the run's folder and claims it; None while another process has it. Raises StoreError."""
        folder = self.folder(spec)
        with writing_in(folder):
            folder.mkdir(parents=True, exist_ok=True)
        claim = take(folder)
        if claim:
            _sweep(folder)
        return claim

    def save(
        self,
        result: Result,
        cost: Cost,
        *,
        history: Iterable[Mapping[str, Any]] = (),
        predictions: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        save_model: Callable[[Path], None] | None = None,
    ) -> Record:
        """Writes a finished run; ``result.json`` comes last. Raises StoreError, and then the run is not finished."""
        folder = self.folder(result.spec)
        write_atomic(folder / "spec.json", to_json({"schema": SCHEMA, "id": result.spec.id, **result.spec.to_json()}))
        write_atomic(folder / "cost.json", to_json({"schema": SCHEMA, **dataclasses.asdict(cost)}))
        if records := list(history):
            write_atomic(folder / "history.jsonl", to_jsonl(records))
        write_atomic(folder / "environment.json", to_json(environment or {}))
        if predictions:
            write_atomic(folder / "predictions.parquet", _parquet(predictions))
        if save_model:
            _save_folder(folder / "model", save_model)
        written = {"schema": SCHEMA, "id": result.spec.id, **_result(result)}
        write_atomic(folder / "result.json", to_json({**written, "checksum": _checksum(written)}))
        if result.status != "failed":  # a failed run continues from its checkpoint when it is tried again
            for name in (CHECKPOINT, "error.txt"):
                (folder / name).unlink(missing_ok=True)
        return Record(folder, result, cost)

    def save_search(self, search: Search) -> None:
        """Writes down how a configuration was chosen, beside the runs. Raises StoreError."""
        path = self.root / slug(search.reported.task) / f"search-{slug(search.arm)}-{search.id}.json"
        with contextlib.suppress(OSError):  # writing says what is wrong
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, to_json({"schema": SCHEMA, **search.to_json()}))


def read(folder: Path) -> Record:
    """The run in ``folder``. Raises ValueError saying what is wrong with its result, OSError if it cannot be read."""
    path = folder / "result.json"
    text = path.read_text()
    raw = _parse(text, path.name)
    checksum = raw.pop("checksum", None)
    changed = checksum is not None and not _is_as_written(text, str(checksum), raw)
    schema = raw.pop("schema", None)
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerSchema(f"result.json has schema {schema}, this ftbench reads up to {SCHEMA}")
    if not isinstance(schema, int) or not all(version in UPGRADES for version in range(schema, SCHEMA)):
        raise ValueError(f"result.json has schema {schema}, which ftbench cannot read")
    for version in range(schema, SCHEMA):
        raw = UPGRADES[version](raw)
    if not changed and (unknown := RunSpec.unknown(raw.get("spec"))):
        raise NewerSchema(f"result.json has the unknown settings {', '.join(unknown)}: a newer ftbench wrote it")
    try:
        _require_shape(raw)
        identity = raw.pop("id")
        spec = RunSpec.from_json(raw.pop("spec"))
        result = Result(spec=spec, **raw)
        record = Record(folder, result, _cost(folder / "cost.json"))
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise ValueError(f"result.json is not of ftbench ({error})") from error
    if spec.id != identity:
        raise ValueError(f"result.json says id {identity}, its spec has {spec.id}: edited by hand?")
    if changed:
        raise ValueError("result.json is not what was written (its checksum differs): edited by hand?")
    return record


def read_all(roots: Iterable[Path]) -> Found:
    """Every finished run and search below the folders, in a stable order; what cannot be read is named, not fatal."""
    found = Found()
    seen: set[str] = set()
    for root in roots:
        for path in sorted(root.rglob("result.json")):
            try:
                record = read(path.parent)
            except Exception as error:  # a foreign file can be wrong in any way
                found.skipped.append(f"{path}: {error}")
                continue
            if record.result.spec.id not in seen:
                seen.add(record.result.spec.id)
                found.records.append(record)
        for path in sorted(root.rglob("search-*.json")):
            try:
                search = Search.from_json(_without_schema(_load(path)))
            except Exception as error:
                found.skipped.append(f"{path}: {error}")
                continue
            if search.id not in seen:
                seen.add(search.id)
                found.searches.append(search)
    return found


def _without_schema(raw: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for another schema than this."""
    if raw.pop("schema", None) != SCHEMA:
        raise ValueError(f"not of schema {SCHEMA}, which is all that this ftbench reads")
    return raw


def _sweep(folder: Path) -> None:
    """Removes what a killed process left half-written; only the claimant may."""
    for path in folder.glob(".*"):
        if path.name.startswith((".claim", ".dead")):  # another process may be writing these
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _cost(path: Path) -> Cost:
    """What the run took; zeros, which stand for "not measured", where the file is lost or damaged."""
    try:
        values = _load(path)
        return Cost(**{item.name: values[item.name] for item in dataclasses.fields(Cost) if item.name in values})
    except (FileNotFoundError, ValueError, TypeError):
        return Cost()


def _load(path: Path) -> dict[str, Any]:
    return _parse(path.read_text(), path.name)


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def _require_shape(raw: Mapping[str, Any]) -> None:
    """What reports rely on. Raises TypeError."""
    if raw["status"] not in get_args(Status):
        raise TypeError(f"status {raw['status']!r}")
    for name in ("metrics", "facts"):
        if not isinstance(raw[name], dict):
            raise TypeError(f"{name} is not an object")


def _checksum(value: Mapping[str, Any]) -> str:
    """16 hex digits over all else in the file, so that a changed digit is noticed."""
    return hashlib.sha256(to_json(value)).hexdigest()[:16]


def _is_as_written(text: str, checksum: str, rest: Mapping[str, Any]) -> bool:
    """Whether the checksum is that of the file without its line, or (in another layout) of what the file says."""
    before, line, after = text.partition(f'  "checksum": "{checksum}",\n')
    if line and hashlib.sha256((before + after).encode()).hexdigest()[:16] == checksum:
        return True
    return checksum == _checksum(rest)


def _result(result: Result) -> dict[str, Any]:
    return {**{k: v for k, v in result.__dict__.items() if k != "spec"}, "spec": result.spec.to_json()}


def _parquet(columns: Mapping[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: pa.array(list(v) if v.ndim > 1 else v) for name, v in columns.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink)
    return bytes(sink.getvalue())


def _save_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """A folder that is whole or absent."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except Exception as error:  # safetensors and tokenizers raise kinds of their own on a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(f"cannot save the model in {folder}: {explain(error)}") from error
