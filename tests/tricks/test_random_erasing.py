from __future__ import annotations

import pytest
import torch

from bagoftricks.errors import UserError
from bagoftricks.rng import stream
from bagoftricks.tricks.random_erasing import RandomErasing, rectangle

ON = {"random_erasing.prob": 0.5}


def images(n: int = 200, side: int = 32) -> torch.Tensor:
    return torch.ones(n, 3, side, side).contiguous(memory_format=torch.channels_last)


def test_a_share_of_the_images_loses_one_rectangle() -> None:
    x = images()
    erased, same = RandomErasing(0.3).on_batch(x, torch.eye(200), stream(0, "random_erasing"))
    assert torch.equal(same, torch.eye(200))
    assert float(x.min()) == 1.0  # the batch itself stays
    assert erased.is_contiguous(memory_format=torch.channels_last)
    hit = [i for i in range(200) if float(erased[i].min()) == 0]
    assert 40 < len(hit) < 80
    for i in hit:
        blank = erased[i, 0] == 0
        assert all(torch.equal(erased[i, c] == 0, blank) for c in range(3))
        rows, columns = blank.any(1).nonzero(), blank.any(0).nonzero()
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert int(blank.sum()) == height * width  # one whole rectangle
        assert 0.015 < height * width / 32**2 < 0.36
        assert 0.2 < height / width < 5


def test_rectangles_are_distributed_as_torchvisions() -> None:
    from scipy.stats import ks_2samp
    from torchvision.transforms import v2

    theirs, ours = [], []
    torch.manual_seed(0)
    erase, blank = v2.RandomErasing(p=1.0), torch.zeros(3, 48, 64)
    for step in range(600):
        params = erase.make_params([blank])
        theirs.append((params["i"], params["j"], params["h"], params["w"]))
        top, bottom, left, right = rectangle(48, 64, stream(0, "random_erasing", step))
        ours.append((top, left, bottom - top, right - left))
    for mine, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert ks_2samp(mine, other).pvalue > 1e-3


def test_is_deterministic() -> None:
    x, y = images(20), torch.eye(20)
    one, two = (RandomErasing(0.5).on_batch(x, y, stream(0, "random_erasing", 3))[0] for _ in range(2))
    assert torch.equal(one, two)
    other = RandomErasing(0.5).on_batch(x, y, stream(0, "random_erasing", 4))[0]
    assert not torch.equal(one, other)


def test_neutral_is_off() -> None:
    assert not RandomErasing().active


@pytest.mark.parametrize("prob", [-0.1, 1.1, float("nan")])
def test_refuses(prob: float) -> None:
    with pytest.raises(UserError, match=r"random_erasing\.prob"):
        RandomErasing(prob)
