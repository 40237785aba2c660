"""What a data set is to the rest of the program: an index of images, their classes, and how to read one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bagoftricks.errors import RunError
from bagoftricks.files import cache_folder, file_digest

if TYPE_CHECKING:
    from PIL import Image

HEIC_SUFFIXES = (".heic", ".heif")
IntArray = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


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

        Moving or renaming the folder keeps it.
        """
        return self._digest(self.open_images)

    @cached_property
    def content(self) -> str:
        """Hash of all images, a given test set among them."""
        return self.fingerprint if len(self.open_images) == len(self) else self._digest(np.arange(len(self)))

    def digests(self) -> list[str]:
        """Returns a hash of each image's content, 16 hexadecimal digits."""
        if self.pixels is not None:
            return [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in self.pixels]
        return [file_digest(self._file(name))[:16] for name in self.names]

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
            for name in (self.names[i] for i in members):
                digest.update(f"{name}\0{file_digest(self._file(name))}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def twins(self) -> IntArray:
        """(n,) a number for each image that its exact and near duplicates share.

        A given test set has none: it must not decide how the rest is divided.
        """
        from bagoftricks.data.duplicates import clusters, hash_images

        numbers, part = np.arange(len(self)), self.open_part
        hashes = hash_images(part, workers=os.cpu_count() or 1, cache=cache_folder() / "hashes")
        numbers[self.open_images] = self.open_images[clusters(part, hashes)]
        return numbers

    @cached_property
    def open_part(self) -> ImageIndex:
        """The index without a given test set."""
        return self if len(self.open_images) == len(self) else subset(self, self.open_images.tolist())

    def read(self, index: int, short_side: int | None = None) -> Pixels:
        """Returns one image as (H, W, 3) RGB, EXIF-upright, shrunk to `short_side` pixels but never enlarged.

        Raises:
            RunError: if the file cannot be decoded.
        """
        if self.pixels is not None:
            image: Pixels = self.pixels[index]
            return image
        return decode(self._file(self.names[index]), short_side)

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
        }


def decode(path: Path, short_side: int | None = None) -> Pixels:
    """Returns an image file as (H, W, 3) RGB uint8, EXIF-upright, shrunk to `short_side` but never enlarged.

    Raises:
        RunError: if the file cannot be decoded.
    """
    from PIL import Image, ImageOps

    if path.suffix.lower() in HEIC_SUFFIXES:
        _open_heic(path)
    try:
        with Image.open(path) as image:
            if short_side is not None:
                scale = short_side / min(image.size)
                if scale < 1:  # a JPEG decodes at 1/2, 1/4 or 1/8 at once; twice the size wanted is kept for quality
                    image.draft("RGB", (int(2 * scale * image.width), int(2 * scale * image.height)))
            upright = to_rgb(ImageOps.exif_transpose(image))
            if short_side is not None and (scale := short_side / min(upright.size)) < 1:
                size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
                upright = upright.resize(size, Image.Resampling.BILINEAR)
            return np.asarray(upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunError(f"{path}: cannot be decoded ({error}); repair or remove it") from error


def _open_heic(path: Path) -> None:
    """Teaches Pillow to read HEIC."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise RunError(f"{path}: HEIC needs another package: pip install 'bagoftricks[heic]'") from None
    register_heif_opener()


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns an image as 8-bit RGB: 16-bit grey keeps its upper half, transparency lies on white.

    Raises:
        ValueError: for 32-bit pixels, whose range nobody has stated.
    """
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels of unknown range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def subset(index: ImageIndex, keep: Sequence[int]) -> ImageIndex:
    """Returns the index of the images at `keep`, in that order, with the same classes."""
    chosen = np.asarray(keep, dtype=np.int64)
    return replace(
        index,
        labels=index.labels[chosen],
        names=tuple(index.names[i] for i in chosen),
        given=None if index.given is None else tuple(index.given[i] for i in chosen),
        groups=None if index.groups is None else tuple(index.groups[i] for i in chosen),
        pixels=None if index.pixels is None else index.pixels[chosen],
    )
