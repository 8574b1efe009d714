"""What becomes of the word embeddings that one stack of a network looks up in a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: embeddings (rows, tokens, width) -> embeddings of the same shape
Transform = Callable[[Tensor], Tensor]


@dataclass
class Lookup:
    """transform: changes the embeddings of this pass, whose words are ``ids`` (rows, tokens). keep: hold them for a
    pass that reuses them, in ``kept``. met: whether this pass has come here; a table that is looked up again later in
    the pass is another's business."""

    transform: Transform | None = None
    keep: bool = False
    met: bool = False
    kept: Tensor | None = None
    ids: Tensor | None = None

    def begin(self, transform: Transform | None, ids: Tensor, *, reuse: bool, skipped: bool = False) -> None:
        """Before a pass. skipped: it begins behind the embeddings."""
        if not reuse:
            self.kept = None
        self.transform, self.ids, self.met = transform, ids, skipped

    def __call__(self, embeddings: Tensor, looked_up: Tensor) -> Tensor:
        """What the pass goes on with. looked_up: the words as the network has them, see ``by_rows``."""
        if self.met:
            return embeddings
        self.met = True
        if self.kept is not None:
            embeddings = self.kept
        elif self.keep:
            self.kept = embeddings
        if self.transform is None or self.ids is None:
            return embeddings
        return by_rows(self.transform, embeddings, looked_up, self.ids)

    def release(self) -> None:
        """Keeps nothing any more."""
        self.keep, self.kept = False, None


def by_rows(change: Transform, embeddings: Tensor, looked_up: Tensor, ids: Tensor) -> Tensor:
    """``change`` of the embeddings of ``ids``, where a network may have looked up something else: the same the other
    way round (XLNet's come tokens first), or with padding behind (Longformer's windows), which stays, without gradient.
    """
    rows, tokens = ids.shape
    turned = looked_up.shape == (tokens, rows) and (rows != tokens or not _same(looked_up, ids))
    seen = embeddings.transpose(0, 1) if turned else embeddings
    padded = seen.shape[1] > tokens
    changed = torch.cat((change(seen[:, :tokens]), seen[:, tokens:].detach()), dim=1) if padded else change(seen)
    return changed.transpose(0, 1) if turned else changed


def _same(a: Tensor, b: Tensor) -> bool:
    """Of one shape. To look at the values takes a GPU some time: only where they are not one tensor."""
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)
