"""The data check: what in a data set can spoil a training or its measures. Facts here; sentences in `findings`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bagoftricks.data.duplicates import KINDS, Pairs, clusters, found_copies
from bagoftricks.data.findings import sentences
from bagoftricks.data.folder import entries, is_folder
from bagoftricks.data.hashes import Hashes, hash_images
from bagoftricks.data.index import ImageIndex, IntArray, subset
from bagoftricks.data.names import shown
from bagoftricks.data.soundness import LeftOutImage

__all__ = ["DataCheck", "check", "shown"]

LISTED = 200
"""Most pairs and broken images that are listed; totals count all."""
EXAMPLES = 10
"""Most names given as examples."""
SMALL_SIDE = 64
"""Pixels of the short side below which an image is called small."""
LONG_RATIO = 3.0
"""Ratio of the long to the short side from which an image is called elongated."""
SIDES = ("train", "val", "test", "pool")
GREY = 10
"""Largest difference between colour channels, of 255, of an image that counts as grey: JPEG's rounding stays below."""
FAINT = 64
"""Level, of 255, that no image of 16 bits reaches which uses less than a quarter of them."""


@dataclass(frozen=True)
class Broken:
    """An image that cannot be decoded."""

    name: str
    class_name: str
    reason: str


@dataclass(frozen=True)
class Copy:
    """Two images that are copies of each other."""

    kind: str
    """exact, near or mirrored."""
    names: tuple[str, str]
    classes: tuple[str, str]
    sides: tuple[str, str]
    """train, val, test or pool."""


@dataclass(frozen=True)
class Shared:
    """Two classes that share images."""

    classes: tuple[str, str]
    pairs: int


@dataclass(frozen=True)
class Copies:
    """All copies that were found."""

    pairs: dict[str, int]
    """Of each kind."""
    across_classes: dict[str, int]
    """Pairs of each kind whose labels differ."""
    across_sides: dict[str, int]
    """Pairs by the sides that they lie on, e.g. "train-val"; only where the data set brings sides."""
    images: int
    """That have a copy."""
    surplus: int
    """That would go if one of each group of copies were kept."""
    by_class: dict[str, int]
    """Pairs within each class that has any, most first."""
    shared: tuple[Shared, ...]
    """Classes that share images, most first; at most 200."""
    listed: tuple[Copy, ...]
    """At most 200: across sides first, then across classes, then the rest."""


@dataclass(frozen=True)
class Sizes:
    """Of the images that can be decoded, upright, in pixels; (least, median, most)."""

    width: tuple[int, float, int]
    height: tuple[int, float, int]
    small: int
    """Images with a short side below 64 pixels."""
    small_examples: tuple[str, ...]
    """Smallest first."""
    elongated: int
    """Images at least three times as long as short."""
    elongated_examples: tuple[str, ...]
    """Longest first."""


@dataclass(frozen=True)
class Colours:
    """Of the images that can be decoded."""

    modes: dict[str, int]
    """Images by the mode of their file, as Pillow names it."""
    grey: int
    """Images without colour, whatever their mode."""
    grey_classes: tuple[str, ...]
    """Classes of which all images are grey."""
    faint: int = 0
    """Images of 16 bits of grey that use less than a quarter of the range, as those of 12 bits do."""


@dataclass(frozen=True)
class Files:
    """What lies beside the images of a folder and is left out."""

    suffixes: dict[str, int]
    """Files by suffix (by name, where they have none)."""
    folders: tuple[str, ...]
    """Folders beside those that hold images."""


