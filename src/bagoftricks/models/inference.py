"""Networks for evaluation: each batch-norm folded into the convolution before it, in the precision that is computed in.

In eval mode a batch-norm is a factor and a shift for each channel, so that a convolution can do its work:
w' = w * gamma / sqrt(var + eps), b' = beta - mean * gamma / sqrt(var + eps) (Jacob et al. 2018, arXiv:1712.05877, 3.2).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bagoftricks.models.resnet import ResNet


def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Returns a copy in eval mode that computes in `dtype`; a `ResNet` comes without batch-norms. `model` stays.

    Logits agree with the model's to rounding. The copy cannot be trained. In other networks a batch-norm may stand
    before its convolution, so that they are only copied.
    """
    folded = copy.deepcopy(model).eval()
    for parameter in folded.parameters():
        parameter.grad = None
    for owner, conv, norm in list(_pairs(folded)) if isinstance(model, ResNet) else ():
        fused = fuse_conv_bn_eval(folded.get_submodule(conv), owner.get_submodule(norm))  # type: ignore[type-var,arg-type]
        _put(folded, conv, fused)
        setattr(owner, norm, nn.Identity())
    return folded.to(dtype=dtype, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload, no-any-return]


def in_parts(network: nn.Module, x_NCHW: Tensor, most: int | None) -> Tensor:
    """Returns the network's output for a batch that it sees at most so many images of at once; None for all."""
    if most is None or len(x_NCHW) <= most:
        return network(x_NCHW)  # type: ignore[no-any-return]
    return torch.cat([network(part) for part in x_NCHW.split(most)])  # type: ignore[no-untyped-call]


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yields (owner, path of the convolution, name in the owner of the batch-norm that follows it).

    By the names of `ResNet`: conv1 and bn1 of one module, and neighbours in a sequence.
    """
    for path, owner in model.named_modules():
        prefix = f"{path}." if path else ""
        children = list(owner.named_children())
        for name, norm in children:
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if isinstance(owner, nn.Sequential):
                before = children[children.index((name, norm)) - 1]
            else:
                before = next(((n, m) for n, m in children if n == name.replace("bn", "conv")), ("", norm))
            conv_path, conv = prefix + before[0], before[1]
            if isinstance(conv, nn.Sequential):  # the deep stem, whose last convolution the norm follows
                last = list(conv.named_children())[-1]
                conv_path, conv = f"{conv_path}.{last[0]}", last[1]
            if isinstance(conv, nn.Conv2d):
                yield owner, conv_path, name


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, name, module)
