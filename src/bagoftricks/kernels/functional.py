"""The kernels as functions for autograd: convolution, and batch-norm with what follows it.

Within `native()` they take the place of torch's own operations wherever they apply: in training, on bf16 images in
channels-last order with a multiple of 32 channels. Elsewhere, and outside the block, torch computes.

Against torch's: what follows a batch-norm (addition, ReLU) is computed in float and rounded to bf16 once, where torch
rounds after each operation; a weight's gradient is accumulated and handed over in float, where autocast rounds it to
bf16 first. The same inputs and threads give the same bits.

Shapes: N images, C channels in, O out, H x W pixels, K x K kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bagoftricks.kernels import products
from bagoftricks.kernels.build import Library, load

LANES = 32
"""Channels must be a multiple of it."""
MOST_CHANNELS = 4096
POSITIONS = 512
"""That the weight gradient takes at once: their tiles lie in the second cache, a tap's in the first."""

_active: list[Library] = []


@contextmanager
def native() -> Iterator[None]:
    """Lets the functions below use the kernels, within the block.

    Raises:
        RuntimeError: if they are not to be had here.
    """
    library = load()
    if isinstance(library, str):
        raise RuntimeError(f"no kernels of our own: {library}")
    _active.append(library)
    try:
        yield
    finally:
        _active.pop()


