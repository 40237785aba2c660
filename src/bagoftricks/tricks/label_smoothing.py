"""Label smoothing: train on targets that keep a little probability for every class.

y' = (1 - amount) * y + amount / K

Source: Szegedy et al. 2016, arXiv:1512.00567, section 7; amount = 0.1 in He et al. 2019.
Cost: none. Raises the training loss by design: compare validation losses (always plain cross-entropy) instead.
Interacts: with mixup, CutMix and distillation, which soften the targets too.
Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def smooth(y_NK: Tensor, amount: float) -> Tensor:
    """Returns soft targets of the same shape with `amount` of their mass spread evenly over the K classes."""
    return y_NK * (1 - amount) + amount / y_NK.shape[1]


@dataclass(frozen=True)
class LabelSmoothing(Trick):
    """Spread part of each target evenly over all classes."""

    amount: float = 0.0
    """Probability mass spread over all classes, from 0 (off) to below 1; 0.1 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.amount < 1:
            raise UserError(f"label_smoothing.amount = {self.amount}: must be at least 0 (off) and below 1")

    def on_batch(self, x_NCHW: Tensor, y_NK: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Smooths the targets; the images pass unchanged."""
        return x_NCHW, smooth(y_NK, self.amount)
