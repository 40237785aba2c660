from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagoftricks.data.digits import read_digits
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.data.split import SplitConfig, split


def index_of(counts: list[int]) -> ImageIndex:
    labels = np.repeat(np.arange(len(counts)), counts)
    return ImageIndex("x", tuple(f"c{i}" for i in range(len(counts))), labels, tuple(map(str, range(len(labels)))))


@given(st.lists(st.integers(2, 40), min_size=2, max_size=8), st.floats(0.01, 0.99), st.integers(0, 5))
def test_every_class_is_on_both_sides_in_proportion(counts: list[int], fraction: float, seed: int) -> None:
    index = index_of(counts)
    sides = split(index, SplitConfig(fraction), seed)
    assert sorted([*sides.train, *sides.val]) == list(range(len(index)))
    for label, count in enumerate(counts):
        held_out = int((index.labels[sides.val] == label).sum())
        assert 1 <= held_out <= count - 1
        assert abs(held_out - count * fraction) <= 1


def test_seed_decides() -> None:
    index = index_of([30, 30])
    one, again, other = (split(index, SplitConfig(), seed) for seed in (0, 0, 1))
    assert np.array_equal(one.val, again.val)
    assert not np.array_equal(one.val, other.val)


def test_a_class_does_not_move_the_others() -> None:
    whole = read_digits()
    fewer = subset(whole, np.flatnonzero(whole.labels != 3).tolist())
    names = set(np.array(whole.names)[split(whole, SplitConfig(), 0).val])
    assert {fewer.names[i] for i in split(fewer, SplitConfig(), 0).val} < names


def test_a_given_split_is_kept() -> None:
    index = replace(index_of([2, 2]), given=("train", "val", "val", "train"))
    for seed in (0, 1):
        assert split(index, SplitConfig(), seed).val.tolist() == [1, 2]


def test_caltech_is_6941_to_1736(shared: object) -> None:
    from bagoftricks.data.sources import open_data

    sides = split(open_data(f"{shared}/data/caltech-101"), SplitConfig(), 0)
    assert (len(sides.train), len(sides.val)) == (6941, 1736)


def test_default_is_eight_to_two() -> None:
    assert SplitConfig().val_fraction == pytest.approx(0.2)
