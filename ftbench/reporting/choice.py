"""What ``ftbench choose`` says: a choice in sentences that a newcomer can act on. A point is a hundredth of the
metric."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftbench.reporting.intervals import percentile_interval, wilson
from ftbench.reporting.predictions import read_columns
from ftbench.reporting.resample import WEIGHTED, resampled
from ftbench.reporting.words import memory
from ftbench.types import Choice, CurvePoint, Record, Standing

#: an interval of the test score wider than this, in points, says little
WIDE = 20
RESAMPLES = 2000


@dataclass(frozen=True)
class Tested:
    """The score of the chosen model on the test part, with a 95 % interval over further rows of the same kind; the ends
    are None where it cannot be had. by_label: for each label its rows and the share that was right."""

    score: float
    low: float | None
    high: float | None
    rows: int
    by_label: tuple[tuple[str, int, float], ...] = ()


def tested(choice: Choice, final: Record, selection: str) -> Tested:
    """Wilson's interval of an accuracy, the bootstrap's of another metric. It is of this very model: no seed varies."""
    score = final.result.score(choice.metric, selection)
    assert score is not None
    column = "prediction" if selection == "last" else selection
    columns = read_columns(final, ("example", "label", column))
    rows = choice.rows["test"]
    if columns is None:
        return Tested(score, None, None, rows)
    right = columns["label"] == columns[column]
    by_label = tuple(
        (name, int(here.sum()), float(right[here].mean()))
        for number, name in enumerate(choice.labels)
        if (here := columns["label"] == number).any()
    )
    if choice.metric == "accuracy":
        return Tested(score, *wilson(int(right.sum()), rows), rows, by_label)
    if choice.metric not in WEIGHTED:
        return Tested(score, None, None, rows, by_label)
    generator = np.random.default_rng(0)
    drawn = resampled(choice.metric, columns[column][None], columns["label"], generator, RESAMPLES)[0]
    return Tested(score, *percentile_interval(drawn), rows, by_label)


def sentences(choice: Choice, found: Tested, final: Record) -> list[str]:
    """The page in short, the answer first."""
    said = [verdict(choice), _score(choice, found), *_others(choice), _cost(choice, final)]
    return [sentence for sentence in (*said, labels(choice), _why(choice)) if sentence]


def verdict(choice: Choice) -> str:
    """What to use, and the reason in half a sentence."""
    chosen, default = choice.standing(choice.choice), choice.default
    if choice.choice == default:
        return f"Use {default}: plain fine-tuning. Nothing that was tried is reliably better{_best_of(choice)}."
    if choice.choice == choice.base:
        frozen = f"Do not fine-tune: logistic regression on the frozen features ({chosen.name}) is"
        most = -(chosen.low or 0.0)  # by which std may be ahead
        if most <= 0:
            return f"{frozen} better than {default} by {_interval(chosen)} points."
        return f"{frozen} as good: {default} is ahead by {_points(most)} points at most."
    return f"Use {chosen.name}: it is better than {default} by {_interval(chosen)} points."


def _best_of(choice: Choice) -> str:
    others = [one for one in choice.standings if one.gain is not None and one.low is not None and not _is_same(one)]
    if not others:
        return ""
    best = max(others, key=lambda one: one.gain or 0.0)
    if (best.gain or 0.0) <= 0:
        return f"; the next one, {best.name}, is behind by {_points(-(best.gain or 0.0))} points"
    return f"; the best of it, {best.name}, is ahead by {_interval(best)} points, which may be chance"


def _score(choice: Choice, found: Tested) -> str:
    interval = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    text = (
        f"On {found.rows:,} test rows that nothing was chosen by it scores {choice.metric} {found.score:.3f}{interval}"
    )
    if choice.majority is not None:
        text += f"; always answering the commonest label scores {choice.majority:.3f}"
    if found.low is not None and found.high is not None and 100 * (found.high - found.low) > WIDE:
        text += ". That is a wide interval: more test rows would narrow it"
    if choice.scored > 1:
        text += f". The test part has been scored {choice.scored} times by now, for other choices: it may flatter"
    return text + "."


def _others(choice: Choice) -> list[str]:
    """What could not be told apart from the choice, what was dropped, what there was no time for."""
    rest = [one for one in choice.standings if one.name not in (choice.choice, choice.default)]
    kept = sorted((one for one in rest if not one.out and one.units), key=lambda one: -(one.gain or 0))
    untried = [one for one in rest if not one.units]
    dropped = [one for one in rest if one.out and one.units]
    said = []
    for what, those in (
        ("Not told apart", [one for one in kept if not _is_behind(one)]),
        ("Behind", [one for one in kept if _is_behind(one)]),
    ):
        if those:
            names = ", ".join(f"{one.name} ({_interval(one)})" for one in those)
            said.append(f"{what} (points over {choice.default}): {names}.")
    if dropped:
        why = (f"{one.name}, {f'always {choice.default} itself' if _is_same(one) else one.out}" for one in dropped)
        said.append("Dropped on the way: " + "; ".join(why) + ".")
    if untried:
        said.append(f"There was no time to try {', '.join(one.name for one in untried)}: a larger --budget would.")
    return said


def _is_behind(one: Standing) -> bool:
    return one.high is not None and one.high < 0


def _is_same(one: Standing) -> bool:
    """As layers that are measured, and found not to matter."""
    return one.low == one.high == 0


def _cost(choice: Choice, final: Record) -> str:
    cost, serving = final.cost, choice.serving
    took = cost.wall_seconds or cost.process_seconds
    shown = f"{took:.0f} s" if took >= 1 else "less than a second"
    text = f"Training it takes {shown} and {memory(cost.peak_memory)} of memory" if cost.peak_memory else (
        f"Training it takes {shown}"
    )  # fmt: skip
    if serving:
        text += (
            f"; using it takes {serving['milliseconds']:.1f} ms for one text, {serving['per_second']:,.0f} texts a "
            f"second in batches, {serving['parameters'] / 1e6:.1f} M parameters, {serving['bytes'] / 1e6:.0f} MB"
        )
    return text + f" (measured on this machine, {cost.device or 'cpu'})."


def labels(choice: Choice) -> str:
    """What more labels would bring, from the last doubling of the rows; empty where that was not measured."""
    names = dict.fromkeys(point.name for point in choice.curve)
    lines = [[point for point in choice.curve if point.name == name][-2:] for name in names]
    said = [_doubling(line[0].rows, line[-1], choice) for line in lines if line[-1].gain is not None]
    return f"More labels: {'; '.join(said)}." if said else ""


def _doubling(half: int, point: CurvePoint, choice: Choice) -> str:
    gain, low, high = point.gain or 0.0, point.low or 0.0, point.high or 0.0
    what = f"from {half:,} to {point.rows:,} rows {point.name} gained {_points(gain, signed=True)} points"
    what += _ends(point.low, point.high)
    if low > choice.margin:
        return f"{what}, so labelling more is worth it"
    if high < choice.margin:
        return f"{what}, so more labels of this kind will bring little"
    return f"{what}: {point.units} draws do not say whether twice as many labels would help"


def _why(choice: Choice) -> str:
    reasons = {
        "clear": "The race ended because the answer was clear",
        "rows": "The race ended early: more draws would not tell the rest apart, only more rows would",
        "units": "The race ended because every candidate had as many draws as it may",
        "budget": "The race ended with the time",
    }
    default = choice.standing(choice.default)
    nothing = f"; less than {_amount(100 * choice.margin)} is taken for nothing" if choice.margin else ""
    return (
        f"{reasons[choice.why]}, after {default.units} draws: each trains on {choice.rows['train']:,} rows and scores "
        f"{choice.rows['held']:,} others. Another way replaces {choice.default} only where a 95 % interval over draws "
        f"and rows, corrected for the number of candidates, says that it is better{nothing}."
    )


def _interval(one: Standing) -> str:
    return f"{_points(one.gain or 0.0, signed=True)}{_ends(one.low, one.high)}"


def _ends(low: float | None, high: float | None) -> str:
    """The interval, where it says anything: of two draws it can be wider than the scores' whole range."""
    if low is None or high is None or high - low > 1:
        return ""
    return f" [{_points(low, signed=True)}, {_points(high, signed=True)}]"


def _amount(points: float) -> str:
    return "a point" if points == 1 else f"{points:g} points"


def _points(value: float, *, signed: bool = False) -> str:
    rounded = round(100 * value, 1) + 0.0
    return f"{rounded:+.1f}" if signed else f"{rounded:.1f}"
