"""Convolutions as matrix products, where that is sooner: 1x1 kernels that skip positions, and small maps.

oneDNN's convolutions go along a map's rows; where these are short, or positions are skipped, its AMX tiles stay mostly
empty. A matrix product takes all positions of all images as one long side. `is_sooner` and `is_sooner_backward`
say where, by shape alone, so that the same run always computes the same way; measured on AMX units, the tables are in
docs/explanation/performance.md.

Shapes: N images, C channels in, O out, H x W pixels in, h x w out, K x K kernel; all channels last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL, SMALL_1X1 = 4, 16
"""Largest side of an output for which a 3x3, or a 1x1, is computed as a product."""


def is_sooner(kernel: int, side: int) -> bool:
    """Whether the output of a convolution is computed sooner as a product; `side` is its longer side."""
    return side <= (SMALL_1X1 if kernel == 1 else SMALL)


def is_sooner_backward(kernel: int, stride: int, side: int) -> bool:
    """Whether the gradient of its input is."""
    return is_sooner(kernel, side) or (kernel == 1 and stride > 1)


def convolution(x_NCHW: Tensor, weight_OCKK: Tensor, stride: int, padding: int) -> Tensor:
    """Returns what `F.conv2d` does, y_NOhw."""
    outputs, channels, kernel, _ = weight_OCKK.shape
    if kernel == 1 and padding == 0:
        x_NhwC = _rows(x_NCHW[:, :, ::stride, ::stride])
        n, h, w, _ = x_NhwC.shape
        columns_PX = x_NhwC.reshape(-1, channels)
    else:
        columns_PX, (n, h, w) = _columns(x_NCHW, kernel, stride, padding)
    y_PO = columns_PX @ _rows(weight_OCKK).reshape(outputs, -1).t()
    return _channels_first(y_PO.view(n, h, w, outputs))


def input_gradient(dy_NOhw: Tensor, weight_OCKK: Tensor, size: tuple[int, int], stride: int, padding: int) -> Tensor:
    """Returns dx_NCHW, the gradient of the input, of H x W = size."""
    (outputs, channels, kernel, _), (n, _, h, w), (height, width) = weight_OCKK.shape, dy_NOhw.shape, size
    if kernel == 1 and padding == 0:
        dx_NhwC = (_rows(dy_NOhw).reshape(-1, outputs) @ weight_OCKK.reshape(outputs, channels)).view(n, h, w, channels)
        if stride == 1:
            return _channels_first(dx_NhwC)
        dx_NHWC = dx_NhwC.new_zeros(n, height, width, channels)
        dx_NHWC[:, ::stride, ::stride] = dx_NhwC
        return _channels_first(dx_NHWC)
    if stride == 1:  # a convolution with the kernel turned round
        columns_PX, (n, height, width) = _columns(dy_NOhw, kernel, 1, kernel - 1 - padding)
        turned_XC = weight_OCKK.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, channels)
        return _channels_first((columns_PX @ turned_XC).view(n, height, width, channels))
    parts_PX = _rows(dy_NOhw).reshape(-1, outputs) @ _rows(weight_OCKK).reshape(outputs, -1)
    parts = parts_PX.view(n, h, w, kernel, kernel, channels)  # several of them meet in a position: summed in float
    padded = torch.zeros(n, height + 2 * padding, width + 2 * padding, channels, dtype=torch.float32)
    for i in range(kernel):
        for j in range(kernel):
            padded[:, i : i + stride * h : stride, j : j + stride * w : stride][:, :h, :w] += parts[:, :, :, i, j]
    return _channels_first(padded[:, padding : padding + height, padding : padding + width].to(dy_NOhw.dtype))


def _columns(x_NCHW: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, tuple[int, int, int]]:
    """Returns (N h w, K K C): what each position of the output sees; and N, h, w."""
    x_NHWC = F.pad(_rows(x_NCHW), (0, 0, padding, padding, padding, padding))
    n, height, width, c = x_NHWC.shape
    h, w = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    image, row, column, _ = x_NHWC.stride()
    strides = (image, row * stride, column * stride, row, column, 1)
    return x_NHWC.as_strided((n, h, w, kernel, kernel, c), strides).reshape(n * h * w, kernel * kernel * c), (n, h, w)


def _rows(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.permute(0, 2, 3, 1)


def _channels_first(x_NHWC: Tensor) -> Tensor:
    return x_NHWC.contiguous().permute(0, 3, 1, 2)
