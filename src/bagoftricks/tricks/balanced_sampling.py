"""Balanced sampling: show images of rare classes more often.

An epoch draws as many images as it had, with replacement, each of class k with probability proportional to n_k^-power.

Source: Kang et al. 2020, arXiv:1910.09217, section 3 (power = 1 is class-balanced, 0.5 square-root sampling); torch's
WeightedRandomSampler.
Cost: none. An epoch misses many images of frequent classes, and repeats those of rare ones: repeats get crops of
their own.
Interacts: with class weights it counts rare classes twice. Accuracy over all images usually falls where mean
per-class accuracy rises.
Shapes: n training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    import numpy as np

    from bagoftricks.tricks.base import FloatArray, IntArray


def probabilities(labels_n: IntArray, power: float) -> FloatArray:
    """Returns each image's probability at a draw, from the labels; they add up to 1."""
    import numpy as np

    counts = np.bincount(labels_n)
    chance_n: FloatArray = np.power(counts[labels_n], -power, dtype=np.float64)
    chance_n /= chance_n.sum()
    return chance_n


@dataclass(frozen=True)
class BalancedSampling(Trick):
    """Show images of rare classes more often."""

    power: float = 0.0
    """How much more often, from 0 (off) to 1, which shows every class equally often; 0.5 is a middle way."""

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise UserError(f"balanced_sampling.power = {self.power}: must be between 0 (off) and 1")

    def on_order(self, order_n: IntArray, labels_n: IntArray, rng: np.random.Generator) -> IntArray:
        """Draws as many images as there were."""
        return rng.choice(order_n, len(order_n), p=probabilities(labels_n, self.power))
