"""What can be learned: the declared tasks, and how a word on the command line becomes one."""

from __future__ import annotations

from dataclasses import replace

from ftbench.errors import UsageError
from ftbench.lookup import find
from ftbench.tasks.custom import is_reference, own_task
from ftbench.tasks.news import NEWS
from ftbench.types.task import Kind, Task

TASKS: dict[str, Task] = {task.name: task for task in (*NEWS,)}


def resolve(name: str, text: tuple[str, ...] = (), label: str = "label", kind: Kind = "classification") -> Task:
    """The declared task called ``name``, or the user's own at that path or ``hub:`` reference.

    ``text``, ``label`` and ``kind`` describe a user's own table. A table named like a declared task
    becomes ``NAME-own``, so that reports do not mix them up.

    Raises UsageError: an unknown name, ``text`` for a declared task, and what ``own_task`` raises.
    """
    if name in TASKS:
        if text:
            raise UsageError(f"--text is for your own tables: task '{name}' has its columns")
        return TASKS[name]
    if not is_reference(name):
        return find(TASKS, name, "task")
    task = own_task(name, text, label, kind)
    return replace(task, name=f"{task.name}-own") if task.name in TASKS else task
