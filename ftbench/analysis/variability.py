"""Hidden-state variability nu: how much rows of one class differ, against how far classes lie apart, layer by layer.

    nu = 1/C tr(Sigma_w pinv(Sigma_b))                                  lower: the layer separates the classes better
    Sigma_w = 1/C sum_c 1/n_c sum_{h in c} (h - m_c)(h - m_c)^T         m_c the class mean
    Sigma_b = 1/C sum_c (m_c - m)(m_c - m)^T                            m the unweighted mean of the class means

Xie, Qiu, Pasad, Du, Qu, Mei: Hidden State Variability of Pretrained Language Models Can Guide Computation Reduction for
Transfer Learning. Findings of EMNLP 2022, arXiv 2210.10041, eq. 3; h is the mean over a text's ordinary tokens in the
network before any tuning. Classes weigh equally (``weighting=class``). ``weighting=sample`` is NC1 of Papyan et al.
(PNAS 2020): Sigma_w over rows, m the mean of all rows; the same where classes are of one size.

With two classes nu = 2 / d'^2, d' the distance of the means in within-class standard deviations along their difference.
nu does not change under rotation, shift and scaling of all dimensions at once, but it does under scaling of single
ones: so layers of one network compare, networks do not.

The trap: with labels that say nothing nu is not infinite but about n (C - 1) / PR, n rows a class and PR the
participation ratio of Sigma_w. So a layer can win only because its states point in more directions. Therefore nu stands
beside nu under permuted labels, the same permutations for all layers.

Where paper and released code (shuox20/variability-efficient-tuning, commit 2f93e53) differ: the code works in float32
with the full pseudo-inverse, which drops directions below width x eps of the largest, 1.2e-4 at width 1024
(``dtype=paper``); the pseudo-inverse of identical means is 0, which makes the best layer of the worst (here: inf); it
keeps classes of one row, whose spread is 0 (here: dropped). Its first commit marked another weighting as the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftbench.analysis.grouping import Array, Classes, check_finite, classes_of
from ftbench.analysis.moments import moments_of
from ftbench.analysis.thin import Thin, redrawn, thin
from ftbench.types import Features

Weighting = Literal["class", "sample"]
Precision = Literal["fp64", "paper"]


@dataclass(frozen=True)
class Variability:
    """nu of every layer, lowest first, and what it must be read beside.

    nu:            (layers,); inf where the class means are the same
    permuted:      (layers, permutations) nu under permuted labels: the floor
    resampled:     (layers, resamples) nu of rows drawn with replacement within each class
    participation: (layers,) participation ratio of Sigma_w, from 1 to the width
    rank, condition: (layers,) of Sigma_b: its rank, at most C - 1, and s_1 / s_r of its factor
    """

    nu: Array
    permuted: Array
    resampled: Array
    participation: Array
    rank: Array
    condition: Array
    classes: Classes

    @property
    def floor(self) -> Array:
        """(layers,) mean nu under permuted labels; NaN without permutations."""
        if not self.permuted.shape[1]:
            return np.full(len(self.nu), np.nan)
        return np.asarray(self.permuted.mean(1))

    @property
    def ratio(self) -> Array:
        """(layers,) nu / floor: below 1 the labels tell something, near 1 they do not."""
        return self.over_floor(self.nu[:, None])[:, 0]

    def over_floor(self, nu: Array) -> Array:
        """nu (layers, k) over each layer's floor; 1 where the floor is infinite, so nothing can be told."""
        floor = np.broadcast_to(self.floor[:, None], nu.shape)
        return np.divide(nu, floor, out=np.ones(nu.shape), where=~np.isinf(floor))


def variability(
    features: Features,
    *,
    weighting: Weighting = "class",
    dtype: Precision = "fp64",
    permutations: int = 20,
    resamples: int = 100,
    seed: int = 0,
) -> Variability:
    """nu of every layer with its floor and its bootstrap; layers are read in chunks, so ``hidden`` may lie on disk.

    Permutations and resamples are drawn once, from ``seed``, and shared by the layers. ``dtype=paper`` changes nu
    itself only; the floor and the resamples stay in float64.

    Raises UsageError for targets of a regression, fewer than two classes with two rows, and a state that is not finite.
    """
    classes = classes_of(features.labels)
    check_finite(features.hidden)
    permuted, resampled = permute(classes, permutations, seed), resample(classes, resamples, seed)
    once = np.ones((permutations, len(classes.rows)), dtype=np.uint8)
    found, floors, redraws, spread = [], [], [], []
    for hidden in features.hidden:
        own = thin(hidden, classes, weighting)
        found.append(own if dtype == "fp64" else Thin(nu_paper(hidden, classes, weighting), own.rank, own.condition))
        floors.append(redrawn(hidden, classes, permuted, once, weighting))
        redraws.append(redrawn(hidden, classes, np.broadcast_to(classes.ids, resampled.shape), resampled, weighting))
        spread.append(moments_of(hidden, classes, weighting).participation())
    return Variability(
        np.array([one.nu for one in found]),
        np.stack(floors),
        np.stack(redraws),
        np.array(spread),
        np.array([one.rank for one in found]),
        np.array([one.condition for one in found]),
        classes,
    )


def nu(hidden: Array, labels: Array, *, weighting: Weighting = "class", dtype: Precision = "fp64") -> float:
    """nu of one layer: hidden (examples, width), labels (examples,). Raises what ``variability`` raises."""
    classes = classes_of(labels)
    check_finite(hidden[None])
    return thin(hidden, classes, weighting).nu if dtype == "fp64" else nu_paper(hidden, classes, weighting)


def permute(classes: Classes, permutations: int, seed: int) -> Array:
    """Class numbers in other orders, (permutations, n)."""
    generator = np.random.Generator(np.random.PCG64([seed, 0]))
    return generator.permuted(np.tile(classes.ids.astype(np.int32), (permutations, 1)), axis=1)


def resample(classes: Classes, resamples: int, seed: int) -> Array:
    """How often each row is drawn, (resamples, n): each class keeps its size."""
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    counts = np.zeros((resamples, len(classes.rows)), dtype=np.uint16)
    for number, n in enumerate(classes.counts):
        members = np.flatnonzero(classes.ids == number)
        for row in counts:
            row[members] = np.bincount(generator.integers(0, n, n), minlength=n)
    return counts


def nu_paper(hidden: Array, classes: Classes, weighting: Weighting = "class") -> float:
    """nu as the authors compute it: float32, class covariances, the full pseudo-inverse with torch's cut.

    The matrices are (width, width) and the whole layer is in memory.
    """
    import torch

    x, ids = torch.from_numpy(np.asarray(hidden[classes.rows], dtype=np.float32)), torch.from_numpy(classes.ids)
    of_class = [x[ids == number] for number in range(len(classes))]
    shares = torch.from_numpy(classes.shares(weighting)).float()
    within = sum(share * torch.cov(rows.T, correction=0) for share, rows in zip(shares, of_class, strict=True))
    means = torch.stack([rows.mean(0) for rows in of_class])
    apart = means - shares @ means
    between = apart.T @ apart / len(classes)
    if not bool(apart.any()):
        return float("inf")
    return float(torch.trace(within @ torch.linalg.pinv(between)) / len(classes))
