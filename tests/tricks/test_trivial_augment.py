from __future__ import annotations

import torch
from torchvision.transforms import InterpolationMode, v2

from bagoftricks.rng import forked, stream
from bagoftricks.tricks.trivial_augment import TrivialAugment

ON = {"trivial_augment.on": True}


def pictures(n: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return x_NCHW.contiguous(memory_format=torch.channels_last)


def test_each_image_is_changed_as_torchvision_would_change_it_alone() -> None:
    x = pictures()
    changed = TrivialAugment(True).on_pixels(x, stream(0, "trivial_augment", 3))
    theirs = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    with forked(stream(0, "trivial_augment", 3)):
        for i in range(len(x)):
            assert torch.equal(changed[i], theirs(x[i]))
    assert 12 < sum(not torch.equal(changed[i], x[i]) for i in range(24)) <= 24  # some draw "nothing"


def test_is_deterministic_and_keeps_shapes_types_and_its_input() -> None:
    x = pictures(8)
    before = x.clone()
    one, two, other = (TrivialAugment(True).on_pixels(x, stream(0, "trivial_augment", step)) for step in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)
    assert (one.shape, one.dtype) == (x.shape, torch.uint8)


def test_neutral_is_off() -> None:
    assert not TrivialAugment().active
