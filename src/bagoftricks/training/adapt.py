"""Carries weights over to another architecture: what was trained in B is made to fit A, BC, BCD, …

A tweak changes what a layer computes, and not only its shape. Tensors that match are copied; then the parts that the
tweaks change (a new stem, the blocks whose stride or shortcut moves) learn to give what the source network's parts
give, each by itself; then the whole network learns to give what the source's last stage gives. The stages before it are
left free there: in A, whose strides skip three of four positions, a stage has to say at the fourth what B says at all,
and cannot while it is held to B's own outputs. Batch-norm statistics of both are estimated anew on the same images:
fine-tuning goes by those, not by the ones that came with the weights. Images of the training side are enough, and no
label is looked at. How close the target comes is measured on other images.

Sources: Romero et al. 2015, arXiv:1412.6550 (a network taught by another's intermediate outputs); Wang et al. 2018,
arXiv:1811.02796 (a part of a network replaced, and taught by the part's inputs and outputs).
Shapes: N images, C channels, H x W positions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import count

import torch
from torch import Tensor, nn

from bagoftricks.data.batches import Batches
from bagoftricks.errors import RunError, UserError
from bagoftricks.models.inference import for_inference
from bagoftricks.models.resnet import ResNet, roles
from bagoftricks.optim import ScheduleConfig, lr_factor
from bagoftricks.training.hardware import Hardware

STAGES = ("stem", "stage 1", "stage 2", "stage 3", "stage 4")
VERSION = 3
"""Of the procedure; raised when it gives other weights."""


@dataclass(frozen=True)
class AdaptConfig:
    """How weights are carried over to another architecture."""

    part_steps: int = 150
    """Batches on which the changed parts learn, each by itself, from 0 to 100,000."""
    part_lr: float = 3e-3
    """Peak learning rate of the parts, Adam's, above 0."""
    whole_steps: int = 150
    """Batches on which the whole network learns after that, from 0 to 100,000."""
    whole_lr: float = 4e-3
    """Peak learning rate of the whole network, Adam's, above 0."""
    norm_batches: int = 20
    """Batches over which batch-norm statistics are estimated, from 1 to 1,000."""

    def __post_init__(self) -> None:
        for name, least, most in (("part_steps", 0, 10**5), ("whole_steps", 0, 10**5), ("norm_batches", 1, 1000)):
            if not least <= getattr(self, name) <= most:
                raise UserError(f"adapt.{name} = {getattr(self, name)}: must be between {least} and {most:,}")
        for name in ("part_lr", "whole_lr"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"adapt.{name} = {getattr(self, name)}: must be above 0 and at most 1")

    @property
    def steps(self) -> int:
        """Batches in all, by which progress is told."""
        return self.part_steps + self.whole_steps

    def identity(self) -> str:
        """All that determines the weights, the images and the machine aside."""
        values = ", ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))
        return f"adapt {VERSION}: {values}"


@dataclass(frozen=True)
class Adaptation:
    """How far a network's stage outputs are from the source's, before and after."""

    source: str
    """Architecture that the weights were trained in, e.g. "B"."""
    target: str
    before: dict[str, float]
    """By stage (stem, stage 1, …, stage 4): the share of the source's variance that is not reproduced; 0 is equal, and
    a constant would have 1. With matching tensors copied, and batch-norm statistics estimated anew."""
    after: dict[str, float]

    def summary(self) -> str:
        """One line for people: what is left of the distance in the last stage."""
        last = STAGES[-1]
        return (
            f"adapted from {self.source} to {self.target}: "
            f"distance of {last} from the source's {self.before[last]:.2f} before, {self.after[last]:.2f} after"
        )


def copy_matching(source: nn.Module, target: nn.Module) -> None:
    """Copies, in place, every tensor of `source` that has its role and shape in `target`."""
    offered = {name: source.state_dict()[key] for key, name in roles(source.state_dict()).items()}
    own = target.state_dict()
    with torch.no_grad():
        for key, name in roles(own).items():
            if name in offered and offered[name].shape == own[key].shape:
                own[key].copy_(offered[name])


def stage_outputs(model: nn.Module, x_NCHW: Tensor) -> list[Tensor]:
    """Returns the outputs of the stem (after its max-pool) and of the four stages of a `ResNet`."""
    x_NCHW = model.maxpool(model.relu(model.bn1(model.conv1(x_NCHW))))  # type: ignore[operator]
    outputs = [x_NCHW]
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        outputs.append(layer(outputs[-1]))  # type: ignore[operator]
    return outputs


def distance(output_NCHW: Tensor, wanted_NCHW: Tensor) -> Tensor:
    """Returns the share of the variance of `wanted`, around each channel's mean, that `output` does not reproduce."""
    wanted_NCHW = wanted_NCHW.float()
    spread = (wanted_NCHW - wanted_NCHW.mean((0, 2, 3), keepdim=True)).square().mean()
    return (output_NCHW.float() - wanted_NCHW).square().mean() / (spread + 1e-12)


