from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2

from bagoftricks.errors import UserError
from bagoftricks.rng import stream
from bagoftricks.tricks.cutmix import Cutmix, box, paste

ON = {"cutmix.alpha": 1.0}


def batch(n: int = 6, k: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.rand(n, 3, 8, 10, generator=generator).contiguous(memory_format=torch.channels_last)
    return x_NCHW, torch.nn.functional.one_hot(torch.arange(n) % k, k).float()


def test_paste_against_an_explicit_loop() -> None:
    x, y = batch()
    partner = torch.tensor([3, 0, 5, 1, 2, 4])
    mixed_x, mixed_y = paste(x, y, (2, 5, 1, 9), partner)
    lam = 1 - 3 * 8 / 80
    for i in range(len(x)):
        j = int(partner[i])
        for c, h, w in np.ndindex(3, 8, 10):
            source = x[j] if 2 <= h < 5 and 1 <= w < 9 else x[i]
            assert mixed_x[i, c, h, w] == source[c, h, w]
        torch.testing.assert_close(mixed_y[i], lam * y[i] + (1 - lam) * y[j])


@pytest.mark.parametrize("seed", range(20))
def test_box_is_torchvisions(seed: int) -> None:
    theirs = v2.CutMix(alpha=1.0, num_classes=4)
    x, _ = batch()
    torch.manual_seed(seed)
    params = theirs.make_params([x])
    left, top, right, bottom = params["box"]
    torch.manual_seed(seed)  # the same draws: lam, then the centre
    lam = float(theirs._dist.sample(()))
    across, down = int(torch.randint(10, (1,))), int(torch.randint(8, (1,)))
    assert box(8, 10, lam, (down, across)) == (top, bottom, left, right)


def test_is_deterministic_and_keeps_shapes_types_and_its_input() -> None:
    x, y = batch()
    before = x.clone()
    one, two = (Cutmix(1.0).on_batch(x, y, stream(0, "cutmix", 7)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert any(not torch.equal(one[0], Cutmix(1.0).on_batch(x, y, stream(0, "cutmix", s))[0]) for s in range(3))
    assert torch.equal(x, before)
    assert (one[0].shape, one[0].dtype) == (x.shape, x.dtype)
    assert one[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one[1].sum(1), torch.ones(len(y)))


def test_targets_follow_the_pixels() -> None:
    n = 8
    x = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 1, 16, 16)
    for step in range(10):
        mixed_x, mixed_y = Cutmix(1.0).on_batch(x, torch.eye(n), stream(0, "cutmix", step))
        torch.testing.assert_close(mixed_x.mean((1, 2, 3)), mixed_y @ torch.arange(n, dtype=torch.float32))


def test_neutral_is_off() -> None:
    assert not Cutmix().active
    assert Cutmix(1.0).active


@pytest.mark.parametrize("alpha", [-0.1, 101, float("nan")])
def test_refuses(alpha: float) -> None:
    with pytest.raises(UserError, match=r"cutmix\.alpha"):
        Cutmix(alpha)
