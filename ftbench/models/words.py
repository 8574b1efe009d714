"""What becomes of the word embeddings that one stack of a network looks up in a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

#: embeddings (rows, tokens, width) -> embeddings of the same shape
Transform = Callable[[Tensor], Tensor]


@dataclass
class Lookup:
    """transform: changes the embeddings of this pass. keep: hold them for a pass that reuses them, in ``kept``.
    met: whether this pass has come here; a table that is looked up again later in the pass is another's business."""

    transform: Transform | None = None
    keep: bool = False
    met: bool = False
    kept: Tensor | None = None

    def begin(self, transform: Transform | None, *, reuse: bool, skipped: bool = False) -> None:
        """Before a pass. skipped: it begins behind the embeddings."""
        if not reuse:
            self.kept = None
        self.transform, self.met = transform, skipped

    def __call__(self, embeddings: Tensor) -> Tensor:
        """What the pass goes on with."""
        self.met = True
        if self.kept is not None:
            embeddings = self.kept
        elif self.keep:
            self.kept = embeddings
        return embeddings if self.transform is None else self.transform(embeddings)

    def release(self) -> None:
        """Keeps nothing any more."""
        self.keep, self.kept = False, None
