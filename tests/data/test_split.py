from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagoftricks.data.digits import read_digits
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.data.split import SplitConfig, leaks, split, units_of
from bagoftricks.errors import UserError
from bagoftricks.rng import stream

PLAIN = SplitConfig(duplicates="ignore")


def index_of(counts: list[int]) -> ImageIndex:
    labels = np.repeat(np.arange(len(counts)), counts)
    return ImageIndex("x", tuple(f"c{i}" for i in range(len(counts))), labels, tuple(map(str, range(len(labels)))))


@given(st.lists(st.integers(2, 40), min_size=2, max_size=8), st.floats(0.01, 0.99), st.integers(0, 5))
def test_every_class_is_on_both_sides_in_proportion(counts: list[int], fraction: float, seed: int) -> None:
    index = index_of(counts)
    sides = split(index, SplitConfig(fraction, duplicates="ignore"), seed)
    assert sorted([*sides.train, *sides.val]) == list(range(len(index)))
    for label, count in enumerate(counts):
        held_out = int((index.labels[sides.val] == label).sum())
        assert 1 <= held_out <= count - 1
        assert abs(held_out - count * fraction) <= 1


def test_seed_decides() -> None:
    index = index_of([30, 30])
    one, again, other = (split(index, PLAIN, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.val, again.val)
    assert not np.array_equal(one.val, other.val)


def test_a_class_does_not_move_the_others() -> None:
    whole = read_digits()
    fewer = subset(whole, np.flatnonzero(whole.labels != 3).tolist())
    names = set(np.array(whole.names)[split(whole, PLAIN, 0).val])
    assert {fewer.names[i] for i in split(fewer, PLAIN, 0).val} < names


def test_a_given_split_is_kept() -> None:
    index = replace(index_of([2, 2]), given=("train", "val", "val", "train"))
    for seed in (0, 1):
        assert split(index, PLAIN, seed).val.tolist() == [1, 2]


def test_caltech_is_6941_to_1736(shared: object) -> None:
    from bagoftricks.data.sources import open_data

    sides = split(open_data(f"{shared}/data/caltech-101"), PLAIN, 0)
    assert (len(sides.train), len(sides.val)) == (6941, 1736)


def test_default_is_eight_to_two() -> None:
    assert SplitConfig().val_fraction == pytest.approx(0.2)


def grouped(rows: list[tuple[int, str]]) -> ImageIndex:
    """An index from (label, group) of each image."""
    index = index_of([1])
    labels = np.array([label for label, _ in rows], dtype=np.int64)
    classes = tuple(f"c{i}" for i in range(labels.max() + 1))
    names = tuple(map(str, range(len(rows))))
    return replace(index, classes=classes, labels=labels, names=names, groups=tuple(group for _, group in rows))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=40, max_size=200), st.integers(0, 3))
def test_groups_stay_on_one_side(pairs: list[tuple[int, int]], seed: int) -> None:
    # two groups of its own for each class, so that every class can be on both sides
    sure = [(label, f"own-{label}-{i}") for label in range(4) for i in range(2)]
    index = grouped(sure + [(label, f"g{group}") for label, group in pairs])
    sides = split(index, PLAIN, seed)
    groups = np.array(index.groups)
    assert not set(groups[sides.train]) & set(groups[sides.val])
    assert sorted([*sides.train, *sides.val]) == list(range(len(index)))
    for side in (sides.train, sides.val):
        assert set(index.labels[side]) == {0, 1, 2, 3}


def test_groups_hold_out_the_asked_share() -> None:
    rows = [(label, f"patient-{label}-{i // 5}") for label in range(3) for i in range(200)]
    held = [len(split(grouped(rows), PLAIN, seed).val) for seed in range(5)]
    assert held == [120] * 5


def test_groups_are_drawn_evenly() -> None:
    """A group of many classes is held out about as often as it should be, not first nor last."""
    rows = [(k, "wide") for k in range(3)] + [(k, f"{k}-{i}") for k in range(3) for i in range(19)]
    index = grouped(rows)
    often = sum(0 in split(index, PLAIN, seed).val for seed in range(400))
    assert 50 <= often <= 110  # 0.2 of 400 is 80


def test_a_class_that_cannot_be_on_both_sides() -> None:
    index = grouped([(0, "a"), (0, "a"), (1, "b"), (1, "c")])
    with pytest.raises(UserError, match="class 'c0': its images are one group or copies of one another"):
        split(index, PLAIN, 0)


def test_alone_in_their_groups_images_split_as_without() -> None:
    plain = index_of([30, 17, 9])
    each = replace(plain, groups=plain.names)
    assert np.array_equal(split(plain, PLAIN, 3).val, split(each, PLAIN, 3).val)


