"""A study file: commands written down, with their axes, exceptions and profiles. It is data; nothing in it runs.

title = "Is it the noise?"          claim, verified, ours (lists of sentences) say more about it
command = "finetune"                what the settings are for

[defaults]                          settings, named as the command's flags
seeds = "0-9"
[axes]                              lists: every combination is run
task = ["mrpc", "rte"]
method = ["r3f", "r3f:eps=0"]

[[override]]                        where these settings hold, those do, too, in the place of an axis
when = { task = "rte" }
set = { epochs = 10 }
[[exclude]]                         and these are left out
task = "mrpc"
method = "r3f:eps=0"

[stage.probing]                     stages follow each other; each has what stands above, changed by its own
command = "probe"                   tables: stage.probing.defaults, .axes, .override, .exclude

[profile.quick.defaults]            --profile quick: the same tables, laid over those above
seeds = "0-1"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbench.errors import UsageError
from ftbench.lookup import beside, nearest

STUDIES = Path(__file__).parent.parent / "studies"
SUFFIX = ".toml"
ABOUT = ("name", "title", "claim", "verified", "ours")
TABLES = ("defaults", "axes", "override", "exclude")
#: those of a stage, and of a profile; at the top there is all of it
IN_STAGE = ("command", *TABLES)
TOP = (*ABOUT, *IN_STAGE, "stage", "profile")
#: settings that need no axis to be a list
LISTS = ("seeds", "data-seeds", "text", "search", "tasks", "targets")
Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: a command and what it is asked; ``where`` leads to its tables in the file."""

    name: str
    command: str
    defaults: Settings
    axes: Mapping[str, Sequence[Any]]
    override: Sequence[Mapping[str, Settings]] = ()
    exclude: Sequence[Settings] = ()


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """A study file, read and checked in its form; the words in it are checked by the commands."""

    path: Path
    name: str
    profile: str = ""
    title: str = ""
    claim: int | None = None
    verified: Sequence[str] = ()
    ours: Sequence[str] = ()
    stages: Sequence[Stage] = field(default_factory=tuple)
    profiles: Sequence[str] = ()


