"""SAM, sharpness-aware minimisation: step by the gradient at the worst point nearby, towards flat valleys.

w <- w - lr * g(w + rho * g(w) / |g(w)|),  |g| over all parameters together

Running statistics of batch-norm are taken from the first of the two passes.

Source: Foret et al. 2021, arXiv:2010.01412, algorithm 1, rho = 0.05; Chen et al. 2022, arXiv:2106.01548 for ResNets.
Cost: twice the time of a step: two passes forward and back.
Interacts: acts on the gradient of the loss alone, without weight decay. Gradient clipping acts on the second gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from torch import Tensor, nn


def ascent(gradients: list[Tensor], rho: float) -> list[Tensor]:
    """Returns the steps, of common length `rho`, along the gradients; all 0 where these are."""
    import torch

    norms = torch._foreach_norm(gradients)
    length = torch.linalg.vector_norm(torch.stack(list(norms)))
    return list(torch._foreach_mul(list(gradients), rho / (length + 1e-12)))


@dataclass(frozen=True)
class Sam(Trick):
    """Step by the gradient at the worst point nearby."""

    rho: float = 0.0
    """Distance of that point, as the Euclidean norm over all parameters; 0 is off, 0.05 is usual, up to 10."""

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 10:
            raise UserError(f"sam.rho = {self.rho}: must be between 0 (off) and 10")

    def cost(self, epochs: int) -> float:
        """Two passes in place of one."""
        return 2.0

    def on_backward(self, model: nn.Module, again: Callable[[], object]) -> None:
        """Replaces the gradients by those at the worst point nearby."""
        import torch
        from torch.nn.modules.batchnorm import _BatchNorm

        moved: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
        steps = ascent([p.grad for p in moved if p.grad is not None], self.rho)
        before = [p.detach().clone() for p in moved]
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        with torch.no_grad():
            torch._foreach_add_(moved, steps)
        for norm in norms:
            norm.momentum = 0.0  # which leaves the running statistics as they are
        try:
            again()
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            with torch.no_grad():
                torch._foreach_copy_(moved, before)
