"""What a data check found, in plain sentences, most important first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bagoftricks.data.check import Copies, DataCheck

UNEVEN = 3.0
"""Ratio of the largest to the smallest class from which balance is worth a sentence."""
FEW = 10
"""Images of a class below which its own accuracy says little."""
NAMED = 3
"""Examples in a sentence."""


def sentences(check: DataCheck) -> tuple[str, ...]:
    """Returns the findings: what is left out, what falsifies measures, what to know; none if all is well."""
    parts = (_broken, _across_sides, _across_classes, _within_classes, _balance, _colours, _sizes, _files)
    return tuple(sentence for part in parts for sentence in part(check))


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:NAMED]) + (", …" if len(listed) > NAMED else "")


def _top(counts: Mapping[str, int]) -> str:
    return _few(f"{name} {count:,}" for name, count in counts.items())


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _broken(check: DataCheck) -> Iterator[str]:
    if check.undecodable:
        named = _few([f"{one.name} ({one.reason})" for one in check.broken])
        what = _count(check.undecodable, "image", "images")
        left = "is left out" if check.undecodable == 1 else "are left out"
        yield f"{what} cannot be decoded and {left}: {named}. Repair or remove them."


def _across_sides(check: DataCheck) -> Iterator[str]:
    if pairs := sum(check.copies.across_sides.values()):
        where = _top(check.copies.across_sides)
        yield (
            f"Copies lie on two sides of the given split, {_count(pairs, 'pair', 'pairs')} ({where}): what was trained "
            "on is measured again, and accuracy comes out too high. Remove them from one side."
        )


def _across_classes(check: DataCheck) -> Iterator[str]:
    if pairs := sum(check.copies.across_classes.values()):
        where = _few(f"{' and '.join(one.classes)} {one.pairs:,}" for one in check.copies.shared)
        yield (
            f"Copies have two labels, {_count(pairs, 'pair', 'pairs')} ({where}): one label is wrong, or the classes "
            "overlap. Such classes may share more pictures, cropped, which is not found."
        )


def _within_classes(check: DataCheck) -> Iterator[str]:
    copies = check.copies
    if pairs := sum(copies.by_class.values()):
        kinds, surplus = _kinds_within(copies), _count(copies.surplus, "image", "images")
        split = "--split.duplicates together keeps them on one side. " if set(check.sides) & {"pool"} else ""
        yield (
            f"Copies lie within a class, {_count(pairs, 'pair', 'pairs')} ({kinds}; most in {_top(copies.by_class)}). "
            f"{split}Keeping one of each group, across classes too, would drop {surplus}."
        )


def _kinds_within(copies: Copies) -> str:
    counts = {kind: count - copies.across_classes[kind] for kind, count in copies.pairs.items()}
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)


def _balance(check: DataCheck) -> Iterator[str]:
    smallest, largest = (choose(check.counts, key=check.counts.__getitem__) for choose in (min, max))
    most, least = check.counts[largest], check.counts[smallest]
    if most >= UNEVEN * least:
        share = most / sum(check.counts.values())
        yield (
            f"Classes are uneven: {largest} has {most:,} images, {smallest} {least:,} ({most / least:.1f} to 1). "
            f"Read mean per-class accuracy beside Top-1; answering {largest} always would give Top-1 {share:.3f}."
        )
    if few := [name for name, count in check.counts.items() if count < FEW]:
        what = _count(len(few), "class has", "classes have")
        yield f"{what} fewer than {FEW} images ({_few(few)}): their own accuracy says little."


def _colours(check: DataCheck) -> Iterator[str]:
    colours, decoded = check.colours, check.images - check.undecodable
    if colours.faint:
        what = _count(colours.faint, "image of 16 bits uses", "images of 16 bits use")
        yield (
            f"{what} less than a quarter of the range, as data of 12 or 14 bits do: the upper 8 bits are read, and "
            "hold next to nothing. Scale them to the whole range, all by one factor."
        )
    if colours.grey_classes and colours.grey < decoded / 2:
        what = _count(len(colours.grey_classes), "class is", "classes are")
        yield (
            f"{what} all grey ({_few(colours.grey_classes)}), of {colours.grey:,} grey images in all: a model can tell "
            "by the lack of colour alone."
        )


def _sizes(check: DataCheck) -> Iterator[str]:
    sizes = check.sizes
    if sizes and sizes.small:
        what = _count(sizes.small, "image has", "images have")
        yield f"{what} a short side below 64 pixels ({_few(sizes.small_examples)}): enlarging adds no detail."
    if sizes and sizes.elongated:
        what = _count(sizes.elongated, "image is", "images are")
        yield (
            f"{what} at least three times as long as short ({_few(sizes.elongated_examples)}): the centre crop "
            "sees less than a third."
        )


def _files(check: DataCheck) -> Iterator[str]:
    if check.files.suffixes:
        what = _count(sum(check.files.suffixes.values()), "file is", "files are")
        yield f"{what} left out, not listed as images: {_top(check.files.suffixes)}."
    if check.files.folders:
        what = _count(len(check.files.folders), "folder is", "folders are")
        yield f"{what} left out: {_few(check.files.folders)}."
