"""How people read one value: rounded, with its unit, and an interval folded into the cell of its estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ftbench.metrics import ROUGE
from ftbench.reporting.cells import RECIPE_AXES, SETTINGS, Cell, varying
from ftbench.types import Column, Table

Row = Mapping[str, Any]
DASH = "\N{EN DASH}"
HASHES = ("data", "weights")


class Fold(NamedTuple):
    """Columns that stand inside another's cell: the interval's ends, and what else is hidden with them."""

    low: str
    high: str
    text: Callable[[float], str]
    hidden: tuple[str, ...] = ()


def signed(value: float) -> str:
    """``+0.012``."""
    return f"{round(value, 3) + 0.0:+.3f}"  # adding 0.0 turns -0.0 into 0.0


def number(value: float) -> str:
    """``0.712``."""
    return f"{round(value, 3) + 0.0:.3f}"


def percent(value: float) -> str:
    """``12%``."""
    return f"{value:.0%}"


def hundredths(value: float) -> str:
    """``35.12`` of 0.3512: how the field prints ROUGE."""
    return f"{round(100 * value, 2) + 0.0:.2f}"


def signed_hundredths(value: float) -> str:
    """``+0.85`` of 0.0085."""
    return f"{round(100 * value, 2) + 0.0:+.2f}"


def score(metric: str, value: float) -> str:
    """A score in its metric's own unit: ``0.712``; ROUGE in hundredths."""
    return hundredths(value) if metric in ROUGE else number(value)


def precise(metric: str, value: float, signed: bool = False) -> str:
    """A score with one digit more than tables have: ``0.7123``."""
    sign, digits = "+" if signed else "", 3 if metric in ROUGE else 4
    return f"{round(100 * value if metric in ROUGE else value, digits) + 0.0:{sign}.{digits}f}"