def adapt(
    source: ResNet,
    target: ResNet,
    train: Batches,
    held: Batches,
    hardware: Hardware,
    config: AdaptConfig | None = None,
    on_step: Callable[[int, int], None] = lambda step, total: None,
) -> Adaptation:
    """Makes `target` compute, in place, what `source` computes, as well as its architecture can.

    Args:
        source: the network that the weights were trained in; not changed.
        target: one of the same depth; both on the device, in channels-last layout.
        train: images to learn from; their labels are not used.
        held: images to measure the distances on, as evaluation sees them; nothing is learnt from them.
        hardware: where.
        config: how long and how fast.
        on_step: told of the batches done and their total.

    Raises:
        UserError: if the depths differ.
        RunError: if a loss is not finite.
    """
    config = config or AdaptConfig()
    if source.config.depth != target.config.depth:
        raise UserError(f"weights of {source.config.name} cannot be adapted to {target.config.name}: another depth")
    copy_matching(source, target)
    batches = _endless(train)
    known = [x for x, _ in (next(batches) for _ in range(config.norm_batches))]
    model = copy.deepcopy(source)
    for network in (model, target):
        estimate_norms(network, known, hardware)
    teacher = for_inference(model, hardware.dtype)
    before = _distances(teacher, target, held, hardware)
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        on_step(done, config.steps)

    target.train()
    _teach_parts(teacher, source.config.tweaks, target, batches, hardware, config, told)
    left = config.steps - done  # all of them where no part could learn by itself
    _teach_whole(teacher, target, batches, hardware, left, config.whole_lr, told)
    estimate_norms(target, known, hardware)
    target.eval()
    after = _distances(teacher, target, held, hardware)
    return Adaptation(source.config.tweaks, target.config.tweaks, before, after)


def _endless(train: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields training batches, epoch after epoch."""
    for epoch in count():
        yield from train.training(epoch)


@torch.no_grad()
def _distances(teacher: nn.Module, model: nn.Module, held: Batches, hardware: Hardware) -> dict[str, float]:
    """Returns the mean distance of each stage over the images held back, the model in eval mode as it is."""
    student = for_inference(model, hardware.dtype)
    totals = torch.zeros(len(STAGES))
    for x_NCHW, _ in held.evaluation():
        x_NCHW = x_NCHW.to(hardware.dtype)
        pairs = zip(stage_outputs(student, x_NCHW), stage_outputs(teacher, x_NCHW), strict=True)
        totals += len(x_NCHW) * torch.stack([distance(output, wanted) for output, wanted in pairs]).cpu()
    return dict(zip(STAGES, (totals / len(held.members)).tolist(), strict=True))


def changed_parts(tweaks: str, target: ResNet) -> list[tuple[nn.Module, int]]:
    """Returns (part, number of the stage it belongs to) of what differs from a network with `tweaks`; 0 is the stem.

    B, D and F change the first block of stages 2 to 4, where the size halves; C and F the stem. E, which changes every
    block, is left to the training of the whole.
    """
    differing = set(tweaks) ^ set(target.config.tweaks)
    parts: list[tuple[nn.Module, int]] = []
    if differing & {"C", "F"}:
        parts.append((nn.Sequential(target.conv1, target.bn1, target.relu, target.maxpool), 0))
    if differing & {"B", "D", "F"}:
        parts += [(layer[0], i) for i, layer in ((2, target.layer2), (3, target.layer3), (4, target.layer4))]
    return parts


def _teach_parts(
    teacher: nn.Module,
    tweaks: str,
    target: ResNet,
    batches: Iterator[tuple[Tensor, Tensor]],
    hardware: Hardware,
    config: AdaptConfig,
    told: Callable[[], None],
) -> None:
    """Teaches each changed part by what goes into and comes out of the source's part, all at once."""
    parts = changed_parts(tweaks, target)
    if not parts:
        return
    optimizer = torch.optim.Adam([p for part, _ in parts for p in part.parameters()], config.part_lr)
    firsts = {2: teacher.layer2, 3: teacher.layer3, 4: teacher.layer4}
    for step in range(config.part_steps):
        x_NCHW, _ = next(batches)
        with torch.no_grad():
            outputs = stage_outputs(teacher, x_NCHW.to(hardware.dtype))
            wanted = [outputs[0] if i == 0 else firsts[i][0](outputs[i - 1]) for _, i in parts]  # type: ignore[index,operator]
        with hardware.autocast():
            given = [part(x_NCHW if i == 0 else outputs[i - 1].float()) for part, i in parts]
        loss = torch.stack([distance(g, w) for g, w in zip(given, wanted, strict=True)]).sum()
        _step(optimizer, loss, config.part_lr, step, config.part_steps)
        told()


def _teach_whole(
    teacher: nn.Module,
    target: ResNet,
    batches: Iterator[tuple[Tensor, Tensor]],
    hardware: Hardware,
    steps: int,
    lr: float,
    told: Callable[[], None],
) -> None:
    """Teaches all weights but the classifier's by what the source's last stage gives."""
    optimizer = torch.optim.Adam([p for n, p in target.named_parameters() if not n.startswith("fc.")], lr)
    for step in range(steps):
        x_NCHW, _ = next(batches)
        with torch.no_grad():
            wanted_NChw = stage_outputs(teacher, x_NCHW.to(hardware.dtype))[-1]
        with hardware.autocast():
            given_NChw = stage_outputs(target, x_NCHW)[-1]
        _step(optimizer, distance(given_NChw, wanted_NChw), lr, step, steps)
        told()


WARMUP = ScheduleConfig("cosine", warmup_epochs=1.0)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, step: int, total: int) -> None:
    """Takes a step at its rate: a tenth of the steps of warm-up, then half a cosine."""
    if not torch.isfinite(loss):
        raise RunError(f"adapting weights: the distance became {loss.item()} in step {step + 1} of {total}")
    for group in optimizer.param_groups:
        group["lr"] = lr * lr_factor(WARMUP, step, total, max(1, total // 10))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def estimate_norms(network: ResNet, batches: Sequence[Tensor], hardware: Hardware) -> None:
    """Sets batch-norm statistics, in place, to their plain average over batches of images; leaves it in train mode."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for x_NCHW in batches:
        with hardware.autocast():
            stage_outputs(network, x_NCHW)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
