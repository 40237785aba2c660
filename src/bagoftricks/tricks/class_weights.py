"""Class weights: let an image of a rare class count for more in the loss.

w_k = a * n_k^-power, n_k the training images of class k, and a such that an image's weight is 1 on average

Source: King and Zeng 2001, Political Analysis 9(2); with power = 1 scikit-learn's class_weight="balanced".
Cost: none.
Interacts: the loss is divided by the weights in the batch, as torch does with labels, so that the learning rate keeps
its meaning. With balanced sampling it counts rare classes twice. Accuracy over all images usually falls where mean
per-class accuracy rises: say beforehand which one counts. Where a batch is split for want of memory, each part is
divided by its own weights.
Shapes: K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from bagoftricks.tricks.base import FloatArray, IntArray


def weights(counts_K: IntArray, power: float) -> FloatArray:
    """Returns each class's weight, 1 on average over images; 0 for a class that has none.

    Args:
        counts_K: training images of each class, at least one in all.
        power: 0 weighs all alike, 1 gives every class the same sum.
    """
    import numpy as np

    raw: FloatArray = np.where(counts_K > 0, np.maximum(counts_K, 1).astype(float) ** -power, 0.0)
    found: FloatArray = raw * (counts_K.sum() / (counts_K * raw).sum())
    return found


@dataclass(frozen=True)
class ClassWeights(Trick):
    """Weigh images of rare classes more."""

    power: float = 0.0
    """How much more, from 0 (off) to 1, which gives every class the same weight in all; 0.5 is a middle way."""

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise UserError(f"class_weights.power = {self.power}: must be between 0 (off) and 1")

    def class_weights(self, counts_K: IntArray) -> FloatArray:
        """Returns the weight of each class."""
        return weights(counts_K, self.power)