def with_twins(index: ImageIndex, twins: list[int]) -> ImageIndex:
    index.__dict__["twins"] = np.array(twins)  # where the cached property keeps it
    return index


def taken_plainly(index: ImageIndex, units: np.ndarray, config: SplitConfig, seed: int) -> list[int]:
    """What is held out, said as the docstring of `hold_out` says it."""
    rank, share, held = {}, Counter[int](), Counter[int]()
    for label, name in enumerate(index.classes):
        members = np.flatnonzero(index.labels == label)
        share[label] = min(max(1, round(len(members) * config.val_fraction)), len(members) - 1)
        shuffled = stream(seed, f"split/{name}").permutation(members)
        rank |= {int(image): place / len(members) for place, image in enumerate(shuffled)}
    first = {unit: int(np.flatnonzero(units == unit)[0]) for unit in set(units.tolist())}
    out: list[int] = []
    for unit in sorted(first, key=lambda unit: (rank[first[unit]], first[unit])):
        images = np.flatnonzero(units == unit).tolist()
        own = Counter(int(index.labels[image]) for image in images)
        if all(held[label] + count <= share[label] for label, count in own.items()):
            held += own
            out += images
    return sorted(out)


@given(st.lists(st.integers(0, 59), min_size=60, max_size=60), st.integers(0, 3))
def test_whole_units_are_taken_in_the_order_of_their_first_images(twins: list[int], seed: int) -> None:
    index = with_twins(index_of([20, 20, 20]), [min(i, twin) for i, twin in enumerate(twins)])
    config = SplitConfig(0.3)
    try:
        val = split(index, config, seed).val.tolist()
    except UserError:  # a class whose images are all copies of one another
        return
    units = units_of(index, config)
    assert units is not None
    expected = taken_plainly(index, units, config, seed)
    assert val == expected or set(expected) < set(val)  # a class that got nothing gets its smallest unit beside


def test_a_split_is_found_once_and_not_sent_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of([30, 30])
    first = split(index, PLAIN, 0)
    assert split(index, PLAIN, 0) is first
    assert split(index, SplitConfig(0.5, duplicates="ignore"), 0) is not first
    assert "splits" not in pickle.loads(pickle.dumps(index)).__dict__
    monkeypatch.setattr("bagoftricks.data.split.REMEMBERED", 3)
    for seed in range(9):
        assert split(index, PLAIN, seed).digest == split(index, PLAIN, seed).digest
        assert len(index.splits) <= 3
    assert len({split(index, PLAIN, seed).digest for seed in range(9)}) == 9


def test_copies_stay_on_one_side_unless_told_otherwise() -> None:
    index = with_twins(index_of([40, 40]), [i // 2 for i in range(80)])
    for seed in range(5):
        together = split(index, SplitConfig(), seed)
        assert leaks(index, together) == 0
        assert len(together.val) == 16
    assert sum(leaks(index, split(index, PLAIN, seed)) for seed in range(5)) > 10


def test_a_copy_joins_two_groups() -> None:
    rows = [(k, f"{k}-{i // 2}") for k in range(2) for i in range(40)]
    index = with_twins(grouped(rows), [0, *range(1, 80)])
    index.twins[2] = 0  # image 0 of group 0-0 and image 2 of group 0-1 are copies
    units = units_of(index, SplitConfig())
    assert units is not None
    assert len({units[i] for i in range(4)}) == 1
    assert len(set(units)) == 39


def test_the_test_set_is_the_same_for_every_seed() -> None:
    index, config = index_of([50, 30]), SplitConfig(test_fraction=0.2, duplicates="ignore")
    sides = [split(index, config, seed) for seed in range(3)]
    assert sides[0].test.tolist() == sides[1].test.tolist() == sides[2].test.tolist()
    assert len(sides[0].test) == 16
    assert sides[0].val.tolist() != sides[1].val.tolist()
    for s in sides:
        assert sorted([*s.train, *s.val, *s.test]) == list(range(80))


def test_a_given_test_set_stays_locked() -> None:
    index = replace(index_of([4, 4]), given=("pool", "pool", "pool", "test") * 2)
    sides = split(index, PLAIN, 0)
    assert sides.test.tolist() == [3, 7]
    assert not set(sides.test) & {*sides.train, *sides.val}
    with pytest.raises(UserError, match=r"split.test_fraction = 0.2: the data brings its own test set"):
        split(index, SplitConfig(test_fraction=0.2, duplicates="ignore"), 0)


def test_too_few_images_for_three_sides() -> None:
    with pytest.raises(UserError, match="class 'c0': one image left"):
        split(index_of([2, 9]), SplitConfig(test_fraction=0.3, duplicates="ignore"), 0)
