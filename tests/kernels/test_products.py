"""Convolutions as matrix products give what torch's give, in double precision to the last digits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bagoftricks.kernels import products

SHAPES = [
    (2, 5, 7, 4, 4, 3, 1, 1), (3, 4, 6, 7, 5, 3, 2, 1), (2, 6, 4, 8, 8, 3, 2, 1), (2, 3, 8, 9, 9, 1, 2, 0),
    (2, 8, 3, 6, 6, 1, 1, 0), (1, 2, 2, 1, 1, 3, 1, 1), (2, 4, 4, 6, 8, 5, 2, 2), (2, 3, 4, 2, 2, 3, 2, 1),
]  # fmt: skip
"""N, C, O, H, W, kernel, stride, padding."""


@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_input_gradient(shape: tuple[int, ...]) -> None:
    n, c, o, h, w, kernel, stride, padding = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*sizes: int) -> Tensor:
        whole = torch.randint(-4, 5, sizes, generator=generator).float()  # sums of these are exact
        return whole.contiguous(memory_format=torch.channels_last)

    x, weight = draw(n, c, h, w).requires_grad_(), draw(o, c, kernel, kernel)
    expected = F.conv2d(x, weight, None, stride, padding)
    found = products.convolution(x.detach(), weight, stride, padding)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    dy = draw(*expected.shape)
    expected.backward(dy)
    dx = products.input_gradient(dy, weight, (h, w), stride, padding)
    assert x.grad is not None
    assert torch.equal(dx, x.grad)
    assert dx.is_contiguous(memory_format=torch.channels_last)


def test_where_they_are_used() -> None:
    """By shape alone: what was measured to be slower as a product stays a convolution."""
    assert products.is_sooner(1, 7)
    assert not products.is_sooner(1, 28)
    assert products.is_sooner(3, 4)
    assert not products.is_sooner(3, 7)
    assert products.is_sooner_backward(1, 2, 28)
    assert not products.is_sooner_backward(1, 1, 28)
    assert not products.is_sooner_backward(3, 2, 28)
