"""Splits: each class by itself, by seed, every class on both sides; groups and copies of an image stay together."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bagoftricks.data.index import ImageIndex, IntArray
from bagoftricks.errors import UserError, unknown
from bagoftricks.rng import stream

TEST_SEED = 0
"""The test set is drawn once for all blocks: what is locked away from one must be locked away from all."""
DUPLICATES = ("together", "ignore")
REMEMBERED = 16
"""Splits of an index that are remembered: where copies are kept together, one of a million images takes seconds."""


@dataclass(frozen=True)
class SplitConfig:
    """How images are divided into training, validation and test."""

    val_fraction: float = 0.2
    """Share of each class held out for validation, between 0 and 1; ignored where the data brings its own split."""
    test_fraction: float = 0.0
    """Share of each class locked away first, the same for every seed, from 0 (none) to below 1; `tricks test` measures
    it once. val_fraction is then a share of the rest."""
    duplicates: Literal["together", "ignore"] = "together"
    """together: exact and near copies of an image stay on one side, so that validation is not training again; ignore:
    images are divided as if each were unlike all others."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise UserError(f"split.val_fraction = {self.val_fraction}: must be between 0 and 1, both excluded")
        if not 0 <= self.test_fraction < 1:
            raise UserError(f"split.test_fraction = {self.test_fraction}: must be at least 0 (none) and below 1")
        if self.duplicates not in DUPLICATES:
            raise unknown("split.duplicates", self.duplicates, DUPLICATES)


@dataclass(frozen=True)
class Split:
    """Indices of the images on each side, ascending."""

    train: IntArray
    val: IntArray
    test: IntArray
    """Locked: for `tricks test` alone. Empty where there is none."""

    @property
    def digest(self) -> str:
        """Hash of which image is where, 16 hexadecimal digits: copies may be found otherwise by another version."""
        sides = (side.astype("<i8").tobytes() for side in (self.train, self.val, self.test))
        return hashlib.sha256(b"|".join(hashlib.sha256(side).digest() for side in sides)).hexdigest()[:16]


def split(index: ImageIndex, config: SplitConfig, seed: int) -> Split:
    """Divides an index, deterministically by seed; sides that the data set brings are kept for every seed.

    Each class draws from a stream of its own name, so that adding a class moves no other. It gives round(n * fraction)
    images to validation, at least one, and keeps at least one for training; where groups or copies of an image stay
    together, it may give fewer.

    Raises:
        UserError: if a class cannot be on every side, or a test set is asked for where the data brings one.
    """
    known: dict[tuple[SplitConfig, int], Split] = index.splits
    if (config, seed) not in known:
        if len(known) >= REMEMBERED:
            known.clear()
        known[config, seed] = _split(index, config, seed)
    return known[config, seed]


def _split(index: ImageIndex, config: SplitConfig, seed: int) -> Split:
    train, val, test = index.on_side("train"), index.on_side("val"), index.on_side("test")
    if config.test_fraction and (len(test) or len(val)):
        brings = "test set" if len(test) else "split"
        raise UserError(
            f"split.test_fraction = {config.test_fraction}: the data brings its own {brings}; leave it at 0"
        )
    pool = index.on_side("pool")
    if len(pool):
        units = units_of(index, config)
        if config.test_fraction:
            test = hold_out(index, pool, units, config.test_fraction, TEST_SEED, "test")
            pool = np.setdiff1d(pool, test, assume_unique=True)
        val = hold_out(index, pool, units, config.val_fraction, seed, "split")
        train = np.setdiff1d(pool, val, assume_unique=True)
    return Split(train, val, test)


def leaks(index: ImageIndex, sides: Split) -> int:
    """Returns the number of pairs of copies of which one is in training and the other in validation."""
    in_train, in_val = (np.bincount(index.twins[side], minlength=len(index)) for side in (sides.train, sides.val))
    return int((in_train * in_val).sum())


