"""Linear scaling of the learning rate: the rate is meant for one batch size, and grows with the one that is used.

lr = optimizer.lr * batch_size / per

Source: Goyal et al. 2017, arXiv:1706.02677, section 2.1; 0.1 for 256 images in He et al. 2019, arXiv:1812.01187.
Cost: none.
Interacts: meant for SGD; Adam's rate is usually scaled by the square root, or not at all. Large rates want warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick


@dataclass(frozen=True)
class LrScaling(Trick):
    """Scale the learning rate with the batch."""

    per: int = 0
    """Batch size that `optimizer.lr` is meant for, in images; 0 is off, 256 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.per <= 1_000_000:
            raise UserError(f"lr_scaling.per = {self.per}: must be between 0 (off) and 1000000")

    def on_lr(self, lr: float, batch_size: int) -> float:
        """Returns the rate for this batch size."""
        return lr * batch_size / self.per
