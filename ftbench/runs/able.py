"""Which arms can run in a setting, found out before anything runs.

An arm that was named and cannot run is an error. Of ``--method all`` it is left out, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftbench.errors import UsageError
from ftbench.runs.matched import Stack, name_of
from ftbench.runs.stages import ALL, check_arm, check_fit, check_shared, parse_arms


@dataclass
class Arms:
    """The arms of a study; ``optional`` are those that nobody named, ``left_out`` says which of them are gone, why."""

    stacks: list[Stack]
    optional: list[Stack]
    left_out: dict[str, str] = field(default_factory=dict)

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Takes arms out, by name. Raises UsageError for those that were named."""
        wrong = []
        for stack in list(self.stacks):
            name = name_of(stack)
            if name in reasons and stack in self.optional:
                self.stacks.remove(stack)
                self.left_out[name] = reasons[name]
            elif name in reasons:
                wrong.append(reasons[name])
        if wrong:
            raise UsageError("; ".join(dict.fromkeys(wrong)))


def settle(
    texts: Sequence[str],
    *,
    baseline: bool,
    axes: Mapping[str, Sequence[Any]],
    passes: str = "separate",
    searching: bool = False,
    tune: Sequence[str] = (),
    writes: bool = False,
    processes: int = 1,
) -> Arms:
    """The arms of ``--method`` and ``--tune`` texts that can run with these axes and passes, where texts are classified
    or summaries written, in so many processes that share a run. Raises UsageError."""
    stacks = parse_arms(texts, baseline=baseline, tune=tune)
    own = [text for text in texts if text != ALL]
    named = parse_arms(own or ["std"], baseline=baseline, tune=tune)
    arms = Arms(stacks, [stack for stack in stacks if stack not in named])
    reasons = {}
    for stack in stacks:
        try:
            check_fit(stack, writes=writes)
            check_arm(stack, stacks, axes, passes, searching=searching)
            check_shared(stack, processes)
        except UsageError as error:
            reasons[name_of(stack)] = str(error)
    arms.refuse(reasons)
    return arms
