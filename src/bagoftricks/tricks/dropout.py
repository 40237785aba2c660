"""Dropout: let the classifier do without a random part of its features at each step.

f' = f * m / (1 - prob),  m = 0 with probability prob for each image and feature, else 1; before the classifier alone

Source: Srivastava et al. 2014, JMLR 15; before the classifier as in Szegedy et al. 2015, arXiv:1409.4842.
Cost: none to speak of.
Interacts: with label smoothing and mixup, which keep the classifier from certainty too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Trick

if TYPE_CHECKING:
    from bagoftricks.models.network import Network


@dataclass(frozen=True)
class Dropout(Trick):
    """Drop features before the classifier."""

    prob: float = 0.0
    """Share of features that are dropped, from 0 (off) to below 1; 0.2 to 0.5 is usual."""

    def __post_init__(self) -> None:
        if not 0 <= self.prob < 1:
            raise UserError(f"dropout.prob = {self.prob}: must be at least 0 (off) and below 1")

    def on_model(self, model: Network) -> None:
        """Sets how much is dropped before the classifier."""
        model.dropout = self.prob