def units_of(index: ImageIndex, config: SplitConfig) -> IntArray | None:
    """Returns (n,) a number for each image that all share which must stay on one side; None where none must."""
    if config.duplicates == "ignore" and index.groups is None:
        return None
    alone = np.arange(len(index))
    twins = index.twins if config.duplicates == "together" else alone
    if index.groups is None:
        return twins
    # groups joined by a copy become one unit: components of the graph between groups and sets of copies
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    groups = np.unique(index.groups, return_inverse=True)[1]
    shape = (2 * len(index), 2 * len(index))
    edges = coo_matrix((np.ones(len(index)), (groups, len(index) + twins)), shape=shape)
    units: IntArray = connected_components(edges, directed=False)[1][groups].astype(np.int64)
    return units


def hold_out(
    index: ImageIndex, pool: IntArray, units: IntArray | None, fraction: float, seed: int, purpose: str
) -> IntArray:
    """Returns the images of `pool` to hold out, ascending: `fraction` of each class, whole units only.

    Units are met in the order of one image each in its class's shuffle, and taken while no class they belong to gets
    more than its share. Without units of several images that is the head of each class's shuffle.

    Raises:
        UserError: if a class cannot be on both sides.
    """
    rank, share = np.zeros(len(index)), np.zeros(index.num_classes, dtype=np.int64)
    heads = []
    by_class = pool[np.argsort(index.labels[pool], kind="stable")]
    ends = np.cumsum(np.bincount(index.labels[pool], minlength=index.num_classes))
    for label, (name, members) in enumerate(zip(index.classes, np.split(by_class, ends[:-1]), strict=True)):
        if len(members) == 0:  # of a part of a data set
            continue
        if len(members) == 1:
            raise UserError(f"class '{name}': one image left, too few to hold one out for {purpose}")
        share[label] = min(max(1, round(len(members) * fraction)), len(members) - 1)
        shuffled = stream(seed, f"{purpose}/{name}").permutation(members)
        rank[shuffled] = np.arange(len(members)) / len(members)
        heads.append(shuffled[: share[label]])
    if units is None or len(np.unique(units[pool])) == len(pool):
        return np.sort(np.concatenate(heads))
    taken = _take_units(index, pool, units[pool], rank[pool], share)
    return np.sort(pool[taken])


def _take_units(
    index: ImageIndex,
    pool: IntArray,
    units: IntArray,
    rank: npt.NDArray[np.float64],
    share: IntArray,
) -> npt.NDArray[np.bool_]:
    """Returns for each image of `pool` whether its unit is held out."""
    _, first, number, size = np.unique(units, return_index=True, return_inverse=True, return_counts=True)
    label_P = index.labels[pool].tolist()
    several = np.flatnonzero(size > 1)
    ends = np.cumsum(size)
    by_unit = np.argsort(number, kind="stable")
    contents = {
        int(unit): Counter(label_P[i] for i in by_unit[ends[unit] - size[unit] : ends[unit]].tolist())
        for unit in several.tolist()
    }

    def content(unit: int) -> Counter[int]:
        return contents.get(unit) or Counter({label_P[first[unit]]: 1})

    total, shares = Counter(label_P), share.tolist()
    held, taken = [0] * index.num_classes, np.zeros(len(first), dtype=bool)
    order = np.lexsort((first, rank[first])).tolist()
    for unit in order:
        own = contents.get(unit)
        if own is None:  # as nearly all are
            label = label_P[first[unit]]
            taken[unit] = held[label] < shares[label]
            held[label] += bool(taken[unit])
        elif all(held[label] + count <= shares[label] for label, count in own.items()):
            _take(own, held)
            taken[unit] = True
    for label in range(index.num_classes):
        if held[label] or not total[label]:
            continue
        # all its units are larger than its share: the smallest that can be spared
        able = [
            (int(size[unit]), place, unit)
            for place, unit in enumerate(order)
            if label in (own := content(unit)) and _spares(held, total, own)
        ]
        if not able:
            raise UserError(
                f"class '{index.classes[label]}': its images are one group or copies of one another, and cannot be "
                "on both sides; add others, or pass --split.duplicates ignore"
            )
        unit = min(able)[2]
        _take(content(unit), held)
        taken[unit] = True
    return np.asarray(taken[number])


def _take(own: Counter[int], held: list[int]) -> None:
    for label, count in own.items():
        held[label] += count


def _spares(held: list[int], total: Counter[int], own: Counter[int]) -> bool:
    """Whether each of a unit's classes keeps an image for training when the unit is held out too."""
    return all(held[label] + count < total[label] for label, count in own.items())
