"""What a race has taken so far, kept beside its runs, so that a budget holds over interruptions."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbench.runs.files import to_json, write_atomic, writing_in
from ftbench.runs.race import NO_TIME


@dataclass
class Journal:
    """spent: seconds of earlier commands. seconds: what each run took, all told, by its id. out: candidates that were
    dropped, and why. over: why the race ended, with the largest budget that it has had; empty while it goes on. margin:
    what these were decided with; None before. finals: runs that have scored the test part, in their order."""

    path: Path
    spent: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    over: str = ""
    budget: float = 0.0
    margin: float | None = None
    finals: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, path: Path) -> Journal:
        """The journal at ``path``; an empty one where there is none or it cannot be read."""
        try:
            found = json.loads(path.read_text())
            return cls(path, margin=found.get("margin"), **{name: kind(found[name]) for name, kind in KEPT.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path)

    @property
    def elapsed(self) -> float:
        """Seconds of all commands together."""
        return self.spent + time.monotonic() - self._began

    def judge_by(self, margin: float) -> bool:
        """Whether what was decided was not decided with this margin. If so it is forgotten, but for those that there
        was no time for."""
        if margin == self.margin:
            return False
        self.out = {name: why for name, why in self.out.items() if why.startswith(NO_TIME)}
        self.over, self.margin = "", margin
        return True

    def save(self) -> None:
        """Raises StoreError."""
        with writing_in(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {name: getattr(self, name) for name in (*KEPT, "margin")}
        write_atomic(self.path, to_json({**content, "spent": round(self.elapsed, 3)}))


#: fields of every journal, and what they are made with
KEPT: dict[str, Any] = {
    "spent": float, "seconds": dict, "out": dict, "over": str, "budget": float, "finals": list,
}  # fmt: skip