def conv2d(conv: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
    """Returns what `conv` gives; its weights' gradient comes from the kernels where they apply."""
    if _active and _active[-1].has_tiles and _is_ours(x_NCHW) and _is_plain(conv) and torch.is_grad_enabled():
        return _Conv.apply(x_NCHW, conv.weight, conv.stride[0], conv.padding[0], _active[-1])  # type: ignore[no-any-return]
    result: Tensor = conv(x_NCHW)
    return result


def norm(
    module: nn.Module, x_NCHW: Tensor, shortcut_NCHW: Tensor | None = None, *, relu: bool = False
) -> Tensor | None:
    """Returns module(x), plus the shortcut, cut off at zero if asked; None where the kernels do not apply."""
    if not _active or not _is_training(module, x_NCHW) or not _is_ours(x_NCHW):
        return None
    if shortcut_NCHW is not None and not (relu and _is_ours(shortcut_NCHW) and shortcut_NCHW.shape == x_NCHW.shape):
        return None
    assert isinstance(module, nn.BatchNorm2d)
    assert module.num_batches_tracked is not None
    module.num_batches_tracked.add_(1)
    running = module.running_mean, module.running_var, module.momentum, module.eps
    return _Norm.apply(x_NCHW, shortcut_NCHW, module.weight, module.bias, running, relu, _active[-1])  # type: ignore[no-any-return]


def _is_ours(x_NCHW: Tensor) -> bool:
    return (
        x_NCHW.dtype == torch.bfloat16
        and x_NCHW.device.type == "cpu"
        and x_NCHW.numel() > 0
        and x_NCHW.shape[1] % LANES == 0
        and x_NCHW.shape[1] <= MOST_CHANNELS
        and x_NCHW.is_contiguous(memory_format=torch.channels_last)
    )


def _is_plain(conv: nn.Conv2d) -> bool:
    return (
        conv.bias is None
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.stride[0] == conv.stride[1]
        and conv.padding[0] == conv.padding[1]
        and conv.padding_mode == "zeros"
        and conv.out_channels % LANES == 0
        and conv.weight.dtype == torch.float32
        and conv.weight.requires_grad
    )


def _is_training(norm: nn.Module, x_NCHW: Tensor) -> bool:
    return (
        isinstance(norm, nn.BatchNorm2d)
        and norm.training
        and norm.momentum is not None
        and norm.affine
        and norm.track_running_stats
        and norm.num_features == x_NCHW.shape[1]
        and norm.weight.dtype == norm.running_mean.dtype == torch.float32  # type: ignore[union-attr]
        and x_NCHW.numel() > x_NCHW.shape[1]  # one value a channel has no variance: torch says so
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _floats(*sizes: int) -> Tensor:
    """An empty tensor of what the kernels write, whatever torch's defaults are."""
    return torch.empty(sizes, dtype=torch.float32, device="cpu")


def _checked(code: int) -> None:
    if code:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory for a kernel")  # as torch says it


class _Norm(torch.autograd.Function):
    """relu(gamma (x - mean) / sqrt(var + eps) + beta + shortcut), moments of the batch; the last two if asked."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NCHW: Tensor,
        shortcut_NCHW: Tensor | None,
        gamma_C: Tensor,
        beta_C: Tensor,
        running: tuple[Tensor, Tensor, float, float],
        relu: bool,
        library: Library,
    ) -> Tensor:
        n, c, h, w = x_NCHW.shape
        y_NCHW, mean_C, inverse_C = torch.empty_like(x_NCHW), _floats(c), _floats(c)
        mean, var, momentum, eps = running
        code = library.norm_forward(
            x_NCHW.data_ptr(), _address(shortcut_NCHW), gamma_C.data_ptr(), beta_C.data_ptr(), mean.data_ptr(),
            var.data_ptr(), momentum, eps, relu, y_NCHW.data_ptr(), mean_C.data_ptr(), inverse_C.data_ptr(),
            n * h * w, c, torch.get_num_threads(),
        )  # fmt: skip
        _checked(code)
        ctx.save_for_backward(x_NCHW, y_NCHW if shortcut_NCHW is not None else None, gamma_C, beta_C, mean_C, inverse_C)
        ctx.relu, ctx.library = relu, library
        return y_NCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_NCHW, y_NCHW, gamma_C, beta_C, mean_C, inverse_C = ctx.saved_tensors
        n, c, h, w = x_NCHW.shape
        dy_NCHW = dy_NCHW.contiguous(memory_format=torch.channels_last)
        dx_NCHW, dgamma_C, dbeta_C = torch.empty_like(x_NCHW), _floats(c), _floats(c)
        dz_NCHW = None if y_NCHW is None else torch.empty_like(x_NCHW)
        code = ctx.library.norm_backward(
            dy_NCHW.data_ptr(), x_NCHW.data_ptr(), _address(y_NCHW), gamma_C.data_ptr(), beta_C.data_ptr(),
            mean_C.data_ptr(), inverse_C.data_ptr(), ctx.relu, _address(dz_NCHW), dx_NCHW.data_ptr(),
            dgamma_C.data_ptr(), dbeta_C.data_ptr(), n * h * w, c, torch.get_num_threads(),
        )  # fmt: skip
        _checked(code)
        return dx_NCHW, dz_NCHW, dgamma_C, dbeta_C, None, None, None


class _Conv(torch.autograd.Function):
    """A convolution by torch, or as a matrix product where that is sooner; its weights' gradient is ours."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight_OCKK: Tensor, stride: int, padding: int, library: Library) -> Tensor:
        half_OCKK = weight_OCKK.to(torch.bfloat16)
        ctx.save_for_backward(x_NCHW, half_OCKK)
        ctx.stride, ctx.padding, ctx.library, ctx.strides = stride, padding, library, weight_OCKK.stride()
        if products.is_sooner(half_OCKK.shape[2], max(x_NCHW.shape[2:]) // stride):
            return products.convolution(x_NCHW, half_OCKK, stride, padding)
        return F.conv2d(x_NCHW, half_OCKK, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_NOHW: Tensor) -> tuple[Tensor | None, ...]:
        x_NCHW, half_OCKK = ctx.saved_tensors
        dy_NOHW = dy_NOHW.contiguous(memory_format=torch.channels_last)
        dx_NCHW, stride, padding = None, ctx.stride, ctx.padding
        if not ctx.needs_input_grad[0]:
            pass
        elif products.is_sooner_backward(half_OCKK.shape[2], stride, max(dy_NOHW.shape[2:])):
            dx_NCHW = products.input_gradient(dy_NOHW, half_OCKK, x_NCHW.shape[2:], stride, padding)
        else:
            dx_NCHW = torch.ops.aten.convolution_backward(
                dy_NOHW, x_NCHW, half_OCKK, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
                [True, False, False],
            )[0]  # fmt: skip
        dw_OCKK = weight_gradient(x_NCHW, dy_NOHW, half_OCKK.shape[2], stride, padding, ctx.library)
        if half_OCKK.shape[2] == 1:  # one order of memory, two ways to write its strides; autograd wants the weights'
            dw_OCKK = dw_OCKK.as_strided(dw_OCKK.shape, ctx.strides)
        return dx_NCHW, dw_OCKK, None, None, None


def weight_gradient(
    x_NCHW: Tensor, dy_NOHW: Tensor, kernel: int, stride: int, padding: int, library: Library
) -> Tensor:
    """Returns dw_OCKK, float, in channels-last order: the gradient of a convolution's weights.

    Args:
        x_NCHW: its input, bf16, channels last, C a multiple of 32.
        dy_NOHW: the gradient of its output, likewise.
        kernel: K.
        stride: in both directions.
        padding: zeros on each side.
        library: with AMX tiles.
    """
    (n, c, h, w), (o, oh, ow) = x_NCHW.shape, dy_NOHW.shape[1:]
    dw_OKKC = _floats(o, kernel, kernel, c)
    code = library.weight_gradient(
        x_NCHW.data_ptr(), dy_NOHW.data_ptr(), dw_OKKC.data_ptr(), n, h, w, c, oh, ow, o, kernel, kernel, stride,
        padding, POSITIONS, torch.get_num_threads(),
    )  # fmt: skip
    _checked(code)
    return dw_OKKC.permute(0, 3, 1, 2)
