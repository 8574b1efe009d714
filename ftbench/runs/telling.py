"""How a race stands, in words."""

from __future__ import annotations

from ftbench.runs.race import Race

WHY = {
    "clear": "the answer is clear",
    "rows": "more draws would not tell more: the rows are the limit",
    "units": "enough draws",
    "budget": "the time is used",
}


def standing_line(race: Race, elapsed: float, budget: float, sign: float) -> str:
    """``[2m10s of 20m] 3 draws: lora leads with 0.874, +1.2 points [-0.8, +3.2] over std; 5 in, 2 out``."""
    leader, first = race.leader, race.baseline
    text = f"{leader} leads with {sign * race.mean(leader):.3f}"
    gap = race.gap(leader, first) if leader != first else None
    if gap is not None:
        low, high = 100 * gap.estimate.low, 100 * gap.estimate.high
        text += f", {100 * gap.estimate.mean:+.1f} points [{low:+.1f}, {high:+.1f}] over {first}"
    rivals = [name for name in race.alive if name != leader]
    many = race.units(first)
    draws = f"{many} draw{'s' if many > 1 else ''}"
    return f"[{clock(elapsed)} of {clock(budget)}] {draws}: {text}; still in: {', '.join(rivals) or 'nobody else'}" + (
        f"; out: {len(race.out)}" if race.out else ""
    )


def clock(seconds: float) -> str:
    """``45s``, ``2m10s``, ``1h05m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
    return f"{minutes // 60}h{minutes % 60:02d}m"
