"""What pictures share: the forms that can be written, colours, writing the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftbench.errors import StoreError, UsageError, explain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
#: Okabe and Ito's palette, told apart by colour-blind eyes too
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
#: so that lines are told apart in grey, too
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def check_name(path: Path) -> None:
    """Makes the picture's folder. Raises UsageError for a file name that says no known form of picture, and StoreError
    where the folder cannot be made: before the work, not after it."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--figure '{path}': expected a name that ends in {', '.join(SUFFIXES)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder of {path}: {explain(error)}") from error


def write(figure: Figure, path: Path) -> None:
    """Raises StoreError where the file cannot be written."""
    try:
        figure.savefig(path, dpi=160, bbox_inches="tight")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {explain(error)}") from error
