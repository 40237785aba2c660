"""Initial weights for the peers: the same file that ours reads, its classifier left out."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from bagoftricks.models.state import read_state

CLASSIFIER = ("fc.weight", "fc.bias")
"""Of torchvision's and timm's resnet50."""


def body(path: str, model: nn.Module) -> dict[str, Tensor]:
    """Returns what a torchvision or timm resnet50 takes from a file, in fp32.

    Raises:
        ValueError: if the file lacks a tensor of the model, the classifier and counters apart.
    """
    state, _ = read_state(Path(path))
    kept = {key: tensor.float() for key, tensor in state.items() if key not in CLASSIFIER}
    lacking = {k for k in model.state_dict() if k not in kept and not k.endswith("num_batches_tracked")}
    if lacking - set(CLASSIFIER):
        raise ValueError(f"{path}: lacks {', '.join(sorted(lacking - set(CLASSIFIER))[:3])}")
    return {key: tensor for key, tensor in kept.items() if key in model.state_dict()}
