"""What timm calls the ResNets of this project, and which of these a name of timm's stands for. No torch, no timm."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

from bagoftricks.models.config import BLOCKS, ModelConfig, is_bottleneck

BLURRED = ("resnetblur18", "resnetblur50", "resnetblur50d", "resnetblur101d")
"""timm's networks with F."""
GATED = "se"
"""What timm's names of networks with E begin with."""


def timm_architecture(config: ModelConfig) -> tuple[str, dict[str, Any]] | None:
    """Returns timm's name of a network and the arguments that it needs beside; None where timm has no such network.

    timm's bottlenecks are all of B. It has names for B, BC and BCD (without bottlenecks: A and CD); a deep stem or an
    average-pool shortcut without the other is otherwise an argument of its `ResNet`, as E is, and as fewer blocks are:
    depth 10 is its 18. Of F it has a few.
    """
    if not config.is_resnet:
        return config.timm_name.partition(".")[0], {}
    deep, more = is_bottleneck(config.depth), dict[str, Any]()
    if deep and "B" not in config.tweaks:
        return None
    depth = config.depth
    if depth == 10:
        depth, more["layers"] = 18, list(BLOCKS[10])
    if "E" in config.tweaks:
        more["block_args"] = {"attn_layer": "se"}
    stem, shortcut = "C" in config.tweaks, "D" in config.tweaks
    if "F" in config.tweaks:
        name = f"resnetblur{depth}{'d' if stem and shortcut else ''}"
        return (name, more) if name in BLURRED and stem == shortcut else None
    name = f"resnet{depth}"
    if stem and shortcut:
        return f"{name}d", more
    if stem:
        return (f"{name}c", more) if deep else (name, {"stem_width": 32, "stem_type": "deep", **more})
    return name, {"avg_down": True, **more} if shortcut else more


def resnet_of_timm(name: str) -> ModelConfig | None:
    """Returns which ResNet of this project a network of timm's is; None if it is another one.

    Another one may have tensors of the same names and shapes: `resnetaa50` averages where `resnet50` strides.

    Args:
        name: as timm has it, without a tag: "resnet50d", "seresnet50".
    """
    if gated := _named().get(name.removeprefix(GATED)) if name.startswith(GATED) else None:
        return ModelConfig("".join(sorted({*gated.tweaks, "E"})), gated.depth)
    return _named().get(name)


@cache
def _named() -> dict[str, ModelConfig]:
    """Returns every ResNet that a name of timm's stands for without further arguments."""
    found = dict[str, ModelConfig]()
    for depth in BLOCKS:
        letters = "BCDF" if is_bottleneck(depth) else "CDF"
        for tweaks in ("".join(c) or "A" for n in range(len(letters) + 1) for c in combinations(letters, n)):
            config = ModelConfig(tweaks, depth)
            name, arguments = timm_architecture(config) or ("", {})
            if name and not arguments:
                found[name] = config
    return found
