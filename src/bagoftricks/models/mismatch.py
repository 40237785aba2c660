"""Which network weights were trained in, as well as can be told, and what it means where that is another one."""

from __future__ import annotations

import json
import re

from torch import Tensor

from bagoftricks.data.names import shown
from bagoftricks.errors import UserError
from bagoftricks.models.backbone import Backbone
from bagoftricks.models.config import BLOCKS, RESNET, TIMM, ModelConfig, canonical_tweaks, is_bottleneck
from bagoftricks.models.network import Network
from bagoftricks.models.published import Published, trained_in
from bagoftricks.models.timm_names import resnet_of_timm

ADAPTATION = "adapted_from"
"""In a .safetensors' metadata: JSON that tells from which file and architecture weights were carried over."""


def depth_of(state: dict[str, Tensor]) -> int | None:
    """Returns the depth of the ResNet that a state dict belongs to; None if it is none."""
    blocks = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)
    )
    bottleneck = "layer1.0.conv3.weight" in state
    return next((d for d, counts in BLOCKS.items() if counts == blocks and is_bottleneck(d) == bottleneck), None)


def _architecture(state: dict[str, Tensor]) -> str:
    """Tells C, D and E by their keys. A and B share keys, and F has none: nearly every published ResNet is B, the 2015
    original apart, and without F.
    """
    shortcut = state.get("layer2.0.downsample.1.weight")
    tweaks = (
        "B" if "layer1.0.conv3.weight" in state else "",
        "C" if "conv1.0.weight" in state else "",
        "D" if shortcut is not None and shortcut.ndim == 4 else "",
        "E" if "layer1.0.se.fc1.weight" in state else "",
    )
    return "".join(tweaks) or "A"


def architecture_of(
    state: dict[str, Tensor], metadata: dict[str, str], item: Published | None
) -> tuple[str, int | None]:
    """Returns (tweaks, depth) of the network that a file's weights fit, as well as can be told; no depth if it is none.

    Args:
        state: what it holds, as from `read_state`.
        metadata: likewise.
        item: the published weights that it is, where it is any that are known.
    """
    if item and item.backbone != RESNET:
        return "", None
    return _trained_in(state, metadata, item)[0], depth_of(state)


def _trained_in(state: dict[str, Tensor], metadata: dict[str, str], item: Published | None) -> tuple[str, bool]:
    """Returns the architecture that weights fit, and whether that is certain."""
    stated = item.tweaks if item else metadata.get("architecture", "").rpartition("-")[2]
    try:
        stated = stated and canonical_tweaks(stated)
    except UserError:  # a file may say anything
        stated = ""
    if not stated and "stride in 3x3" in metadata.get("arch", ""):
        stated = "B"
    return stated or _architecture(state), bool(stated)


def _adapted(config: ModelConfig, metadata: dict[str, str]) -> str:
    """Says what it means that weights were adapted to the architecture; "" if they were not."""
    try:
        source = str(json.loads(metadata[ADAPTATION])["source"])
    except (KeyError, ValueError, TypeError):
        return ""
    return (
        f"the initial weights were trained in architecture {shown(source[:20])} and adapted to {config.tweaks}: "
        "what adapting did not reach is part of a difference between the two"
    )


def mismatch(config: ModelConfig, state: dict[str, Tensor], metadata: dict[str, str], item: Published | None) -> str:
    """Says what it means that the weights were trained in another architecture, and what to do; "" if they were not.

    Published weights are known by name or checksum; other files may say it themselves, or are judged by their keys.
    """
    if item and item.backbone != RESNET:
        return (
            f"the initial weights were trained in {item.backbone}, which {config.name} is not, whatever tensors they "
            f"share: what it reaches is partly that mismatch; --model {item.backbone} is the network that they fit"
        )
    source, certain = _trained_in(state, metadata, item)
    if source == config.tweaks:
        return _adapted(config, metadata)
    if not certain and "F" in config.tweaks and set(config.tweaks) - set("AF") == set(source) - {"A"}:
        return (
            "the initial weights' file does not say whether they were trained with a blur (F), which changes no "
            "tensor: if not, a difference between with and without it measures that mismatch as well as the tweak"
        )
    known = "were trained in" if certain else "were probably trained in (the file does not say; torchvision's are)"
    fitting = next(iter(trained_in(config)), None)
    advice = f"start from {fitting.name}, or carry" if fitting else "carry"
    return (
        f"the initial weights {known} architecture {source}, not {config.tweaks}: "
        "a difference between the two measures that mismatch as well as the tweak; "
        f"{advice} these over with tricks adapt"
    )


def left_random(model: Network, random: list[str]) -> str:
    """Says what it means that tensors start at random; "" if none does."""
    if not random:
        return ""
    return (
        f"{len(random):,} tensors of {model.config.name}, such as {random[0]}, are not in the initial weights and "
        "start at random: the result says little of pretrained weights"
    )


def lack(model: Network, item: Published | None, metadata: dict[str, str]) -> str:
    """Says what a backbone of timm's would need in another form; "" if all is well."""
    theirs = item.architecture if item else metadata.get("architecture", "")
    name = model.config.timm_name.partition(".")[0]
    network = resnet_of_timm(name)
    other = item is not None and item.backbone not in (RESNET, TIMM + name)
    if other or (re.fullmatch(r"ResNet-\d+-[A-F]+", theirs) and (network is None or network.name != theirs)):
        return (
            f"the initial weights were trained in {theirs}, which {model.config.name} is not: what it reaches is "
            "partly that mismatch"
        )
    if item and isinstance(model, Backbone) and (model.mean, model.std) != (item.mean, item.std):
        return (
            f"the initial weights {item.name} were trained on images of another mean or deviation than "
            f"{model.config.name} gets: name them in the architecture, --model {item.name}"
        )
    return ""
