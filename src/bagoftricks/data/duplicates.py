"""Copies among images: equal files, the same picture saved anew, and its mirror image.

*Exact* copies are equal byte for byte (images in memory, and originals below 32 pixels: pixel by pixel). *Near* copies
are found in two steps. Candidates: 64-bit perceptual hashes (pHash, see `hashes`) differ in few bits. Proof: 16 x 16
grey thumbnails, each brought to mean 0 and deviation 1, differ little. *Mirrored* copies are those of which one matches
the other's flip.

Measured on Caltech-101 (8,677 images) by looking at the pairs: of 69 near ones, 65 are the same picture saved, scaled,
coloured or retouched anew, and 4 are two very alike (motorbikes shot alike, a drawing and its variant); the 100
mirrored ones are real (image i + 100 of Leopards is image i, mirrored). Of 400 images changed on purpose and saved as
JPEG at quality 60, found were: all that were only saved, halved, scaled by 0.7, doubled, darkened by 0.7 or turned
grey; 399 mirrored; 93% brightened by 1.1; 94% with 1.3 times the contrast; 53% brightened by 1.25, where highlights
clip. **Crops are not found**: with 2% cut off each edge, 6% were; and of the 435 photographs that Faces and Faces_easy
share, cropped differently (same number, same picture, in all 22 looked at), the 4 are that are not cropped. Nor are
pictures that are nearly of one colour: their hashes are noise.

Shapes: n images, m pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bagoftricks.data.hashes import UNREADABLE, HashArray, Hashes, hash_images
from bagoftricks.data.index import ImageIndex, IntArray, Pixels
from bagoftricks.files import replacing

__all__ = [
    "KINDS",
    "Hashes",
    "Pairs",
    "all_pairs",
    "clusters",
    "exact_pairs",
    "found_copies",
    "hamming_pairs",
    "hash_images",
    "near_pairs",
]

DISTANCE, DIFFERENCE = 6, 0.05
"""A near copy's most differing bits, of 64, and largest mean absolute difference of standardised thumbnails."""
SAME_HASH, LOOSE_DIFFERENCE = 2, 0.10
"""Where at most this many bits differ, thumbnails may differ more: contrast and brightness were changed."""
BLOCK, QUARTERS = 4_000_000, 4
"""Pairs of hashes compared at once, which bounds the memory; parts of a hash, of 16 bits each."""
FORMAT = 1
"""Of kept pairs; raised when they are found in another way."""
LARGE_GROUP = 100
"""Above this many equal files, each is paired with the next only, so that pairs stay few. Of near copies an image is in
about so many pairs at most, besides those that join two groups."""
EXACT, NEAR, MIRRORED = 0, 1, 2
KINDS = ("exact", "near", "mirrored")

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """Pairs of images that are copies of each other; first < second."""

    first: IntArray
    """(m,) index of an image."""
    second: IntArray
    """(m,) index of its copy."""
    kind: IntArray
    """(m,) index into KINDS: exact, near or mirrored."""

    def __len__(self) -> int:
        return len(self.first)


def hamming_pairs(left: HashArray, right: HashArray, distance: int) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Yields (i, j, bits) with i < j of all pairs whose left[i] and right[j] differ in at most `distance` bits.

    Where two hashes differ in at most d bits, some quarter of them differs in at most d // 4: only pairs that agree so
    well in a quarter are compared whole, a block of them at a time (multi-index hashing; Norouzi et al. 2012,
    arXiv:1307.2982, section 2). Each pair is yielded once, in no order to rely on.
    """
    reach = distance // QUARTERS
    ours, theirs = (np.ascontiguousarray(part).view(np.uint16).reshape(-1, QUARTERS) for part in (left, right))
    for quarter in range(QUARTERS):
        order = np.argsort(theirs[:, quarter], kind="stable")
        count = np.bincount(theirs[:, quarter], minlength=2**16)
        start = np.cumsum(count) - count
        for change in _masks(reach):
            wanted = ours[:, quarter] ^ change
            for i, at in _spread(start[wanted], count[wanted]):
                j = order[at]
                near = i < j
                i, j = i[near], j[near]
                bits = np.bitwise_count(left[i] ^ right[j]).astype(np.int64)
                near = bits <= distance
                for earlier in range(quarter):  # which has yielded it already
                    near &= np.bitwise_count(ours[i, earlier] ^ theirs[j, earlier]) > reach
                if near.any():
                    yield i[near], j[near], bits[near]


@lru_cache
def _masks(bits: int) -> npt.NDArray[np.uint16]:
    """Returns every number of 16 bits of which at most so many are set."""
    numbers = np.arange(2**16, dtype=np.uint16)
    return numbers[np.bitwise_count(numbers) <= bits]


def _spread(start: IntArray, count: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Yields (row, place) of all places from start[row] on, count[row] of them; about `BLOCK` at a time."""
    rows = np.flatnonzero(count)
    ends = np.cumsum(count[rows])
    first = 0
    while first < len(rows):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + BLOCK, "right")))
        chosen = rows[first:last]
        many = count[chosen]
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        yield np.repeat(chosen, many), np.repeat(start[chosen], many) + within
        first = last


def exact_pairs(hashes: Hashes) -> Pairs:
    """Returns the pairs of equal images; in groups above 100 each with the next only."""
    found: list[tuple[int, int]] = []
    for group in _equal_groups(hashes):
        members = group.tolist()
        found += combinations(members, 2) if len(members) <= LARGE_GROUP else pairwise(members)
    both = np.array(found, dtype=np.int64).reshape(-1, 2)
    return Pairs(both[:, 0], both[:, 1], np.full(len(both), EXACT))


