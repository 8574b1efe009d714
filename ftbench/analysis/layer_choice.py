"""Which layer nu chooses, and whether the data decide it: a recommendation, or the reason why there is none.

l* = argmin nu, the paper's rule. It is recommended only if none of these holds, looked at in this order:

floor     the labels tell no more than shuffled ones. nu / floor of each layer is compared with the smallest such ratio
          of all layers under each permutation, so that many layers do not make a signal; fewer than 1 in 20
          permutations may reach it. Needs 19 permutations. l* itself must pass, else it wins by its geometry alone
flat      the largest nu is less than 1.1 times the smallest: any layer does
open      the bootstrap does not decide: the middle 95 % of the resamples' l* span more than half of the layers, or
          more than three and more than a quarter of them. A resample in which every class is one row again and again
          has no spread and says nothing; where half of them are so, the classes are too small to tell.
          Resampling lowers nu, most where the floor is low, so each layer's resamples are first scaled to have
          its nu as their geometric mean: what is left is the spread
divided   argmin nu and argmin nu / floor lie more than one layer apart: what wins depends on how isotropic layers are

Only the first is a test with a known error rate. Where there is no recommendation, tune all layers, or trust a probe.
Layers count from 1, the lowest block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftbench.analysis.grouping import Array
from ftbench.analysis.variability import Variability

Verdict = Literal["recommended", "floor", "flat", "open", "divided"]
ALPHA = 0.05
FLAT = 1.1
NEAR = 1
#: a resampled nu of less than this times nu is rounding: its rows had no spread
NO_SPREAD = 1e-9


@dataclass(frozen=True)
class Choice:
    """l* and how sure it is.

    verdict:  why there is, or is not, a recommendation; ``reason`` says it in a sentence
    best:     l* = argmin nu, from 1; the lowest of equals
    best_ratio: argmin nu / floor, from 1
    signal:   (layers,) whether the layer's nu lies below the floor of all layers
    p_value:  share of permutations whose best layer is as good as the best one here, itself counted
    shares:   (layers,) share of the resamples that choose this layer
    low, high: the middle 95 % of the resamples' l*
    """

    verdict: Verdict
    reason: str
    best: int
    best_ratio: int
    signal: Array
    p_value: float
    shares: Array
    low: int
    high: int

    @property
    def layer(self) -> int | None:
        """The layer to use, or None where none is recommended."""
        return self.best if self.verdict == "recommended" else None


def choose(found: Variability) -> Choice:
    """l* with its spread, and the verdict of the rules above. Raises ValueError without resamples or with fewer than
    19 permutations."""
    permutations, layers = found.permuted.shape[1], len(found.nu)
    if permutations < 19 or not found.resampled.shape[1]:
        raise ValueError(
            f"{permutations} permutations, {found.resampled.shape[1]} resamples: expected 19 and 1 at least"
        )
    ratio = found.ratio
    best, best_ratio = int(np.argmin(found.nu)), int(np.argmin(ratio))
    smallest = found.over_floor(found.permuted).min(0)  # (permutations,) of all layers
    p_values = (1 + (smallest <= ratio[:, None]).sum(1)) / (1 + permutations)
    scaled, draws = _scaled(found), found.resampled.shape[1]
    few = 2 * scaled.shape[1] < draws
    chosen = np.arange(layers) if few else scaled.argmin(0)
    low, high = (int(v) for v in np.quantile(chosen, (0.025, 0.975), method="inverted_cdf"))
    shares = np.bincount(chosen, minlength=layers) / len(chosen)
    verdict, reason = _verdict(found.nu, p_values, best, best_ratio, low, high)
    if few and verdict not in ("floor", "flat"):
        without = draws - scaled.shape[1]
        reason = (
            f"the choice is open: in {without} of {draws} resamples every class is one row, so classes are too small"
        )
        verdict = "open"
    if verdict == "recommended":
        reason = f"layer {best + 1}: the lowest nu, below the floor; {shares[best]:.0%} of the resamples choose it"
    return Choice(
        verdict,
        reason,
        best + 1,
        best_ratio + 1,
        p_values <= ALPHA,
        float(p_values.min()),
        shares,
        low + 1,
        high + 1,
    )


def _scaled(found: Variability) -> Array:
    """The resampled nu (layers, kept) without the bias that resampling adds, of the resamples that have spread."""
    measured = np.isfinite(found.nu) & (found.nu > 0)  # others are collapsed, or without distances
    kept = (found.resampled > NO_SPREAD * np.abs(found.nu)[:, None])[measured].all(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0: a collapsed layer; inf - inf: one without distances
        logs = np.log(found.resampled[:, kept])
        shift = np.log(found.nu)[:, None] - logs.mean(1, keepdims=True)
    return np.where(np.isfinite(shift), np.exp(logs + np.where(np.isfinite(shift), shift, 0)), found.nu[:, None])


def _verdict(nu: Array, p_values: Array, best: int, best_ratio: int, low: int, high: int) -> tuple[Verdict, str]:
    """The first rule that holds; layers from 0 here."""
    layers, number = len(nu), best + 1
    if p_values.min() > ALPHA:
        return "floor", f"no layer separates the classes better than shuffled labels do (p = {p_values.min():.2f})"
    if p_values[best] > ALPHA:
        return "floor", (
            f"layer {number} has the lowest nu, but shuffled labels give it one as low (p = {p_values[best]:.2f}): "
            f"it wins by its geometry. Layer {best_ratio + 1} is furthest below its floor"
        )
    if nu.max() < FLAT * nu.min():
        return "flat", f"the curve is flat: the highest nu is {nu.max() / nu.min():.2f} times the lowest"
    if high - low + 1 > min(layers / 2, max(3, layers / 4)):
        return "open", f"the choice is open: the middle 95 % of the resamples choose layers {low + 1} to {high + 1}"
    if abs(best - best_ratio) > NEAR:
        return "divided", (
            f"nu chooses layer {number}, nu over its floor layer {best_ratio + 1}: the answer depends on how "
            "isotropic the layers are"
        )
    return "recommended", ""
