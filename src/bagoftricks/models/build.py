"""From a config to a network, and what one costs."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from bagoftricks.models.config import TWEAKS, ModelConfig, is_bottleneck
from bagoftricks.models.network import Network
from bagoftricks.models.resnet import ResNet


def build(config: ModelConfig, num_classes: int, seed: int = 0) -> Network:
    """Returns the configured network with initial weights of the seed.

    Raises:
        UserError: for a backbone that timm does not have, or without timm.
    """
    if config.is_resnet:
        return ResNet(config.tweaks, config.depth, num_classes, config.zero_init_gamma, seed)
    from bagoftricks.models.backbone import Backbone

    return Backbone(config, num_classes, seed)


@cache
def cost(config: ModelConfig, num_classes: int = 1000, size: int = 224) -> tuple[int, int]:
    """Returns (parameters, multiply-adds of one image of size x size pixels).

    Of a ResNet convolutions and classifier count; of a backbone of timm's all products, those of attention too.
    """
    if not config.is_resnet:
        return _counted(config, num_classes, size)
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += weight[0].numel() * output.numel()  # each number of the output is a product with one row

    with torch.device("meta"):
        model = build(config, num_classes)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():  # with whatever lies in memory as weights: the first pass on the meta device takes seconds
        model.to_empty(device="cpu").eval()(torch.zeros(1, 3, size, size))
    return sum(p.numel() for p in model.parameters()), total


def _counted(config: ModelConfig, num_classes: int, size: int) -> tuple[int, int]:
    """As `cost`, by torch's counter: some of timm's have indices among their buffers, or products outside layers."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model, image = build(config, num_classes).eval(), torch.zeros(1, 3, size, size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(image)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def catalogue(depth: int = 50) -> list[dict[str, Any]]:
    """Returns name, tweaks, depth, parameters and multiply-adds at 224 pixels of the architectures of a depth.

    Of E and F, which may be added to any, each alone and with all the others.
    """
    base = "B" if is_bottleneck(depth) else ""
    more = (f"{base}E", f"{base}F", f"{base}CDEF")
    allowed = [*(tweaks for tweaks in TWEAKS if is_bottleneck(depth) or "B" not in tweaks), *more]
    rows = []
    for config in (ModelConfig(tweaks, depth) for tweaks in allowed):
        parameters, multiply_adds = cost(config)
        rows.append(
            {
                "name": config.name,
                "tweaks": config.tweaks,
                "depth": depth,
                "parameters": parameters,
                "multiply_adds": multiply_adds,
            }
        )
    return rows
