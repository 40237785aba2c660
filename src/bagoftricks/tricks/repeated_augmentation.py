"""Repeated augmentation: several crops of the same image in a batch.

An epoch has as many crops as before, of 1 / repeats of the images: each stands `repeats` times in a row.

Source: Hoffer et al. 2020, arXiv:1901.09335; Berman et al. 2019, arXiv:1902.05509; 3 in Touvron et al. 2021,
arXiv:2012.12877.
Cost: none for a step; an epoch sees fewer images, so that short trainings see some of them seldom.
Interacts: mixup and CutMix may blend two crops of one image. Batch-norm sees fewer different images.
Shapes: n training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    import numpy as np

    from bagoftricks.tricks.base import IntArray


def repeat(order_n: IntArray, repeats: int) -> IntArray:
    """Returns the first images of an order, each `repeats` times in a row, as many in all as there were."""
    return order_n.repeat(repeats)[: len(order_n)]


@dataclass(frozen=True)
class RepeatedAugmentation(Trick):
    """Show several crops of an image in a batch."""

    repeats: int = 1
    """Crops of an image that follow each other; 1 is off, up to 16."""

    def __post_init__(self) -> None:
        if not 1 <= self.repeats <= 16:
            raise UserError(f"repeated_augmentation.repeats = {self.repeats}: must be between 1 (off) and 16")

    def on_order(self, order_n: IntArray, labels_n: IntArray, rng: np.random.Generator) -> IntArray:
        """Repeats each image of the order's beginning."""
        return repeat(order_n, self.repeats)
