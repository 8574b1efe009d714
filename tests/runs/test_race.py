"""What a race decides, on scores made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ftbench.errors import UsageError
from ftbench.runs.answer import standing
from ftbench.runs.race import FAILED, NO_TIME, UNTRIED, Race, Rules, Scored

ROWS = 400


def scored(score: float, seconds: float = 10.0, noise: float = 0.0, seed: int = 0) -> Scored:
    """A score whose resamples differ by ``noise``."""
    return Scored(score, score + noise * np.random.default_rng(seed).normal(size=50), seconds)


def race_of(means: dict[str, float], units: int = 6, *, noise: float = 0.003, floor: str = "", **rules: float) -> Race:
    """Candidates around their means over units; ``noise`` is a unit's, the same resamples for all."""
    race = Race(list(means), Rules(**rules), floor, ROWS)  # type: ignore[arg-type]
    generator = np.random.default_rng(1)
    for name, mean in means.items():
        for unit in range(units):
            race.add(name, unit, scored(mean + noise * generator.normal(), noise=noise, seed=unit))
    return race


def test_the_default_is_chosen_where_nothing_is_reliably_better() -> None:
    assert race_of({"std": 0.8, "a": 0.803, "b": 0.79}, noise=0.02).choice == "std"


def test_what_is_reliably_better_is_chosen() -> None:
    race = race_of({"std": 0.8, "a": 0.85, "b": 0.79})
    assert race.choice == race.leader == "a" and race.beats("a", "std")


def test_a_single_challenger_is_not_chosen_where_the_interval_that_is_shown_holds_0() -> None:
    """One-sided at 5 % it would be: its 90 % interval lies above 0."""
    gains = [0.0002 * i for i in range(60)]
    races = [race_of({"std": 0.8, "a": 0.8 + gain}, noise=0.003) for gain in gains]
    lows = [[gap.estimate.low for level in (0.9, 0.95) if (gap := race.gap("a", "std", level))] for race in races]
    between = [race for race, (narrow, wide) in zip(races, lows, strict=True) if wide <= 0 < narrow]
    assert between and {race.choice for race in between} == {"std"}
    assert {race.choice for race, (_, wide) in zip(races, lows, strict=True) if wide > 0} == {"a"}


def test_better_than_the_default_is_not_enough_where_linear_is_better_than_both() -> None:
    race = race_of({"std": 0.7, "linear": 0.85, "a": 0.75}, floor="linear")
    assert race.base == race.choice == "linear"


def test_linear_is_the_base_only_where_std_is_shown_to_gain_less_than_the_margin() -> None:
    assert race_of({"std": 0.801, "linear": 0.8}, floor="linear", noise=0.001).base == "linear"
    assert race_of({"std": 0.84, "linear": 0.8}, floor="linear", noise=0.001).base == "std"
    assert race_of({"std": 0.801, "linear": 0.8}, floor="linear", noise=0.05).base == "std"  # nobody can tell
    assert race_of({"std": 0.801, "linear": 0.8}, 2, floor="linear", noise=0.001).base == "std"  # too early to tell


def test_those_that_are_ruled_out_are_dropped_and_the_reason_is_said() -> None:
    race = race_of({"std": 0.8, "close": 0.8, "far": 0.7, "good": 0.9})
    assert set(race.drop()) == {"close", "far"}
    assert race.out["far"] == "at most 0.0 points better than good"
    assert race.alive == ["std", "good"] and race.drop() == []


def test_nobody_is_dropped_before_the_first_units() -> None:
    assert race_of({"std": 0.8, "far": 0.2}, 2).drop() == []


def test_the_default_and_linear_are_never_dropped() -> None:
    race = race_of({"std": 0.2, "linear": 0.1, "a": 0.9}, floor="linear")
    race.drop()
    assert {"std", "linear"} <= set(race.alive)


def test_a_candidate_that_failed_is_out_and_a_default_that_failed_ends_the_race() -> None:
    race = race_of({"std": 0.8, "linear": 0.7, "a": 0.8}, floor="linear")
    race.fail("a", "diverged")
    race.fail("linear", "broken")
    assert race.alive == ["std"] and race.floor == "" and race.base == "std"
    with pytest.raises(ValueError, match="no room"):
        race.fail("std", "no room")


def test_a_candidate_that_failed_or_was_dropped_is_never_the_choice() -> None:
    race = race_of({"std": 0.8, "linear": 0.7, "a": 0.9}, floor="linear")
    assert race.choice == "a"
    race.fail("a", "failed: diverged on the seventh draw")
    assert race.choice == "std"
    race = race_of({"std": 0.8, "linear": 0.9}, floor="linear")
    race.fail("linear", "broken")
    assert race.choice == "std"
    race = race_of({"std": 0.8, "a": 0.9, "b": 0.85})
    race.drop()
    assert "b" in race.out and race.choice == "a"
    for unit in range(6, 12):
        race.add("std", unit, scored(0.8))
        race.add("a", unit, scored(0.6))
    assert race.beats("b", "std") and race.choice == "std"


def test_the_draws_that_a_failed_candidate_survived_are_no_difference() -> None:
    race = race_of({"std": 0.8, "a": 0.9, "b": 0.9})
    race.fail("a", f"{FAILED}: diverged on the seventh draw")
    assert standing(race, "a", 1.0).gain is None and standing(race, "a", 1.0).units == 6
    assert standing(race, "b", 1.0).gain == pytest.approx(0.1, abs=0.01)


def test_one_that_there_was_no_time_left_for_may_be_the_choice() -> None:
    race = race_of({"std": 0.8, "a": 0.9})
    race.out["a"] = f"{NO_TIME} to judge it"
    assert race.choice == "a"


