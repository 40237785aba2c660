"""The points at which a trick can act. A trick takes values and returns values; it never sees the trainer.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Trick:
    """Base of every trick: a frozen dataclass whose default values are neutral.

    Each method below is optional. A trick at its neutral value is never called, so that a recipe with it off trains bit
    for bit as if it did not exist.
    """

    @property
    def active(self) -> bool:
        """Whether any field differs from its neutral value."""
        return self != type(self)()

    def on_batch(self, x_NCHW: Tensor, y_NK: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Returns the batch to train on, from normalised images and soft targets (rows sum to 1)."""
        return x_NCHW, y_NK

    def on_loss(self, loss: Tensor, logits_NK: Tensor, x_NCHW: Tensor, y_NK: Tensor) -> Tensor:
        """Returns the scalar loss to minimise, given the one so far."""
        return loss
