"""How far has it collapsed? The table of metrics of one layer, and all of them for all layers in one pass.

``collapse(features, reference)`` gives the rows of a table, ``measure("gm_10", x)`` one number. What each number
means and how it misleads is said on its card. Between two runs of different seeds: ``collapse(one, other, SIMILARITY)``
and ``similarity.disagreement``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftbench.analysis import classes, geometry, similarity, spectrum
from ftbench.analysis.card import Card
from ftbench.analysis.layer import Layer
from ftbench.errors import UsageError
from ftbench.lookup import find
from ftbench.types.features import Features

Array = np.ndarray[Any, Any]

COLLAPSE: dict[str, Card] = {
    "gm_5": spectrum.gm(5),
    "gm_10": spectrum.gm(10),
    "gm_20": spectrum.gm(20),
    "gm_5_top": spectrum.gm(5, "top"),
    "gm_10_top": spectrum.gm(10, "top"),
    "gm_20_top": spectrum.gm(20, "top"),
    "gm_5_trace": spectrum.gm(5, "trace"),
    "gm_10_trace": spectrum.gm(10, "trace"),
    "gm_20_trace": spectrum.gm(20, "trace"),
    "hm_5": spectrum.hm(5),
    "hm_10": spectrum.hm(10),
    "hm_20": spectrum.hm(20),
    "hm_5_top": spectrum.hm(5, "top"),
    "hm_10_top": spectrum.hm(10, "top"),
    "hm_20_top": spectrum.hm(20, "top"),
    "hm_5_trace": spectrum.hm(5, "trace"),
    "hm_10_trace": spectrum.hm(10, "trace"),
    "hm_20_trace": spectrum.hm(20, "trace"),
    "effective_rank": spectrum.EFFECTIVE_RANK,
    "rankme": spectrum.RANKME,
    "participation_ratio": spectrum.PARTICIPATION_RATIO,
    "isoscore": spectrum.ISOSCORE,
    "stable_rank": spectrum.STABLE_RANK,
    "anisotropy": geometry.ANISOTROPY,
    "uniformity": geometry.UNIFORMITY,
    "twonn": geometry.TWONN,
    "cka": similarity.CKA,
    "cka_debiased": similarity.CKA_DEBIASED,
    "ridge_r2": similarity.RIDGE_R2,
    "nc1": classes.NC1,
    "nc1_trace": classes.NC1_TRACE,
    "alignment": classes.ALIGNMENT,
}

#: what compares two networks, and so two runs too
SIMILARITY: tuple[str, ...] = ("cka", "cka_debiased", "ridge_r2")

_NEEDS = {"labels": "class labels (whole numbers)", "reference": "the features of the network to compare with"}


def collapse(
    features: Features, reference: Features | None = None, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """A row {layer (from 1), metric, value} for every layer, lowest first, and metric, in the order given.

    names: by default all of ``COLLAPSE`` that the data permit: those against ``reference`` (the pretrained network on
    the same examples) where it is given, those of classes where labels are whole numbers.

    Raises UsageError for an unknown name, too few examples or classes, values that are not finite (naming layer and
    example), and a reference with other layers or examples.
    """
    has_classes = features.labels.dtype.kind in "iub"
    if names is None:
        given = {"reference": reference is not None, "labels": has_classes, "": True}
        names = [name for name, card in COLLAPSE.items() if given[card.needs]]
    if reference is not None and reference.hidden.shape[:2] != features.hidden.shape[:2]:
        raise UsageError(
            f"the reference has (layers, examples) {reference.hidden.shape[:2]}, expected {features.hidden.shape[:2]}: "
            "compare the same examples in networks of the same depth"
        )
    rows = []
    for number in range(features.layers):
        against = (
            Layer(reference.hidden[number], name=f"reference, layer {number + 1}") if reference is not None else None
        )
        layer = Layer(features.hidden[number], features.labels if has_classes else None, against, f"layer {number + 1}")
        rows += [{"layer": number + 1, "metric": name, "value": _value(name, layer)} for name in names]
    return rows


def measure(name: str, x: Array, labels: Array | None = None, reference: Array | None = None) -> float:
    """One metric of one layer's features x (examples, width); ``reference`` is the other network's.

    Raises UsageError as ``collapse``.
    """
    other = None if reference is None else Layer(np.asarray(reference), name="reference")
    return _value(name, Layer(np.asarray(x), labels, other))


def _value(name: str, layer: Layer) -> float:
    card = find(COLLAPSE, name, "collapse metric")
    if layer.n < card.examples:
        raise UsageError(f"{layer.name}: {name} needs at least {card.examples} examples, got {layer.n}")
    if layer.width < card.width:
        raise UsageError(f"{layer.name}: {name} needs a width of at least {card.width}, got {layer.width}")
    if card.needs and getattr(layer, card.needs) is None:
        raise UsageError(f"{layer.name}: {name} needs {_NEEDS[card.needs]}")
    return card.function(layer)
