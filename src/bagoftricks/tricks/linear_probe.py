"""Linear probe, then fine-tuning: train the classifier alone at first, on features that stay as they came.

A random classifier sends large gradients through features that are good already; probed first, it does not. Meanwhile
the features are fixed, batch-norm's statistics with them.

Source: Kumar et al. 2022, arXiv:2202.10054; fastai's `fine_tune`, which leaves its batch-norms free.
Cost: saves time: an epoch of probing needs no pass back through the network.
Interacts: for fine-tuning; from random weights it trains on noise. Epochs of the probe count as epochs, and the
learning rate moves on meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import CLASSIFIER, Trick


@dataclass(frozen=True)
class LinearProbe(Trick):
    """Train the classifier alone at first."""

    epochs: int = 0
    """Epochs in which the classifier alone is trained, 0 is off; 1 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.epochs <= 100_000:
            raise UserError(f"linear_probe.epochs = {self.epochs}: must be between 0 (off) and 100000")

    def cost(self, epochs: int) -> float:
        """A pass forward is about a third of a step."""
        frozen = min(self.epochs, epochs)
        return 1 - 2 / 3 * frozen / epochs

    def trains(self, depth: int, epoch: int) -> bool:
        """Whether a depth is trained in an epoch."""
        return depth == CLASSIFIER or epoch >= self.epochs
