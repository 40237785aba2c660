"""Early stopping: end the training once the validation measure has not improved for some epochs.

Source: Prechelt 1998, "Early stopping, but when?", Neural Networks: Tricks of the Trade.
Cost: saves the epochs that are not trained.
Interacts: with cosine and other decays, which gain most in the last epochs: a training that is stopped has not come
to rest. The weights of the last epoch are kept, not the best ones: to choose an epoch by the validation set would
flatter its figure. Runs of a study then differ in length, and so in time. The loss is plain cross-entropy, whatever
is trained: with binary cross-entropy, focal loss or logit adjustment it may rise while accuracy does. Frozen epochs
(linear probe, gradual unfreezing) count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick


def stalled(losses: Sequence[float], patience: int) -> bool:
    """Whether the least of the losses lies `patience` epochs back or more."""
    return len(losses) - 1 - min(range(len(losses)), key=losses.__getitem__) >= patience


@dataclass(frozen=True)
class EarlyStopping(Trick):
    """End the training when it no longer helps."""

    patience: int = 0
    """Epochs without a lower validation loss after which the training ends; 0 is off, 3 to 10 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.patience <= 100_000:
            raise UserError(f"early_stopping.patience = {self.patience}: must be between 0 (off) and 100000")

    def stops(self, losses: Sequence[float]) -> bool:
        """Whether the training ends after the epochs that had these validation losses."""
        return stalled(losses, self.patience)
