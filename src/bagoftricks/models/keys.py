"""Names of tensors: others' made torchvision's, which timm shares and which are ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

PREFIXES = re.compile(r"^(?:(?:module|_orig_mod|model)\.)+")
"""What DistributedDataParallel, torch.compile and modules around a network put before its names."""
PYTORCHCV = (
    (re.compile(r"^features\.init_block\.conv\.conv\."), "conv1."),
    (re.compile(r"^features\.init_block\.conv\.bn\."), "bn1."),
    (re.compile(r"\.body\.conv(\d)\.conv\."), r".conv\1."),
    (re.compile(r"\.body\.conv(\d)\.bn\."), r".bn\1."),
    (re.compile(r"\.identity_conv\.conv\."), ".downsample.0."),
    (re.compile(r"\.identity_conv\.bn\."), ".downsample.1."),
    (re.compile(r"^output\."), "fc."),
)
"""pytorchcv's names and torchvision's."""
PYTORCHCV_UNIT = re.compile(r"^features\.stage(\d{1,2})\.unit(\d{1,3})\.")
"""It counts units from one."""
TRANSFORMERS = re.compile(r"^(?:resnet\.)?(?:embedder\.embedder|encoder\.stages)\.")
"""How names of Hugging Face transformers' ResNet begin."""


def renamed(state: dict[str, T]) -> dict[str, T]:
    """Returns a state dict with torchvision's names in place of pytorchcv's, and without prefixes of wrappers."""
    state = {PREFIXES.sub("", key): value for key, value in state.items()}
    if "features.init_block.conv.conv.weight" not in state:
        return state
    return {_from_pytorchcv(key): value for key, value in state.items()}


def _from_pytorchcv(key: str) -> str:
    key = PYTORCHCV_UNIT.sub(lambda found: f"layer{found[1]}.{int(found[2]) - 1}.", key)
    for theirs, ours in PYTORCHCV:
        key = theirs.sub(ours, key)
    return key


def is_of_transformers(keys: Iterable[str]) -> bool:
    """Whether names are those of Hugging Face transformers' ResNet, which differ in more than their beginnings."""
    return any(TRANSFORMERS.match(key) for key in keys)
