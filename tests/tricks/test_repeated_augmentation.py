from __future__ import annotations

import numpy as np
import pytest

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import DecodedImages
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import UserError
from bagoftricks.recipe import Recipe
from bagoftricks.rng import stream
from bagoftricks.tricks.repeated_augmentation import RepeatedAugmentation, repeat

ON = {"repeated_augmentation.repeats": 2}


def test_against_an_explicit_loop() -> None:
    order = np.array([5, 2, 9, 1, 7, 3, 8])
    expected = [order[i // 3] for i in range(7)]
    assert repeat(order, 3).tolist() == expected == [5, 5, 5, 2, 2, 2, 9]


def test_agrees_with_timms_sampler() -> None:
    from timm.data.distributed_sampler import RepeatAugSampler

    sampler = RepeatAugSampler(range(100), num_replicas=1, rank=0, shuffle=False, num_repeats=4, selected_round=0)
    assert list(sampler)[:100] == repeat(np.arange(100), 4).tolist()


def test_repeats_get_crops_of_their_own(digits: ImageIndex, recipe: Recipe) -> None:
    side = Batches(DecodedImages(digits, 48), digits.labels, np.arange(32), recipe.input, 8, 0)
    trick = RepeatedAugmentation(2)
    rng = stream(0, "repeated_augmentation/order")
    for x, label in side.training(0, order=trick.on_order(side.order(0), digits.labels, rng)):
        assert label[0::2].tolist() == label[1::2].tolist()
        assert (x[0::2] - x[1::2]).abs().amax((1, 2, 3)).min() > 0.1


def test_neutral_is_off() -> None:
    assert not RepeatedAugmentation().active


@pytest.mark.parametrize("repeats", [0, 17])
def test_refuses(repeats: int) -> None:
    with pytest.raises(UserError, match=r"repeated_augmentation\.repeats"):
        RepeatedAugmentation(repeats)
