"""Optimisers and learning-rate schedules: configs, and the rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bagoftricks.errors import UserError, unknown

if TYPE_CHECKING:
    import torch

OPTIMIZERS = ("sgd", "adam", "adamw")
CYCLE_RISE, CYCLE_START, CYCLE_END = 0.3, 25.0, 1e4
"""Of one cycle, as torch's OneCycleLR has them: share of the steps that rise, and by how much the rate is divided at
the start and once more at the end."""
DECAYS = ("constant", "cosine", "step", "onecycle")


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimiser, and how fast."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    """sgd (with momentum), adam or adamw (decoupled weight decay)."""
    lr: float = 1e-3
    """Base learning rate, per step, above 0."""
    momentum: float = 0.9
    """SGD's momentum, or beta1 of Adam; from 0 to below 1."""
    beta2: float = 0.999
    """Adam's decay of the squared gradient, from 0 to below 1; SGD ignores it."""
    weight_decay: float = 1e-4
    """L2 penalty (sgd, adam) or decoupled decay (adamw), on every parameter unless `no_bias_decay`
    is on; at least 0."""

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise unknown("optimizer.name", self.name, OPTIMIZERS)
        if not 0 < self.lr <= 100:
            raise UserError(f"optimizer.lr = {self.lr}: must be above 0 and at most 100")
        for field in ("momentum", "beta2"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"optimizer.{field} = {getattr(self, field)}: must be at least 0 and below 1")
        if not 0 <= self.weight_decay <= 1:
            raise UserError(f"optimizer.weight_decay = {self.weight_decay}: must be between 0 and 1")

    def build(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """Returns torch's optimiser over `parameters`, tensors or groups of them."""
        import torch

        if self.name == "sgd":
            return torch.optim.SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay)
        adam = torch.optim.AdamW if self.name == "adamw" else torch.optim.Adam
        betas = (self.momentum, self.beta2)
        return adam(parameters, self.lr, betas, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves during training, set anew at every step."""

    decay: Literal["constant", "cosine", "step", "onecycle"] = "constant"
    """constant; cosine: half a cosine wave from the base rate to 0; step: times `step_factor` every `step_epochs`;
    onecycle: up to the base rate over the first 30 % of the training and down again, both along a cosine."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up from one step's share to the base rate; 0 is off. onecycle has a rise of its own, and
    knows none of these."""
    step_epochs: float = 30.0
    """Epochs between two steps of decay = step, above 0."""
    step_factor: float = 0.1
    """What the rate is multiplied by at each step of decay = step, above 0 and below 1."""

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise unknown("schedule.decay", self.decay, DECAYS)
        if not 0 <= self.warmup_epochs < math.inf:
            raise UserError(f"schedule.warmup_epochs = {self.warmup_epochs}: must be at least 0 and finite")
        if not 0 < self.step_epochs < math.inf:
            raise UserError(f"schedule.step_epochs = {self.step_epochs}: must be above 0 and finite")
        if not 0 < self.step_factor < 1:
            raise UserError(f"schedule.step_factor = {self.step_factor}: must be above 0 and below 1")


def lr_factor(schedule: ScheduleConfig, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Returns the multiple of the base rate at a step.

    Warm-up: (step + 1) / W for the first W steps, then over the T remaining, at step t of them,
    cosine: (1 + cos(pi t / T)) / 2 (Loshchilov and Hutter 2017, arXiv:1608.03983), which would reach 0 at t = T;
    step: step_factor^k after k whole times step_epochs, counted from the start of the training;
    onecycle: along half a cosine from 1 / 25 to 1 over the first 30 %, and on to 1 / 250,000 at the last step (Smith
    and Topin 2018, arXiv:1708.07120, as torch's OneCycleLR has it; momentum stays).

    Args:
        schedule: what to follow.
        step: optimiser steps taken so far, from 0 to total_steps - 1.
        total_steps: steps of the whole training.
        steps_per_epoch: steps of one epoch.
    """
    if schedule.decay == "onecycle":
        return _one_cycle(step, total_steps)
    warmup = min(round(schedule.warmup_epochs * steps_per_epoch), total_steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.decay == "constant":
        return 1.0
    if schedule.decay == "step":
        return schedule.step_factor ** math.floor(step / (schedule.step_epochs * steps_per_epoch))
    return (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup))) / 2


def _one_cycle(step: int, total_steps: int) -> float:
    """Returns the multiple of the highest rate at a step."""
    top, last = CYCLE_RISE * total_steps - 1, total_steps - 1
    if 0 < step <= top or 0 == step < top:
        return _along_cosine(1 / CYCLE_START, 1.0, step / top)
    return _along_cosine(1.0, 1 / (CYCLE_START * CYCLE_END), (step - top) / (last - top))


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
