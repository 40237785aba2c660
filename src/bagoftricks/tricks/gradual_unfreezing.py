"""Gradual unfreezing: train the classifier first, then one more stage from the top every few epochs.

What is not yet trained is fixed, batch-norm's statistics with it.

Source: Howard and Ruder 2018, arXiv:1801.06146, section 3.3 (there a layer an epoch).
Cost: saves time while stages are frozen: no pass back through them.
Interacts: for fine-tuning; from random weights it trains on noise. The stem is reached after 5 times `epochs`: a
shorter training leaves it as it came. A new stem (tweak C from weights of B) is then never trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import CLASSIFIER, Trick


@dataclass(frozen=True)
class GradualUnfreezing(Trick):
    """Train one more stage every few epochs."""

    epochs: int = 0
    """Epochs from one stage to the next, 0 is off; 1 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.epochs <= 100_000:
            raise UserError(f"gradual_unfreezing.epochs = {self.epochs}: must be between 0 (off) and 100000")

    def cost(self, epochs: int) -> float:
        """A pass forward is about a third of a step; stages count alike."""
        frozen = sum(max(0, 5 - epoch // self.epochs) / 5 for epoch in range(epochs))
        return 1 - 2 / 3 * frozen / epochs

    def trains(self, depth: int, epoch: int) -> bool:
        """Whether a depth is trained in an epoch."""
        return depth >= CLASSIFIER - epoch // self.epochs
