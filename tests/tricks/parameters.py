"""What a bag makes of a network's parameters, for the tests of tricks that treat them."""

from __future__ import annotations

import numpy as np
import torch

from bagoftricks.training.bag import Bag
from bagoftricks.tricks.base import Trick


def bag(**tricks: Trick) -> Bag:
    return Bag(tricks, np.array([3, 3]), 0, "cpu")


def treated(found: list[dict[str, object]], model: torch.nn.Module) -> dict[str, dict[str, object]]:
    """What an optimiser does with each parameter, by its name."""
    groups = {id(p): group for group in found for p in group["params"]}  # type: ignore[attr-defined]
    named = dict(model.named_parameters())
    assert len(groups) == len(named)
    return {name: groups[id(p)] for name, p in named.items()}
