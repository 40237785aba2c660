"""FixRes: train on smaller images than are evaluated, since random crops make things look larger in training.

A random resized crop enlarges what it cuts out; the evaluation's centre crop does not. Things are of one size again
where the evaluation's images are larger, by about 1.15 to 1.3.

Source: Touvron et al. 2019, arXiv:1906.06423, section 3; as in torchvision's recipes (trained at 176, evaluated at 224)
without the fine-tuning that may follow there.
Cost: saves time: a training step on (share)^2 of the pixels.
Interacts: with `input.crop_min`: the smaller its crops, the larger things look. `input.size` is what is evaluated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

STEP, LEAST = 16, 32
"""Sizes are whole multiples of the first, and at least the second, in pixels."""


def reduced(size: int, share: float) -> int:
    """Returns a share of a size, in pixels: the nearest multiple of 16, from 32 to the size itself."""
    return min(size, max(LEAST, STEP * math.floor(size * share / STEP + 0.5)))


@dataclass(frozen=True)
class Fixres(Trick):
    """Train on smaller images than are evaluated."""

    share: float = 1.0
    """Side of the training images as a share of `input.size`, above 0 up to 1 (off); 0.75 to 0.85 is usual."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"fixres.share = {self.share}: must be above 0 and at most 1")

    def cost(self, epochs: int) -> float:
        """The share of the pixels."""
        return self.share**2

    def on_size(self, size: int, epoch: int, epochs: int) -> int:
        """Returns the size of the training images."""
        return size if self.share == 1 else reduced(size, self.share)