class Source:
    """The text of a file, for errors that name a line."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def wrong(self, keys: Sequence[str | int], what: str) -> UsageError:
        """An error about what stands at ``keys``: table names, indices of arrays of tables, a setting."""
        line = self.line(keys)
        return UsageError(f"{self.path.name}{f', line {line}' if line else ''}: {what}")

    def line(self, keys: Sequence[str | int]) -> int | None:
        """Where that is set, counted from 1: the shortest beginning of the file that has it ends there."""
        lines = self.text.splitlines()
        for end in range(1, len(lines) + 1):
            try:
                found: Any = tomllib.loads("\n".join(lines[:end]))
                for key in keys:
                    found = found[key]
            except (tomllib.TOMLDecodeError, KeyError, IndexError, TypeError):
                continue
            sign = re.compile(rf"""^\s*\[?.*["']?{re.escape(str(keys[-1]))}\b""")
            return next((n for n in range(end, 0, -1) if sign.match(lines[n - 1])), end)
        return None

    def line_with(self, message: str) -> int | None:
        """The first line that has, quoted, a word that ``message`` quotes; else the first that has more around it."""
        words = [word for word in re.findall(r"'([^']+)'", message) if len(word) > 1]
        quoted = [re.findall(r"\"([^\"]*)\"|'([^']*)'", line) for line in self.text.splitlines()]
        texts = [[double or single for double, single in pairs] for pairs in quoted]
        whole = [number for number, line in enumerate(texts, 1) if set(line) & set(words)]
        part = [number for number, line in enumerate(texts, 1) if any(word in text for word in words for text in line)]
        return next(iter([*whole, *part]), None)


def find_study(name: str) -> Path:
    """The file of that name, or the ready study. Raises UsageError with the nearest."""
    path = Path(name).expanduser()
    if path.suffix == SUFFIX or path.exists():
        return path
    ready = {each.stem: each for each in sorted(STUDIES.glob(f"*{SUFFIX}"))}
    if name in ready:
        return ready[name]
    known = ", ".join(ready)
    near = nearest(name, [*_files_beside(path), *ready])
    raise UsageError(f"unknown study '{name}'.{near} Expected a {SUFFIX} file or one of {known}")


def _files_beside(path: Path) -> list[str]:
    """Study files where ``path`` would be, as they would be named."""
    return beside(path, lambda each: each.suffix == SUFFIX)


def read_study(name: str, profile: str | None, settings: Mapping[str, Mapping[str, Any]]) -> tuple[StudyFile, Source]:
    """Reads a study. settings: command -> the settings that it has, by their names in files.

    Raises UsageError with file and line: no TOML, an unknown key, setting, command or profile (with the nearest), a
    value in the wrong place.
    """
    source, raw = _load(find_study(name))
    _require_known(source, [], raw, TOP, "key")
    profiles = _table(source, ["profile"], raw.get("profile", {}))
    for each in profiles:
        _require_known(source, ["profile", each], profiles[each], (*IN_STAGE, "stage"), "key")
    if profile is not None:
        if profile not in profiles:
            listed = ", ".join(profiles) or "none"
            raise UsageError(
                f"{source.path.name} has no profile '{profile}'.{nearest(profile, profiles)} It has: {listed}"
            )
        raw = _laid_over(raw, profiles[profile])
    own = _table(source, ["stage"], raw.get("stage", {}))
    stages = [_stage(source, raw, stage, each, settings) for stage, each in own.items()] or [
        _stage(source, raw, "", {}, settings)
    ]
    about = {key: raw[key] for key in ABOUT if key in raw}
    for key, kind in (("name", str), ("title", str), ("claim", int), ("verified", list), ("ours", list)):
        if not isinstance(about.get(key, kind()), kind):
            raise source.wrong([key], f"{key} is {about[key]!r}: expected {kind.__name__}")
    named = about.pop("name", source.path.stem)
    found = StudyFile(
        path=source.path, name=named, profile=profile or "", stages=stages, profiles=list(profiles), **about
    )
    return found, source


def cells(stage: Stage) -> Iterator[Settings]:
    """The settings of each command that does the stage: several values of an axis stand as a list, but for axes that
    an override or exclude names, and for those that a flag takes one value of (``single``). No cell comes twice."""
    split = _named_axes(stage)
    whole = {key: list(values) for key, values in stage.axes.items() if key not in split}
    kept: dict[str, tuple[Settings, list[Any]]] = {}
    for settings, _ in _combinations(stage):
        if settings is None:
            continue
        method = settings.pop("method", None)
        methods = kept.setdefault(repr(sorted(settings.items())), (settings, []))[1]
        methods += [each for each in _as_list(method) if each is not None and each not in methods]
    for settings, methods in kept.values():
        yield {**settings, **whole, **({"method": methods} if methods else {})}


def idle_rules(study: StudyFile) -> list[str]:
    """``exclude task=nope matches nothing`` for each rule that matches in no stage that has it."""
    matched: dict[str, bool] = {}
    for stage in study.stages:
        rules = [("override", rule["when"]) for rule in stage.override] + [("exclude", rule) for rule in stage.exclude]
        found = {words for _, used in _combinations(stage) for words in used}
        for words in (_rule_in_words(table, rule) for table, rule in rules):
            matched[words] = matched.get(words, False) or words in found
    return [f"{words} matches nothing" for words, found_one in matched.items() if not found_one]


def _named_axes(stage: Stage) -> dict[str, Sequence[Any]]:
    """The axes that an override or exclude looks at or sets: each of their values stands alone."""
    named = {key for rule in stage.override for key in (*rule["when"], *rule["set"])}
    named |= {key for rule in stage.exclude for key in rule}
    return {key: values for key, values in stage.axes.items() if key in named}


def _combinations(stage: Stage) -> Iterator[tuple[Settings | None, list[str]]]:
    """The settings of each combination of ``_named_axes``, None where it is left out, and the rules that match it."""
    for chosen in _product(_named_axes(stage)):
        settings: Settings = {**stage.defaults, **chosen}
        used = [_rule_in_words("exclude", rule) for rule in stage.exclude if _matches(rule, settings)]
        if used:
            yield None, used
            continue
        for rule in stage.override:
            if _matches(rule["when"], settings):
                used.append(_rule_in_words("override", rule["when"]))
                settings |= rule["set"]
        yield settings, used


def _rule_in_words(table: str, rule: Settings) -> str:
    """``exclude task=rte method=std,r3f``"""
    return " ".join([table, *(f"{key}={','.join(map(str, _as_list(value)))}" for key, value in rule.items())])


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _product(axes: Mapping[str, Sequence[Any]]) -> Iterator[Settings]:
    if not axes:
        yield {}
        return
    (name, values), *rest = axes.items()
    for value in values:
        for others in _product(dict(rest)):
            yield {name: value, **others}


def _matches(rule: Settings, settings: Settings) -> bool:
    """Whether each setting is the one, or one of those, that the rule names."""
    return all(str(settings.get(key)) in [str(each) for each in _as_list(value)] for key, value in rule.items())


def _load(path: Path) -> tuple[Source, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return Source(path, text), tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the study '{path}': {why}.{nearest(str(path), _files_beside(path))}") from error


def _laid_over(below: Any, above: Any) -> Any:
    """Tables are merged, all else is replaced; an axis that becomes a default is no axis any more, and the reverse."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    merged = {**below, **{key: _laid_over(below.get(key), value) for key, value in above.items()}}
    for one, other in (("defaults", "axes"), ("axes", "defaults")):
        if one in above and isinstance(merged.get(other), Mapping) and isinstance(above[one], Mapping):
            merged[other] = {k: v for k, v in merged[other].items() if k not in above[one] or k in above.get(other, {})}
    return merged


def _stage(source: Source, raw: Settings, name: str, own: Any, settings: Mapping[str, Mapping[str, Any]]) -> Stage:
    at: list[str | int] = ["stage", name] if name else []
    _require_known(source, at, own, IN_STAGE, "key") if name else None
    merged = _laid_over({key: raw[key] for key in IN_STAGE if key in raw}, own)
    command = merged.get("command", "finetune")
    if not isinstance(command, str) or command not in settings:
        near = nearest(str(command), settings)
        raise source.wrong([*at, "command"], f"unknown command '{command}'.{near} Known: {', '.join(settings)}")
    known = settings[command]
    for table in ("defaults", "axes"):
        for key, value in _table(source, [*at, table], merged.get(table, {})).items():
            place = [*at, table, key] if name and key in own.get(table, {}) else [table, key]
            _require_setting(source, place, key, known, command)
            _require_form(source, place, key, value, table)
    both = merged.get("defaults", {}).keys() & merged.get("axes", {}).keys()
    for key in sorted(both):
        raise source.wrong(["axes", key], f"'{key}' stands in [defaults] and in [axes]: which one?")
    for table, rules in (("override", merged.get("override", [])), ("exclude", merged.get("exclude", []))):
        _require_rules(source, [*at, table] if table in own else [table], rules, known, command)
    return Stage(
        name=name, command=command, defaults=merged.get("defaults", {}), axes=merged.get("axes", {}),
        override=merged.get("override", []), exclude=merged.get("exclude", []),
    )  # fmt: skip


def _require_rules(source: Source, at: list[str | int], rules: Any, known: Mapping[str, Any], command: str) -> None:
    if not isinstance(rules, list) or not all(isinstance(rule, dict) and rule for rule in rules):
        raise source.wrong(at, f"expected [[{at[-1]}]] tables")
    for number, rule in enumerate(rules):
        place = [*at, number]
        if at[-1] == "override":
            if set(rule) != {"when", "set"} or not all(isinstance(part, dict) and part for part in rule.values()):
                raise source.wrong(place, "an override has two tables: when = { ... } and set = { ... }")
            pairs = [([*place, part, key], key) for part in ("when", "set") for key in rule[part]]
        else:
            pairs = [([*place, key], key) for key in rule]
        for where, key in pairs:
            _require_setting(source, where, key, known, command)


def _require_known(source: Source, at: Sequence[str | int], raw: Any, known: Sequence[str], what: str) -> None:
    for key in _table(source, at, raw):
        if key not in known:
            raise source.wrong([*at, key], f"unknown {what} '{key}'.{nearest(key, known)} Known: {', '.join(known)}")


def _require_setting(source: Source, at: Sequence[str | int], key: str, known: Mapping[str, Any], command: str) -> None:
    if key not in known:
        near = nearest(key, known)
        raise source.wrong(at, f"unknown setting '{key}' of {command}.{near} Known: {', '.join(sorted(known))}")


def _require_form(source: Source, at: Sequence[str | int], key: str, value: Any, table: str) -> None:
    if isinstance(value, Mapping):
        raise source.wrong(at, f"'{key}' is a table: expected a value")
    if table == "axes" and (not isinstance(value, list) or not value):
        raise source.wrong(at, f"'{key}' = {value!r}: an axis is a list of values; a single one goes into [defaults]")
    if table == "axes" and any(isinstance(each, list | dict) for each in value):
        raise source.wrong(at, f"'{key}': an axis is a flat list of values")
    if table == "defaults" and isinstance(value, list) and key not in LISTS:
        raise source.wrong(at, f"'{key}' is a list: several values are an axis, so it goes into [axes]")


def _table(source: Source, at: Sequence[str | int], value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise source.wrong(at, f"'{at[-1]}' is {value!r}: expected a table, [{'.'.join(map(str, at))}]")
    return value
