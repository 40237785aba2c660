"""Focal loss: weigh what is already recognised less, so that hard images count for more.

loss = -sum_k y_k * (1 - p_k)^gamma * log p_k,  p = softmax(logits); the mean over the batch

Source: Lin et al. 2017, arXiv:1708.02002, gamma = 2, there for detection with sigmoids; the softmax form is the usual
one for classification.
Cost: none to speak of.
Interacts: takes the place of cross-entropy, so not with another loss. With label smoothing or mixup every class has
some target mass, and the factor acts on each. Probabilities come out less sure than those of cross-entropy.
Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from torch import Tensor


def focal_loss(logits_NK: Tensor, y_NK: Tensor, gamma: float, weight_K: Tensor | None = None) -> Tensor:
    """Returns the scalar loss; class weights are normalised by their sum over the targets.

    Args:
        logits_NK: before softmax.
        y_NK: soft targets.
        gamma: how much less what is recognised counts, from 0 (cross-entropy).
        weight_K: of each class, or None.
    """
    log_p_NK = logits_NK.log_softmax(1)
    weighted_NK = y_NK if weight_K is None else y_NK * weight_K
    terms_NK = weighted_NK * (1 - log_p_NK.exp()).clamp(min=1e-12).pow(gamma) * log_p_NK  # 0^g has no finite gradient
    return -terms_NK.sum() / (len(y_NK) if weight_K is None else weighted_NK.sum())


@dataclass(frozen=True)
class Focal(Trick):
    """Weigh what is recognised less."""

    gamma: float = 0.0
    """How much less what is recognised counts; 0 is off, 2 is usual, up to 10."""

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 10:
            raise UserError(f"focal.gamma = {self.gamma}: must be between 0 (off) and 10")

    def loss(self, logits_NK: Tensor, y_NK: Tensor, weight_K: Tensor | None) -> Tensor:
        """Returns the focal loss."""
        return focal_loss(logits_NK, y_NK, self.gamma, weight_K)
