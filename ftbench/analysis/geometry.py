"""How a layer's examples lie around the origin and beside their neighbours, and the cards."""

from __future__ import annotations

import numpy as np

from ftbench.analysis.card import ANY, Card
from ftbench.analysis.layer import Layer, blocks, unit_rows


def anisotropy(layer: Layer) -> float:
    """Mean cosine of all pairs: (||sum u||^2 - sum ||u||^2) / (n (n - 1)); an example of zeros has cosine 0."""
    total, own = np.zeros(layer.width), 0.0
    for block in blocks(layer.x):
        unit = unit_rows(block)
        total += unit.sum(axis=0)
        own += float(np.square(unit).sum())
    return float((total @ total - own) / (layer.n * (layer.n - 1)))


def uniformity(layer: Layer) -> float:
    """log of the mean over pairs of exp(-2 ||u_i - u_j||^2)."""
    return float(np.log(layer.pairs.kernel))


def twonn(layer: Layer) -> float:
    """Slope through 0 of -log(1 - i/n) over the log of the i-th smallest r2/r1, the largest tenth left out.

    r1 and r2 are the distances to the nearest and second nearest other example; examples with a twin (r1 = 0) are
    left out. 0 where none is left, infinite where all ratios are 1.
    """
    nearest = layer.pairs.nearest
    ratios = np.sort(nearest[:, 1][nearest[:, 0] > 0] / nearest[:, 0][nearest[:, 0] > 0])
    kept = int(len(ratios) * 0.9)
    if not kept:
        return 0.0
    across, up = np.log(ratios[:kept]), -np.log1p(-np.arange(1, kept + 1) / len(ratios))
    return float(across @ up / (across @ across)) if across.any() else float("inf")


ANISOTROPY = Card(
    function=anisotropy,
    means="The mean cosine of two examples: 1 where all point one way.",
    formula="(||sum of u||^2 - sum of ||u||^2) / (n (n - 1)): all pairs, exactly, none sampled",
    range="-1/(n - 1) to 1",
    collapse="high",
    invariant=ANY - {"shift"},
    traps=(
        "A common mean alone makes it high, and pretrained language models have one: high is not collapsed, and "
        "without the mean it is about 0 in any layer. One or two outlier dimensions can make it."
    ),
    cite="Ethayarajh 2019, arXiv 1909.00512 (who samples pairs)",
    constant=1.0,
)

UNIFORMITY = Card(
    function=uniformity,
    means="How evenly the examples fill the sphere.",
    formula="log of the mean over pairs i < j of exp(-2 ||u_i - u_j||^2)",
    range="-8 to 0; about -4 where many directions are filled evenly",
    collapse="high",
    invariant=ANY - {"shift"},
    traps=(
        "Mostly anisotropy on another scale: where cosines differ little it is near 4 (anisotropy - 1). Of more than "
        "10,000 examples 10,000 are taken, by row number."
    ),
    cite="Wang, Isola 2020, arXiv 2005.10242",
)

TWONN = Card(
    function=twonn,
    means="The dimension of the surface that the examples lie on, from the two nearest neighbours of each.",
    formula="slope through 0 of -log(1 - i/n) over log(r2/r1) in rising order, the largest tenth left out",
    range="0 and up",
    collapse="low",
    invariant=ANY,
    traps=(
        "Too low in many dimensions (2,000 Gaussian examples of 20 give about 17, of 50 about 31), and it moves with n "
        "and with noise: compare at one n only. Nearly equal texts lower it; texts that occur twice are left out. Of "
        "more than 10,000 examples 10,000 are taken, by row number."
    ),
    cite="Facco et al. 2017, doi 10.1038/s41598-017-11873-y",
    examples=3,
)