@dataclass(frozen=True)
class DataCheck:
    """What was found about a data set."""

    name: str
    images: int
    sides: dict[str, int]
    """Images on each side."""
    counts: dict[str, int]
    """Images of each class, a given test set apart."""
    undecodable: int
    broken: tuple[Broken, ...]
    """At most 200."""
    copies: Copies
    sizes: Sizes | None
    """None if no image can be decoded."""
    colours: Colours
    files: Files
    findings: tuple[str, ...] = ()
    """Plain sentences, most important first; empty if there is nothing to say."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "classes": len(self.counts)}


def check(
    index: ImageIndex,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    cache: Path | None = None,
    hashes: Hashes | None = None,
) -> DataCheck:
    """Checks a data set; a given test set is compared with the rest, since what it repeats it cannot measure.

    Args:
        index: the data set; it is only ever read.
        workers: threads that decode.
        progress: called with the number of images done so far.
        cache: folder where hashes and copies are kept.
        hashes: of the images, where they are known.
    """
    known = hash_images(index, workers=workers, progress=progress, cache=cache) if hashes is None else hashes
    classes = tuple(shown(name) for name in index.classes)
    bad = [i for i, error in enumerate(known.errors) if error]
    found = [LeftOutImage(index.names[i], int(index.labels[i]), _sides(index)[i], known.errors[i]) for i in bad]
    before = index.left_out.images if index.left_out else ()
    left = sorted((*before, *found), key=lambda one: (one.side, one.name))
    lost = Counter(classes[one.label] for one in left if one.side != "test")
    sides = Counter(_sides(index)) + Counter(one.side for one in before)
    good = np.setdiff1d(np.arange(len(index)), bad, assume_unique=True)
    part, looks = subset(index, good.tolist()), known.at(good)
    names = tuple(shown(name) for name in part.names)
    facts = DataCheck(
        name=shown(index.name),
        images=len(part) + len(left),
        sides={side: sides[side] for side in SIDES if sides[side]},
        counts={name: count + lost[name] for name, count in zip(classes, part.counts.tolist(), strict=True)},
        undecodable=len(left),
        broken=tuple(Broken(shown(one.name), classes[one.label], shown(one.reason)) for one in left[:LISTED]),
        copies=_copies(part, looks, names, classes, cache),
        sizes=_sizes(looks, names),
        colours=_colours(part, looks, classes),
        files=_files(index, [one.name for one in left]),
    )
    return DataCheck(**{**vars(facts), "findings": sentences(facts)})


def _sides(index: ImageIndex) -> tuple[str, ...]:
    return index.given or ("pool",) * len(index)


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _by_kind(kinds: IntArray) -> dict[str, int]:
    return dict(zip(KINDS, np.bincount(kinds, minlength=len(KINDS)).tolist(), strict=True))


def _copies(
    index: ImageIndex, hashes: Hashes, names: tuple[str, ...], classes: tuple[str, ...], cache: Path | None
) -> Copies:
    if not len(index):
        return Copies(dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), {}, 0, 0, {}, (), ())
    pairs = found_copies(index, hashes, cache)
    label, side = index.labels, np.array(_sides(index))
    strangers = label[pairs.first] != label[pairs.second]
    apart = side[pairs.first] != side[pairs.second]
    order = np.lexsort((np.arange(len(pairs)), ~strangers, ~apart))[:LISTED]
    group_size = np.bincount(clusters(index, hashes, pairs))
    return Copies(
        pairs=_by_kind(pairs.kind),
        across_classes=_by_kind(pairs.kind[strangers]),
        across_sides=_most_first(
            Counter("-".join(sorted(sides, key=SIDES.index)) for sides in _both(side, pairs, apart))
        ),
        images=int(group_size[group_size > 1].sum()),
        surplus=len(index) - len(group_size),
        by_class=_most_first(Counter(classes[k] for k in label[pairs.first[~strangers]])),
        shared=_shared(Counter(_both(np.array(classes), pairs, strangers, label))),
        listed=tuple(_listed(pairs, int(i), index, names, classes) for i in order),
    )


def _both(words: Any, pairs: Pairs, chosen: Any, number: IntArray | None = None) -> list[tuple[str, str]]:
    """Returns the two words of each chosen pair, in lexical order, so that they can be counted."""
    ends = (one[chosen] if number is None else number[one[chosen]] for one in (pairs.first, pairs.second))
    left, right = (words[end].tolist() for end in ends)
    return [(min(a, b), max(a, b)) for a, b in zip(left, right, strict=True)]


def _shared(counts: Counter[tuple[str, str]]) -> tuple[Shared, ...]:
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Shared(classes, pairs) for classes, pairs in most_first[:LISTED])


def _listed(pairs: Pairs, i: int, index: ImageIndex, names: tuple[str, ...], classes: tuple[str, ...]) -> Copy:
    a, b, sides = int(pairs.first[i]), int(pairs.second[i]), _sides(index)
    return Copy(
        kind=KINDS[pairs.kind[i]],
        names=(names[a], names[b]),
        classes=(classes[index.labels[a]], classes[index.labels[b]]),
        sides=(sides[a], sides[b]),
    )


def _sizes(hashes: Hashes, names: tuple[str, ...]) -> Sizes | None:
    fine = np.flatnonzero(hashes.width > 0)
    if not len(fine):
        return None
    width, height = hashes.width[fine], hashes.height[fine]
    short, long = np.minimum(width, height), np.maximum(width, height)
    ratio = long / short
    small, elongated = np.flatnonzero(short < SMALL_SIDE), np.flatnonzero(ratio >= LONG_RATIO)
    smallest = small[np.argsort(short[small], kind="stable")][:EXAMPLES]
    longest = elongated[np.argsort(-ratio[elongated], kind="stable")][:EXAMPLES]
    return Sizes(
        width=(int(width.min()), float(np.median(width)), int(width.max())),
        height=(int(height.min()), float(np.median(height)), int(height.max())),
        small=len(small),
        small_examples=tuple(names[fine[i]] for i in smallest),
        elongated=len(elongated),
        elongated_examples=tuple(names[fine[i]] for i in longest),
    )


def _colours(index: ImageIndex, hashes: Hashes, classes: tuple[str, ...]) -> Colours:
    fine = hashes.width > 0
    grey = fine & (hashes.chroma <= GREY)
    coloured = np.bincount(index.labels[fine & ~grey], minlength=len(classes))
    without = np.bincount(index.labels[grey], minlength=len(classes))
    return Colours(
        modes=_most_first(Counter(mode for mode in hashes.modes if mode)),
        grey=int(grey.sum()),
        grey_classes=tuple(name for name, a, b in zip(classes, coloured, without, strict=True) if b and not a),
        faint=int((hashes.thumbnails.max(axis=(1, 2)) < FAINT)[[mode.startswith("I") for mode in hashes.modes]].sum()),
    )


def _files(index: ImageIndex, left: list[str]) -> Files:
    """Looks into the folders that hold images, and those above them up to the root; no deeper."""
    if (root := index.root) is None:
        return Files({}, ())
    names = (*index.names, *left)
    inside = [name for name in names if not PurePosixPath(name).is_absolute() and ".." not in Path(name).parts]
    folders = {parent.as_posix() for name in inside for parent in PurePosixPath(name).parents}
    known = folders.union(inside)
    stray: Counter[str] = Counter()
    unread = []
    for folder in sorted(name for name in folders if is_folder(root / name)):  # and not gone meanwhile
        for entry in entries(root / folder):
            name = (PurePosixPath(folder) / entry.name).as_posix()
            if name in known:
                continue
            if is_folder(entry):
                unread.append(shown(name))
            else:
                stray[shown(entry.suffix.lower() or entry.name)] += 1
    return Files(_most_first(stray), tuple(unread))
