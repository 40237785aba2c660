"""Layer-wise learning rates: let early layers, which fit most images as they are, move less than late ones.

lr of a layer = lr * decay^(5 - depth): the stem has depth 0, stages 1 to 4, the classifier 5

Source: Howard and Ruder 2018, arXiv:1801.06146 ("discriminative fine-tuning", a factor of 1 / 2.6 a layer); Bao et
al. 2022, arXiv:2106.08254 (0.65 to 0.9 for each block of a transformer).
Cost: none.
Interacts: for fine-tuning: from random weights early layers need their full rate. A new stem (tweak C from weights of
B) is random, and moves least where it needs to move most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import CLASSIFIER, Trick

if TYPE_CHECKING:
    from bagoftricks.tricks.base import Parameter, Treatment


@dataclass(frozen=True)
class LayerwiseLr(Trick):
    """Train early layers more slowly."""

    decay: float = 1.0
    """Factor from one stage to the one before it, above 0 up to 1 (off); 0.4 to 0.8 is usual."""

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise UserError(f"layerwise_lr.decay = {self.decay}: must be above 0 and at most 1 (off)")

    def on_parameter(self, parameter: Parameter, treatment: Treatment) -> Treatment:
        """Scales the rate by the parameter's depth."""
        return replace(treatment, lr_scale=treatment.lr_scale * self.decay ** (CLASSIFIER - parameter.depth))
