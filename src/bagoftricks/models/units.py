"""A convolution with what follows it, as one operation where this machine has one.

In training a batch-norm follows, which our kernels compute together with the addition and ReLU (`kernels.functional`).
In a network for inference it is folded into the convolution (`models.inference`), and oneDNN adds and cuts off at zero
while it still holds the result: the same figures, without the passes over memory. Elsewhere it is one module after the
other.

Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagoftricks.kernels import functional as kernels


class SqueezeExcitation(nn.Module):
    """Weighs each channel by what the means of all of them say: x * sigmoid(fc2(relu(fc1(mean of x)))).

    With a sixteenth of the channels between, in whole multiples of 8 (Hu et al. 2018; timm's names and widths).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        between = max(8, -(-channels // 16 // 8) * 8)
        self.fc1 = nn.Conv2d(channels, between, 1)
        self.fc2 = nn.Conv2d(between, channels, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Returns images of the same shape."""
        means_NC11 = x_NCHW.mean((2, 3), keepdim=True)
        gate_NC11: Tensor = self.fc2(F.relu(self.fc1(means_NC11))).sigmoid()
        return x_NCHW * gate_NC11


class BlurPool(nn.Module):
    """Halves an image after a blur by (1, 2, 1) / 4 in both directions, its edges mirrored (Zhang 2019).

    At least 2 x 2 pixels.
    """

    kernel_size, stride = 3, 2
    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filter", torch.outer(row, row).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Returns images of half the height and width, rounded up."""
        # as F.pad's "reflect", whose gradient on a GPU is not the same each time
        x_NCHW = torch.cat([x_NCHW[:, :, 1:2], x_NCHW, x_NCHW[:, :, -2:-1]], 2)
        x_NCHW = torch.cat([x_NCHW[..., 1:2], x_NCHW, x_NCHW[..., -2:-1]], 3)
        return F.conv2d(x_NCHW, self.filter, stride=self.stride, groups=len(self.filter))


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Returns norm(conv(x))."""
    x_NCHW = kernels.conv2d(conv, x_NCHW)
    ours = kernels.norm(norm, x_NCHW)
    if ours is not None:
        return ours
    result: Tensor = norm(x_NCHW)
    return result


def conv_norm_relu(conv: nn.Conv2d, norm: nn.Module, relu: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Returns relu(norm(conv(x)))."""
    if isinstance(norm, nn.Identity) and _by_onednn(conv, x_NCHW):
        return torch.ops.mkldnn._convolution_pointwise(x_NCHW, *_arguments(conv), "relu", [], "")  # type: ignore[no-any-return]
    x_NCHW = kernels.conv2d(conv, x_NCHW)
    ours = kernels.norm(norm, x_NCHW, relu=True)
    if ours is not None:
        return ours
    result: Tensor = relu(norm(x_NCHW))
    return result


def conv_norm_add_relu(conv: nn.Conv2d, norm: nn.Module, x_NCHW: Tensor, shortcut_NCHW: Tensor) -> Tensor:
    """Returns relu(norm(conv(x)) + shortcut); the shortcut is not written over."""
    if isinstance(norm, nn.Identity) and _by_onednn(conv, x_NCHW):
        operation = torch.ops.mkldnn._convolution_pointwise.binary
        return operation(x_NCHW, shortcut_NCHW, *_arguments(conv), "add", 1.0, "relu", [], "")  # type: ignore[no-any-return]
    x_NCHW = kernels.conv2d(conv, x_NCHW)
    ours = kernels.norm(norm, x_NCHW, shortcut_NCHW, relu=True)
    if ours is not None:
        return ours
    return F.relu(norm(x_NCHW).add_(shortcut_NCHW), inplace=True)


def drop_add_relu(branch_NCHW: Tensor, shortcut_NCHW: Tensor, prob: float) -> Tensor:
    """Returns relu(drop(branch) + shortcut): each image's branch is 0 with probability `prob`, else larger by
    1 / (1 - prob).
    """
    if prob:
        kept_N = torch.empty(len(branch_NCHW), 1, 1, 1, dtype=branch_NCHW.dtype, device=branch_NCHW.device)
        branch_NCHW = branch_NCHW * kept_N.bernoulli_(1 - prob).div_(1 - prob)
    return F.relu(branch_NCHW + shortcut_NCHW, inplace=True)


def sequence_norm_relu(layers: nn.Module, norm: nn.Module, relu: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Returns relu(norm(layers(x))); layers are a convolution, or a stem of several with norm and ReLU between them."""
    if isinstance(layers, nn.Conv2d):
        return conv_norm_relu(layers, norm, relu, x_NCHW)
    assert isinstance(layers, nn.Sequential)
    *before, last = layers
    for conv, its_norm, its_relu in zip(before[::3], before[1::3], before[2::3], strict=True):
        x_NCHW = conv_norm_relu(conv, its_norm, its_relu, x_NCHW)  # type: ignore[arg-type]
    return conv_norm_relu(last, norm, relu, x_NCHW)  # type: ignore[arg-type]


@cache
def _has_bf16_convolutions() -> bool:
    """Whether oneDNN is there, and computes in bf16 on this processor: it raises where it does not."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # type: ignore[no-untyped-call]


def _arguments(conv: nn.Conv2d) -> tuple[Any, ...]:
    return conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups


def _by_onednn(conv: nn.Conv2d, x_NCHW: Tensor) -> bool:
    """Whether oneDNN takes it: bf16 on a CPU, where it counts, and no graph that somebody records or differentiates."""
    return (
        x_NCHW.dtype == torch.bfloat16 == conv.weight.dtype
        and x_NCHW.device.type == "cpu"
        and _has_bf16_convolutions()
        and not torch.is_grad_enabled()
        and x_NCHW.is_contiguous(memory_format=torch.channels_last)
    )