def test_draws_that_are_easy_for_all_are_no_lead() -> None:
    """``few`` has the easy draws only, and a higher mean by that; ``many`` is further ahead on the draws it shares."""
    race = Race(["std", "few", "many"], rows=ROWS)
    for unit in range(8):
        easy = 0.9 if unit < 3 else 0.7
        leads = {"std": 0.0, "many": 0.05} | ({"few": 0.03} if unit < 3 else {})
        for name, lead in leads.items():
            race.add(name, unit, scored(easy + lead + 1e-4 * (unit % 3), noise=0.001, seed=unit))
    assert race.mean("few") > race.mean("many")
    assert race.beats("few", "std") and race.beats("many", "std")
    assert race.choice == race.leader == "many"


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), -0.01])
def test_a_margin_is_a_number_of_points(margin: float) -> None:
    with pytest.raises(UsageError, match="margin"):
        Rules(margin=margin)


def test_the_default_goes_first_then_all_get_their_first_units() -> None:
    race = Race(["std", "linear", "a", "b"], floor="linear", rows=ROWS)
    assert race.next(1000) == [("std", 0), ("linear", 0)]
    race.add("std", 0, scored(0.8))
    race.add("linear", 0, scored(0.8, 1.0))
    assert {name for name, unit in race.next(1000) if unit == 0} == {"a", "b"}


def test_candidates_that_there_is_no_time_for_are_left_out_the_last_ones_first() -> None:
    race = Race(["std", "a", "b", "c"], rows=ROWS)
    race.add("std", 0, scored(0.8, 10.0))
    race.next(120)  # half of it: two more of std, three of a
    assert race.out == {"b": UNTRIED, "c": UNTRIED}


def test_a_dear_candidate_is_known_to_be_so_before_it_ran() -> None:
    race = Race(["std", "dear", "cheap"], ratios={"dear": 5.0}, rows=ROWS)
    race.add("std", 0, scored(0.8, 10.0))
    assert race.seconds("dear") == 50 and race.seconds("cheap") == 10


def test_with_several_at_once_there_is_time_for_more() -> None:
    def out(jobs: int) -> int:
        race = Race(["std", "a", "b", "c"], rows=ROWS)
        race.add("std", 0, scored(0.8, 10.0))
        race.next(120, jobs)
        return len(race.out)

    assert out(1) == 2 and out(2) == 0


def test_a_round_without_time_for_all_goes_to_the_best() -> None:
    race = race_of({"std": 0.8, "a": 0.79, "b": 0.81}, 3, noise=0.05)
    assert race.next(25) == [("std", 3), ("b", 3)]
    assert race.next(5) == [] and race.why_over == "budget"


def test_the_race_ends_when_the_answer_is_clear() -> None:
    race = race_of({"std": 0.8, "a": 0.9, "b": 0.7})
    race.drop()
    assert race.next(1e6) == [] and race.why_over == "clear"


def test_an_answer_for_want_of_time_is_not_called_clear() -> None:
    race = race_of({"std": 0.8}, 3)
    race.candidates = ["std", "a"]
    race.out["a"] = UNTRIED
    assert race.next(20) == [] and race.why_over == "budget"


def test_time_that_is_left_goes_to_those_that_the_opening_left_out() -> None:
    race = race_of({"std": 0.8, "worse": 0.7}, 3)
    race.candidates, race.ratios = ["std", "worse", "a", "dear", "b", "c"], {"dear": 9.0}
    race.out |= dict.fromkeys(["a", "dear", "b", "c"], UNTRIED)
    assert race.drop() == ["worse"]
    assert race.next(70) == [("a", 0), ("b", 0)], "three runs of ten seconds each, and none of what takes ninety"
    assert set(race.out) == {"worse", "dear", "c"}
    for unit in range(3):
        race.add("a", unit, scored(0.7, noise=0.003, seed=unit))
        race.add("b", unit, scored(0.9, noise=0.003, seed=unit))
    race.drop()
    assert race.choice == "b" and race.next(25) == [] and race.why_over == "budget"


def test_half_of_the_time_is_kept_for_those_that_are_undecided() -> None:
    def taken_back(left: float) -> set[str]:
        race = race_of({"std": 0.8, "a": 0.805}, 3, noise=0.02)
        race.candidates = ["std", "a", "b", "c"]
        race.out |= dict.fromkeys(["b", "c"], UNTRIED)
        race.next(left)
        return {"b", "c"} - set(race.out)

    assert (taken_back(50), taken_back(70), taken_back(130)) == (set(), {"b"}, {"b", "c"})


def test_the_race_ends_when_more_draws_would_not_tell_more() -> None:
    """The rows' part of the variance stays, however many draws there are."""
    race = Race(["std", "a"], rows=ROWS)
    resample = 0.02 * np.random.default_rng(0).normal(size=400)
    for unit in range(8):
        race.add("std", unit, Scored(0.8, np.full(400, 0.8), 1.0))
        race.add("a", unit, Scored(0.805 + 1e-4 * unit, 0.805 + resample, 1.0))
    assert race.next(1e6) == [] and race.why_over == "rows"


def test_units_are_counted() -> None:
    race = race_of({"std": 0.8, "a": 0.801}, 4, noise=0.05, most=4)
    assert race.next(1e6) == [] and race.why_over == "units"


def test_a_gap_is_over_shared_units_and_is_one_of_them() -> None:
    race = race_of({"std": 0.8, "a": 0.9}, 4)
    race.add("a", 9, scored(0.0))
    gap = race.gap("a", "std")
    assert gap is not None and gap.units == 4 and gap.estimate.low < 0.1 < gap.estimate.high
    assert race.gap("a", "nobody") is None
