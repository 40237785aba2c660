from __future__ import annotations

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from bagoftricks.errors import UserError
from bagoftricks.rng import forked, stream
from bagoftricks.tricks.rand_augment import RandAugment

ON = {"rand_augment.magnitude": 9}


def pictures(n: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_each_image_is_changed_as_torchvision_would_change_it_alone() -> None:
    x = pictures()
    changed = RandAugment(9, 2).on_pixels(x, stream(0, "rand_augment", 3))
    theirs = v2.RandAugment(2, 9, interpolation=InterpolationMode.BILINEAR)
    with forked(stream(0, "rand_augment", 3)):
        for i in range(len(x)):
            assert torch.equal(changed[i], theirs(x[i]))
    assert sum(not torch.equal(changed[i], x[i]) for i in range(24)) > 18


def test_more_changes_move_pixels_further() -> None:
    x = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    x[:, :, 8:24, 8:24] = 40
    moved = [
        (RandAugment(20, ops).on_pixels(x, stream(0, "rand_augment", 0)).float() - x.float()).abs().mean()
        for ops in (1, 4)
    ]
    assert moved[0] < moved[1]


def test_is_deterministic() -> None:
    x = pictures(8)
    one, two, other = (RandAugment(9).on_pixels(x, stream(0, "rand_augment", step)) for step in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_neutral_is_off_and_a_number_of_changes_alone_does_nothing() -> None:
    assert not RandAugment().active
    assert not RandAugment(ops=4).active
    assert RandAugment(9).active


@pytest.mark.parametrize(("magnitude", "ops", "field"), [(-1, 2, "magnitude"), (31, 2, "magnitude"), (9, 0, "ops")])
def test_refuses(magnitude: int, ops: int, field: str) -> None:
    with pytest.raises(UserError, match=rf"rand_augment\.{field}"):
        RandAugment(magnitude, ops)