def near_pairs(hashes: Hashes, distance: int = DISTANCE, difference: float = DIFFERENCE) -> Pairs:
    """Returns the near and mirrored copies that are not exact ones; of equal images only the first takes part.

    Args:
        hashes: of all images.
        distance: most bits, of 64, in which perceptual hashes differ.
        difference: largest mean absolute difference of thumbnails brought to mean 0 and deviation 1.
    """
    keep = hashes.comparable
    for group in _equal_groups(hashes):
        keep[group[1:]] = False
    members = np.flatnonzero(keep)
    plain, flipped = hashes.phash[members], hashes.flipped[members]
    thumbnails = hashes.thumbnails[members]
    near = _proven(plain, plain, thumbnails, thumbnails, distance, difference)
    mirrored = _proven(plain, flipped, thumbnails, thumbnails[:, :, ::-1], distance, difference)
    taken, found = (pairs[:, 0] * len(members) + pairs[:, 1] for pairs in (near, mirrored))
    mirrored = mirrored[~np.isin(found, taken)]  # a picture may be its own mirror image
    both = members[np.concatenate([near, mirrored])]
    return Pairs(both[:, 0], both[:, 1], np.repeat([NEAR, MIRRORED], [len(near), len(mirrored)]))


def _proven(
    left: HashArray, right: HashArray, ours: Pixels, theirs: Pixels, distance: int, difference: float
) -> IntArray:
    """Returns (m, 2) pairs that are close by hash and by thumbnail: of a thousand alike not all half a million, but as
    many as tell which belong together.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    group, degree = np.arange(len(left)), np.zeros(len(left), dtype=np.int64)
    for i, j, bits in hamming_pairs(left, right, distance):
        for part in range(0, len(i), 65_536):  # so that memory stays flat
            a, b, few = (values[part : part + 65_536] for values in (i, j, bits <= SAME_HASH))
            open_ = (group[a] != group[b]) | ((degree[a] < LARGE_GROUP) & (degree[b] < LARGE_GROUP))
            a, b, few = a[open_], b[open_], few[open_]
            off = np.abs(_standardised(ours[a]) - _standardised(theirs[b])).mean(axis=1)
            alike = (off < difference) | (few & (off < max(difference, LOOSE_DIFFERENCE)))
            a, b = a[alike], b[alike]
            apart = group[a] != group[b]
            found.append(np.stack([a, b], axis=1))
            degree += np.bincount(found[-1].ravel(), minlength=len(degree))
            if apart.any():
                group = _linked(group[a[apart]], group[b[apart]], len(group))[group]
    return np.concatenate(found)


def _linked(first: IntArray, second: IntArray, n: int) -> IntArray:
    """Returns (n,) a number for each, equal where pairs link them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _standardised(thumbnails: Pixels) -> FloatArray:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    centred: FloatArray = flat - flat.mean(axis=1, keepdims=True)
    scaled: FloatArray = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-6)
    return scaled


def _equal_groups(hashes: Hashes) -> list[IntArray]:
    """Returns the indices, ascending, of each group of two or more equal images."""
    _, number, count = np.unique(hashes.digests, axis=0, return_inverse=True, return_counts=True)
    number = number.reshape(-1)
    order = np.argsort(number, kind="stable")
    groups = np.split(order, np.cumsum(count)[:-1])
    return [group for group in groups if len(group) > 1]


def all_pairs(hashes: Hashes) -> Pairs:
    """Returns exact, near and mirrored pairs, in this order, each by its images."""
    exact, near = exact_pairs(hashes), near_pairs(hashes)
    first, second, kind = (
        np.concatenate([getattr(exact, name), getattr(near, name)]) for name in ("first", "second", "kind")
    )
    order = np.lexsort((second, first, kind))
    return Pairs(first[order], second[order], kind[order])


def found_copies(index: ImageIndex, hashes: Hashes, cache: Path | None) -> Pairs:
    """Returns `all_pairs` of a data set, found once and kept in `cache`: each run of a study asks for them.

    Args:
        index: the data set.
        hashes: of its images.
        cache: folder, as for `hash_images`; a damaged file there is replaced.
    """
    if cache is None:
        return all_pairs(hashes)
    path, of = cache / f"{index.content}.pairs.npz", _identity(hashes)
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["of"]) == of:
                return Pairs(*(kept[name].astype(np.int64) for name in ("first", "second", "kind")))
    except UNREADABLE:
        pass  # there is nothing yet, or nothing whole
    pairs = all_pairs(hashes)
    with suppress(OSError):  # a folder that cannot be written to costs the time again, no more
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, of=np.array(of), **vars(pairs))
    return pairs


def _identity(hashes: Hashes) -> str:
    """Returns what pairs depend on, as a hash."""
    digest = hashlib.sha256(repr((DISTANCE, DIFFERENCE, SAME_HASH, LOOSE_DIFFERENCE, LARGE_GROUP, FORMAT)).encode())
    for part in (hashes.digests, hashes.phash, hashes.flipped, hashes.thumbnails, hashes.width, hashes.height):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def clusters(index: ImageIndex, hashes: Hashes, pairs: Pairs | None = None) -> IntArray:
    """Returns (n,) a number for each image, equal for images that copies link; one without copies has its own.

    Mirrored copies count as copies: training mirrors images too.
    """
    assert len(index) == len(hashes)
    links = all_pairs(hashes) if pairs is None else pairs
    return _linked(links.first, links.second, len(index))
