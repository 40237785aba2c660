"""EMA of weights: evaluate, and keep, a moving average of the weights that were trained.

e_t = d_t * e_(t-1) + (1 - d_t) * w_t,  d_t = min(decay, (1 + t) / (10 + t)) after step t = 1, 2, ...

The ramp of d_t forgets the initial weights whatever the decay. Running statistics of batch-norm are averaged alike.

Source: Polyak and Juditsky 1992, SIAM J. Control Optim. 30(4); the ramp is that of TensorFlow's
ExponentialMovingAverage; Tarvainen and Valpola 2017, arXiv:1703.01780 (0.99, later 0.999).
Cost: a second copy of the weights in memory, one pass over them a step.
Interacts: does at the end what a decaying learning rate does, so that it gains least with cosine. A decay d averages
over about 1 / (1 - d) steps: with a few hundred steps an epoch, 0.999 is one to several epochs and 0.9999 too long
for a short training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bagoftricks.errors import UserError
from bagoftricks.tricks.base import Companion, Trick

if TYPE_CHECKING:
    from torch import Tensor, nn


def decay_at(step: int, decay: float) -> float:
    """Returns the share of the average that stays after step 1, 2, …"""
    return min(decay, (1 + step) / (10 + step))


def average(mean: list[Tensor], values: list[Tensor], decay: float) -> None:
    """Moves each mean, in place, to `decay` of itself and the rest of the value; whole numbers are copied."""
    import torch

    smooth = [i for i, tensor in enumerate(mean) if tensor.is_floating_point()]
    torch._foreach_lerp_([mean[i] for i in smooth], [values[i] for i in smooth], 1 - decay)
    for i, tensor in enumerate(mean):
        if not tensor.is_floating_point():
            tensor.copy_(values[i])


class AveragedModel:
    """A network whose weights are the average of another's."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        import copy

        self.model = copy.deepcopy(model).requires_grad_(False)
        for parameter in self.model.parameters():
            parameter.grad = None
        self.decay, self.steps = decay, 0
        named = {tensor.data_ptr(): name for name, tensor in self.model.state_dict().items()}
        self.names = list(named.values())
        """Of all tensors, each once: a tied one stands in the state dict several times."""

    def after_step(self, model: nn.Module) -> None:
        """Takes the weights as they are now into the average."""
        import torch

        self.steps += 1
        with torch.no_grad():
            mean, values = self.model.state_dict(), model.state_dict()
            decay = decay_at(self.steps, self.decay)
            average([mean[name] for name in self.names], [values[name] for name in self.names], decay)

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Returns the average."""
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """Returns the average and the number of steps in it."""
        return {"steps": self.steps, "model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` gave."""
        self.steps = int(state["steps"])
        self.model.load_state_dict(state["model"])


@dataclass(frozen=True)
class Ema(Trick):
    """Evaluate a moving average of the weights."""

    decay: float = 0.0
    """Share of the average that stays at a step, from 0 (off) to below 1; 0.999 averages over about 1,000 steps."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UserError(f"ema.decay = {self.decay}: must be at least 0 (off) and below 1")

    def companion(self, model: nn.Module) -> Companion:
        """Returns the averaged network, which starts as a copy."""
        return AveragedModel(model, self.decay)
