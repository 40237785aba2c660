"""No bias decay: let weight decay act on the weights of convolutions and of the classifier alone.

Biases, and scale and shift of normalisation, are left out: they are few, and do not overfit. So are, of timm's
networks, the parameters that timm leaves out, such as a transformer's position embeddings and class token.

Source: Jia et al. 2018, arXiv:1807.11205, section 3.2; He et al. 2019, arXiv:1812.01187, section 3.1; timm does so by
default.
Cost: none.
Interacts: only where `optimizer.weight_decay` is above 0. He et al. name it for large batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from bagoftricks.tricks.base import Parameter, Treatment


@dataclass(frozen=True)
class NoBiasDecay(Trick):
    """Decay no biases, and nothing of normalisation."""

    on: bool = False
    """Whether parameters of one dimension, and of a timm network those that timm leaves out, are left out of weight
    decay."""

    def on_parameter(self, parameter: Parameter, treatment: Treatment) -> Treatment:
        """Leaves parameters of one dimension, and exempt ones, out of weight decay."""
        return replace(treatment, decays=False) if parameter.dims <= 1 or parameter.exempt else treatment
