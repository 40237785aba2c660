from __future__ import annotations

import numpy as np
import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.rng import stream
from bagoftricks.tricks.mixup import Mixup, blend

ON = {"mixup.alpha": 0.2}


def batch(n: int = 6, k: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.rand(n, 3, 5, 7, generator=generator).contiguous(memory_format=torch.channels_last)
    return x_NCHW, torch.nn.functional.one_hot(torch.arange(n) % k, k).float()


def test_blend_against_an_explicit_loop() -> None:
    x, y = batch()
    partner = torch.tensor([3, 0, 5, 1, 2, 4])
    mixed_x, mixed_y = blend(x, y, 0.3, partner)
    for i in range(len(x)):
        j = int(partner[i])
        torch.testing.assert_close(mixed_x[i], 0.3 * x[i] + 0.7 * x[j])
        torch.testing.assert_close(mixed_y[i], 0.3 * y[i] + 0.7 * y[j])


def test_neutral_is_off() -> None:
    assert not Mixup().active
    assert Mixup(0.2).active


def test_is_deterministic_and_keeps_shapes_types_and_its_input() -> None:
    x, y = batch()
    before = x.clone()
    one = Mixup(0.2).on_batch(x, y, stream(0, "mixup", 7))
    two = Mixup(0.2).on_batch(x, y, stream(0, "mixup", 7))
    other = Mixup(0.2).on_batch(x, y, stream(0, "mixup", 8))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    assert torch.equal(x, before)
    assert (one[0].shape, one[0].dtype) == (x.shape, x.dtype)
    assert one[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one[1].sum(1), torch.ones(len(y)))


def test_images_and_targets_are_blended_in_the_same_proportion() -> None:
    n = 8
    x = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1)
    y = torch.eye(n)
    mixed_x, mixed_y = Mixup(1.0).on_batch(x, y, stream(0, "mixup"))
    torch.testing.assert_close(mixed_x.flatten(), mixed_y @ torch.arange(n, dtype=torch.float32))


def test_lam_follows_the_beta_distribution() -> None:
    x, y = torch.zeros(2, 1, 1, 1), torch.eye(2)
    shares = []
    for step in range(2000):
        _, mixed = Mixup(0.2).on_batch(x, y, stream(0, "mixup", step))
        shares.append(float(mixed[0, 0]))
    partnered = np.array([s for s in shares if s < 1])  # the permutation leaves an image with itself half of the time
    assert 800 < len(partnered) < 1200
    assert abs(partnered.mean() - 0.5) < 0.04
    assert abs(partnered.var() - 1 / (4 * (2 * 0.2 + 1))) < 0.02


@pytest.mark.parametrize("alpha", [-0.1, 101, float("nan")])
def test_refuses(alpha: float) -> None:
    with pytest.raises(UserError, match="mixup.alpha"):
        Mixup(alpha)