def short(value: Any) -> str:
    """A setting: ``5e-05``."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def arm_label(cell: Cell, cells: Sequence[Cell]) -> str:
    """The method, with the recipe where it varies among ``cells`` (steps only where a method has several)."""
    each = len({other.method for other in cells}) == len(cells)
    axes = [key for key in varying(list(cells)) if key in RECIPE_AXES and not (key == "steps" and each)]
    values = ", ".join(f"{RECIPE_AXES[key]} {short(cell.setting(key))}" for key in axes)
    return f"{cell.method} ({values})" if values else cell.method


def metric_name(metric: str) -> str:
    """With its unit, where scores are not shown as they are kept: ``rouge1 x 100``."""
    return f"{metric} x 100" if metric in ROUGE else metric


def memory(value: float) -> str:
    """``612 MiB``."""
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def p_value(value: float) -> str:
    """``0.031``, or ``<0.001``."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def bar(share: float, width: int = 12) -> str:
    """A share of 1 as a bar of ``width`` cells, padded, in steps of an eighth."""
    eighths = round(share * width * 8)
    parts = " ▏▎▍▌▋▊▉"
    return ("█" * (eighths // 8) + parts[eighths % 8].strip()).ljust(width)


FOLDS: dict[str, Fold] = {
    "vs_std": Fold("vs_std_low", "vs_std_high", signed, ("vs_std_n", "verdict")),
    "difference": Fold("low", "high", signed),
    "seeds_difference": Fold("seeds_low", "seeds_high", signed),
    "vs_top": Fold("vs_top_low", "vs_top_high", signed, ("vs_top_n",)),
    "vs_all": Fold("vs_all_low", "vs_all_high", signed, ("vs_all_n",)),
    "rest": Fold("rest_low", "rest_high", number),
    "median": Fold("q1", "q3", number),
    "bad": Fold("bad_low", "bad_high", percent),
    "improvement": Fold("improvement_low", "improvement_high", number),
    "iqm": Fold("iqm_low", "iqm_high", number),
    "estimate": Fold("estimate_low", "estimate_high", signed),
    **{name: Fold(f"{name}_low", f"{name}_high", number) for name in (*ROUGE, *(f"mean_{rouge}" for rouge in ROUGE))},
}
HUMAN: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(SETTINGS, lambda value: f"{value:g}" if isinstance(value, float) else str(value)),
    **dict.fromkeys(HASHES, lambda value: str(value)[:8]),
    **dict.fromkeys(("cost", "memory_ratio"), lambda value: f"{value:.2f}x"),
    **dict.fromkeys(("p", "p_holm", "p_t", "p_flip", "p_flip_least"), p_value),
    "memory": memory,
    **dict.fromkeys(("seconds", "to_best", "budget"), lambda value: f"{value:.1f} s"),
    "parameters": lambda value: f"{value / 1e6:.2f}M",
    "flops": lambda value: f"{value:.3g}",
    "forward": lambda value: f"{value:g}",
    **dict.fromkeys(("within_point", "chosen_share", "time_share", "flops_share", "model_share"), percent),
    "nu_bar": bar,
    "drift": lambda value: f"{value:+d}",
    **dict.fromkeys(("nu", "floor", "floor_sd", "cdnv"), lambda value: f"{value:.4g}"),
    **dict.fromkeys(("participation", "effective_rank", "condition"), lambda value: f"{value:.1f}"),
    **dict.fromkeys(
        ("disagreement", "repetition", "empty", "novel_1", "novel_2", "copy_rate"), lambda value: f"{value:.1%}"
    ),
    "length_ratio": lambda value: f"{value:.2f}",
}
#: columns in the unit of the row's metric
_SCORES = frozenset({
    "mean", "sd", "rest", "median", "min", "max", "vs_std", "difference", "seeds_difference", "detectable", "best",
    "worst", "spread", "seed_sd", "score", "sd_draw", "sd_seed", "sd_rest", "in_budget", "before", "published", "ours",
    "estimate", *(f"best_{k}" for k in (1, 2, 5, 10, 20, 50)),
})  # fmt: skip
#: shown to people only where some row has a value
_OPTIONAL = frozenset({"bad", "aso", "correlation", "flops"})


def cell_text(row: Row, key: str, gap: str = " ") -> str:
    """One value as people read it, its interval behind ``gap``: ``+0.012 [-0.003, +0.027]``."""
    value, fold = plain(row.get(key)), FOLDS.get(key)
    if fold and fold.low in row:
        return _folded(row, key, value, fold, gap)
    if value is None:
        return "all" if key == "train_size" else DASH
    if key in HUMAN:
        return HUMAN[key](value)
    if key == "metric":
        return metric_name(str(value))
    return _unit(row, key, number)(value) if isinstance(value, float) else str(value)


def _unit(row: Row, key: str, usual: Callable[[float], str]) -> Callable[[float], str]:
    """How a score is written: as usual, or in hundredths."""
    if not (key in _SCORES and row.get("metric") in ROUGE) and _metric_of(key) not in ROUGE:
        return usual
    return signed_hundredths if usual is signed else hundredths


def _metric_of(key: str) -> str:
    """Of a column that holds one metric of one split: ``rouge1``, ``test_rouge1``."""
    return key.rpartition("_")[2]


def _folded(row: Row, key: str, value: Any, fold: Fold, gap: str) -> str:
    """Without a value the verdict that says why, where it is hidden."""
    if value is None:
        return str(("verdict" in fold.hidden and row.get("verdict")) or DASH)
    low, high = plain(row.get(fold.low)), plain(row.get(fold.high))
    text = _unit(row, key, fold.text)
    interval = f"[{DASH}]" if low is None or high is None else f"[{text(low)}, {text(high)}]"
    return f"{text(value)}{gap}{interval}"


def people_columns(table: Table) -> list[Column]:
    """Without those that stand in another's cell, and those that no row has; labels of scores name their unit."""
    keys = {column.key for column in table.columns}
    hidden = {name for key, fold in FOLDS.items() if key in keys for name in (fold.low, fold.high, *fold.hidden)}
    empty = {key for key in _OPTIONAL & keys if all(row.get(key) is None for row in table.rows)}
    shown = [column for column in table.columns if column.key not in hidden | empty]
    return [
        replace(column, label=f"{column.label} x 100") if _metric_of(column.key) in ROUGE else column
        for column in shown
    ]


def several(n: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def plain(value: Any) -> Any:
    """NaN and infinities are None: JSON has no word for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def one_line(text: str) -> str:
    """Without line breaks and double blanks."""
    return " ".join(text.split())
