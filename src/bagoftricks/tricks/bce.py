"""Binary cross-entropy: let each class be a question of its own, so that a blend may be both.

loss = mean over N and K of -(y log s + (1 - y) log(1 - s)),  s = sigmoid(logits)

Source: Beyer et al. 2020, arXiv:2006.07159; Wightman et al. 2021, arXiv:2110.00476, who set what is above a threshold
to 1; timm's `BinaryCrossEntropy`.
Cost: none to speak of. Gradients are smaller by about the number of classes, so that plain SGD wants a higher rate.
Interacts: takes the place of cross-entropy, so not with another loss. A threshold undoes label smoothing, and must
lie above what smoothing gives the other classes. Made for mixup and CutMix. Softmax
probabilities of such a network are not what it was trained for: compare accuracies, and calibrate before use.
Validation losses, which are always plain cross-entropy, do not compare with those of other losses.
Shapes: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from torch import Tensor


def binary_cross_entropy(logits_NK: Tensor, y_NK: Tensor, threshold: float, weight_K: Tensor | None = None) -> Tensor:
    """Returns the scalar loss.

    Args:
        logits_NK: before the sigmoid.
        y_NK: soft targets.
        threshold: a target above it becomes 1 and another 0; 0 keeps them soft.
        weight_K: of each class, or None; an image weighs what its soft targets do, and the weights are divided out.
    """
    import torch.nn.functional as F

    weight_N = None if weight_K is None else y_NK @ weight_K
    y_NK = (y_NK > threshold).to(y_NK) if threshold else y_NK
    if weight_N is None:
        return F.binary_cross_entropy_with_logits(logits_NK, y_NK)
    loss_N = F.binary_cross_entropy_with_logits(logits_NK, y_NK, reduction="none").mean(1)
    return (weight_N * loss_N).sum() / weight_N.sum()


@dataclass(frozen=True)
class Bce(Trick):
    """Train each class as a question of its own."""

    on: bool = False
    """Whether binary cross-entropy takes the place of cross-entropy."""
    threshold: float = 0.0
    """Targets above it become 1, others 0, from 0 (they stay soft) to below 1; 0.2 in Wightman et al. 2021."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise UserError(f"bce.threshold = {self.threshold}: must be at least 0 (targets stay soft) and below 1")

    @property
    def active(self) -> bool:
        """Whether it is on; a threshold alone does nothing."""
        return self.on

    def loss(self, logits_NK: Tensor, y_NK: Tensor, weight_K: Tensor | None) -> Tensor:
        """Returns the mean binary cross-entropy."""
        return binary_cross_entropy(logits_NK, y_NK, self.threshold, weight_K)
