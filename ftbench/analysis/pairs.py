"""All pairs of a layer's examples in one product of matrices: nearest neighbours and the uniformity kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
#: rows whose distances to all the others are held at a time
ROWS = 512


@dataclass(frozen=True)
class Pairs:
    """nearest: (n, 2) distances to the nearest and the second nearest other example, 0 between twins
    kernel:  mean over pairs i < j of exp(-2 ||u_i - u_j||^2), u at length 1
    """

    nearest: Array
    kernel: float


def pairs(x: Array, rounding: float = 0.0) -> Pairs:
    """Of x (n, width) float64, two rows or more; squared distances up to ``rounding`` are 0.

    Distances come from centred rows, ||c_i - c_j||^2 = c_i^2 + c_j^2 - 2 c_i c_j, cosines from the same products and
    the mean: u_i u_j = (c_i c_j + c_i m + c_j m + m^2) / (|x_i| |x_j|). n^2 width operations, a few 512 x n numbers.
    """
    n, mean = len(x), x.mean(axis=0)
    centred = x - mean
    square, shift, length = np.square(centred).sum(1), centred @ mean + mean @ mean / 2, np.linalg.norm(x, axis=1)
    unit = (length > 0).astype(float)  # the squared norm of u: rows of zeros stay at 0
    scale = unit / np.where(length > 0, length, 1.0)
    nearest, kernel = np.full((n, 2), np.inf), 0.0
    for start in range(0, n, ROWS):
        own, here = slice(start, start + ROWS), slice(start, n)
        product = centred[own] @ centred[here].T  # (rows, n - start)
        rows = len(product)
        distance = square[own, None] + square[here]
        distance -= 2 * product
        distance[np.arange(rows), np.arange(rows)] = np.inf
        _keep_nearest(nearest[own], distance)
        _keep_nearest(nearest[start + rows :], distance[:, rows:].T)
        product += shift[own, None] + shift[here]  # now x_i x_j
        product *= 4 * scale[own, None] * scale[here]
        product -= 2 * (unit[own, None] + unit[here])
        value = np.exp(product, out=product)
        kernel += float((value[:, :rows].sum() - np.trace(value)) / 2 + value[:, rows:].sum())
    nearest = np.sqrt(np.where(nearest > rounding, nearest, 0.0))
    return Pairs(nearest, kernel / (n * (n - 1) / 2))


def _keep_nearest(nearest: Array, distance: Array) -> None:
    """Puts the two smallest of each row of ``nearest`` (m, 2) and ``distance`` (m, any) into ``nearest``."""
    if not len(distance):
        return
    rows, first = np.arange(len(distance)), distance.argmin(axis=1)
    least = distance[rows, first]
    distance[rows, first] = np.inf
    found = np.stack([least, distance.min(axis=1)], axis=1)
    distance[rows, first] = least
    nearest[:] = np.sort(np.concatenate([nearest, found], axis=1), axis=1)[:, :2]
