"""What a data set is to the rest of the program: an index of images, their classes, and how to read one."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bagoftricks.data.ahead import ahead
from bagoftricks.data.decoding import Picture, Pixels, decode, decode_bytes
from bagoftricks.data.reading import CHANGED, BadImageError, read_bytes
from bagoftricks.files import cache_folder

if TYPE_CHECKING:
    from bagoftricks.data.soundness import LeftOut

__all__ = ["ImageIndex", "IntArray", "Pixels", "decode", "subset"]

IntArray = npt.NDArray[np.int64]
TOGETHER, MOST_READERS = 64, 32
"""Files that a thread hashes in one go, and threads at most: a network drive answers each after some milliseconds."""
QUICK_S = 5e-4
"""Seconds for a file below which one thread is as fast as several."""


@dataclass(frozen=True)
class ImageIndex:
    """Images of one data set, in a fixed order; nothing is decoded until asked for."""

    name: str
    classes: tuple[str, ...]
    """Class names, in lexical order; a label is an index into them."""
    labels: IntArray = field(repr=False)
    """(n,) label of each image."""
    names: tuple[str, ...] = field(repr=False)
    """A name for each image: the path below `root`, or a number."""
    given: tuple[str, ...] | None = field(default=None, repr=False)
    """For each image its side where the data set brings one: train, val, test, or pool, which is divided by seed. None
    where all are in the pool."""
    groups: tuple[str, ...] | None = field(default=None, repr=False)
    """For each image its patient, site or video: a group stays on one side of a split."""
    root: Path | None = None
    """Where `names` are files; None for images in memory."""
    holders: tuple[Path, ...] = field(default=(), repr=False)
    """Folders of the user's images, which are never written to, where that is less than all of `root`."""
    pixels: Pixels | None = field(default=None, repr=False)
    """(n, H, W, 3) images in memory; None for files."""
    left_out: LeftOut | None = field(default=None, repr=False, compare=False)
    """The images that cannot be used and are not among these; None where nobody has looked (see `soundness`)."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The user's folders of images; nothing is ever written below them."""
        return self.holders or (() if self.root is None else (self.root,))

    def on_side(self, *sides: str) -> IntArray:
        """Returns the indices of the images on the given sides: train, val, test or pool."""
        if self.given is None:
            return np.arange(len(self) if "pool" in sides else 0)
        return np.flatnonzero(np.isin(self.given, sides))

    @cached_property
    def open_images(self) -> IntArray:
        """Indices of the images that may be looked at before the choosing: all but a given test set."""
        return self.on_side("train", "val", "pool")

    @cached_property
    def counts(self) -> IntArray:
        """(K,) images of each class, a given test set apart."""
        return np.bincount(self.labels[self.open_images], minlength=self.num_classes).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what trainings see: every image's name, label, side, group and bytes, but for a given test set.

        Moving or renaming the folder keeps it. It is that of the folder without the images that were left out.
        """
        return self._digest(self.open_images)

    @cached_property
    def content(self) -> str:
        """Hash of all images, a given test set among them."""
        return self.fingerprint if len(self.open_images) == len(self) else self._digest(np.arange(len(self)))

    @cached_property
    def contents(self) -> tuple[bytes, ...]:
        """sha256 of each image's bytes, or of its pixels; empty for a file that cannot be read.

        What is read afterwards must be the same: `read` and `picture` refuse a file that was changed since.
        """
        if self.pixels is not None:
            return tuple(hashlib.sha256(image.tobytes()).digest() for image in self.pixels)
        begun = time.perf_counter()
        contents = [self._content(name) for name in self.names[:TOGETHER]]
        if time.perf_counter() - begun < QUICK_S * len(contents):
            return (*contents, *map(self._content, self.names[TOGETHER:]))
        parts = [self.names[start : start + TOGETHER] for start in range(TOGETHER, len(self), TOGETHER)]
        workers = min(MOST_READERS, 2 * (os.cpu_count() or 1))
        reads = ahead(parts, lambda names: [self._content(name) for name in names], workers=workers, most=2 * workers)
        return (*contents, *(content for part in reads for content in part.result()))

    @cached_property
    def splits(self) -> dict[Any, Any]:
        """What `split.split` has found of it lately, by configuration and seed."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what another process may find itself, which is large where images are many."""
        return {name: value for name, value in self.__dict__.items() if name != "splits"}

    def _content(self, name: str) -> bytes:
        try:
            return hashlib.sha256(read_bytes(self._file(name))).digest()
        except BadImageError:
            return b""

    def digests(self) -> list[str]:
        """Returns a hash of each image's content, 16 hexadecimal digits."""
        return [content.hex()[:16] for content in self.contents]

    def _digest(self, members: IntArray) -> str:
        given = None if self.given is None else tuple(self.given[i] for i in members)
        parts: list[Any] = [self.classes, None if given is None or set(given) == {"pool"} else given]
        if self.groups is not None:
            parts.append([self.groups[i] for i in members])
        digest = hashlib.sha256(json.dumps(parts).encode())
        digest.update(self.labels[members].tobytes())
        if self.pixels is not None:
            digest.update(self.pixels[members].tobytes())
        else:
            for i in members:
                digest.update(f"{self.names[i]}\0{self.contents[i].hex()}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def twins(self) -> IntArray:
        """(n,) a number for each image that its exact and near duplicates share.

        A given test set has none: it must not decide how the rest is divided.
        """
        from bagoftricks.data.duplicates import clusters, found_copies, hash_images

        numbers, part, cache = np.arange(len(self)), self.open_part, cache_folder() / "hashes"
        hashes = hash_images(part, workers=os.cpu_count() or 1, cache=cache)
        numbers[self.open_images] = self.open_images[clusters(part, hashes, found_copies(part, hashes, cache))]
        return numbers

    @cached_property
    def open_part(self) -> ImageIndex:
        """The index without a given test set."""
        return self if len(self.open_images) == len(self) else subset(self, self.open_images.tolist())

    def read(self, index: int, short_side: int | None = None) -> Pixels:
        """Returns one image as (H, W, 3) RGB, EXIF-upright, shrunk to `short_side` pixels but never enlarged.

        Raises:
            BadImageError: if the file cannot be decoded whole, or is not the one that was hashed.
        """
        return self.picture(index, short_side).pixels

    def picture(self, index: int, short_side: int | None = None) -> Picture:
        """Returns what `read` does, with the original's size and mode; see there."""
        if self.pixels is not None:
            image: Pixels = self.pixels[index]
            return Picture(image, image.shape[1], image.shape[0], "RGB")
        path = self._file(self.names[index])
        data = read_bytes(path)
        known: tuple[bytes, ...] | None = self.__dict__.get("contents")  # cached, or not asked for yet
        if known is not None and hashlib.sha256(data).digest() != known[index]:
            raise BadImageError(str(path), CHANGED, passing=True)
        return decode_bytes(data, str(path), short_side)

    def _file(self, name: str) -> Path:
        assert self.root is not None
        return self.root / name

    def describe(self) -> dict[str, Any]:
        """Counts, for a plan or a report."""
        return {
            "name": self.name,
            "images": len(self.open_images),
            "classes": self.num_classes,
            "smallest_class": int(self.counts.min()),
            "largest_class": int(self.counts.max()),
            "given_split": self.given is not None and "val" in self.given,
            "groups": len(set(self.groups)) if self.groups is not None else None,
            "given_test_images": len(self) - len(self.open_images),
            "left_out": None if self.left_out is None else self.left_out.to_dict(),
        }


def subset(index: ImageIndex, keep: Sequence[int]) -> ImageIndex:
    """Returns the index of the images at `keep`, in that order, with the same classes."""
    chosen = np.asarray(keep, dtype=np.int64)
    part = replace(
        index,
        labels=index.labels[chosen],
        names=tuple(index.names[i] for i in chosen),
        given=None if index.given is None else tuple(index.given[i] for i in chosen),
        groups=None if index.groups is None else tuple(index.groups[i] for i in chosen),
        pixels=None if index.pixels is None else index.pixels[chosen],
    )
    if (known := index.__dict__.get("contents")) is not None:  # so that no file is hashed twice
        part.__dict__["contents"] = tuple(known[i] for i in chosen)
    return part
