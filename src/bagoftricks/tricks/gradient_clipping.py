"""Gradient clipping: shorten the gradient of a whole batch where it is longer than a limit.

g' = g * min(1, norm / |g|),  |g| over all parameters together

Source: Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, section 3.2; torch's `clip_grad_norm_`.
Cost: one pass over the gradients. On a GPU nothing is waited for.
Interacts: with Adam, whose steps do not grow with the gradient, it matters at outliers alone. The limit that suits
depends on network and batch: 1 is usual in fine-tuning, 5 from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GradientClipping(Trick):
    """Shorten gradients that are too long."""

    norm: float = 0.0
    """Longest gradient, as the Euclidean norm over all parameters; 0 is off, 1 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.norm <= 1e6:
            raise UserError(f"gradient_clipping.norm = {self.norm}: must be between 0 (off) and 1000000")

    def on_gradients(self, parameters: list[Tensor]) -> None:
        """Scales all gradients by the same factor where their common norm is above the limit."""
        from torch.nn.utils import clip_grad_norm_

        clip_grad_norm_(parameters, self.norm)
