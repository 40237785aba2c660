"""Logit adjustment: train on logits shifted by the log of how frequent a class is, so that rare ones are not outvoted.

logits'_k = logits_k + tau * log(n_k / n), in training alone; evaluation sees the logits as they are

Source: Menon et al. 2021, arXiv:2007.07314, tau = 1, which aims at mean per-class accuracy.
Cost: none.
Interacts: with class weights or balanced sampling it corrects for the same imbalance twice. The network's probabilities
are those of a world in which all classes are equally frequent.
Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from torch import Tensor

    from bagoftricks.tricks.base import FloatArray, IntArray


def log_priors(counts_K: IntArray) -> FloatArray:
    """Returns the log of each class's share of the images; a class without images counts as having one."""
    import numpy as np

    found: FloatArray = np.log(np.maximum(counts_K, 1) / counts_K.sum())
    return found


@dataclass(frozen=True)
class LogitAdjustment(Trick):
    """Shift logits in training by the frequency of the classes."""

    tau: float = 0.0
    """Strength, from 0 (off) to 10; 1 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 10:
            raise UserError(f"logit_adjustment.tau = {self.tau}: must be between 0 (off) and 10")

    def on_logits(self, logits_NK: Tensor, counts_K: IntArray) -> Tensor:
        """Returns the logits plus `tau` times the log of the classes' shares."""
        import torch

        from bagoftricks.data.resident import to_device

        shift_K = to_device(torch.from_numpy(log_priors(counts_K)).float(), logits_NK.device.type)
        return logits_NK + self.tau * shift_K
