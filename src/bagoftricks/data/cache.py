"""Images decoded once: uint8 pixels at a short side, in one memory-mapped file that every run shares.

Layout: `<key>.u8` holds each image's H x W x 3 bytes one after the other; `<key>.npz` holds `offset` (bytes), `height`
and `width` of each. The second file appears last, by a rename, so a half-built cache is never read. Whoever builds one
holds `<key>.lock`, which others wait for, and which goes with its process.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from zipfile import BadZipFile

import numpy as np

from bagoftricks.data.ahead import ahead
from bagoftricks.data.arrays import read_arrays
from bagoftricks.data.decoding import LONGEST
from bagoftricks.data.hashes import known_sizes
from bagoftricks.data.index import ImageIndex, IntArray, Pixels
from bagoftricks.errors import RunError, StorageError, first_line
from bagoftricks.files import cache_folder, replacing, sweep, waiting_for

LIMIT_BYTES = 32 * 2**30
"""Above this estimate, images are decoded anew in every epoch instead."""
PLACES = ("offset", "height", "width")
"""Arrays of a cache's table: where each image begins, in bytes, and its size."""
NAMED = 20
"""How many broken images an error names."""
OVERSAMPLING = 1.5
"""Short side of the cached images as a multiple of the training size: a random crop of a third of the image still
fills the training size without being enlarged."""


class Images(Protocol):
    """Where batches take their pixels from."""

    def many(self, indices: IntArray) -> list[Pixels]:
        """Returns the (H, W, 3) uint8 images at `indices`."""
        ...


class DecodedImages:
    """Images in memory, or decoded at each use: for data sets that are small arrays or too large to cache."""

    def __init__(self, index: ImageIndex, short_side: int, workers: int = 1) -> None:
        self.index, self.short_side = index, short_side
        self.pool = ThreadPoolExecutor(workers) if workers > 1 else None

    def many(self, indices: IntArray) -> list[Pixels]:
        def read(i: int) -> Pixels:
            return self.index.read(i, self.short_side)

        return list(self.pool.map(read, indices.tolist()) if self.pool else map(read, indices.tolist()))


@dataclass(frozen=True)
class CachedImages:
    """Images one after the other in memory, or in a file that is mapped there; copied by nobody until they are used."""

    bytes: Pixels
    """(all pixels' bytes,)"""
    offset: IntArray
    """(n,) where each image begins, in bytes."""
    height: IntArray
    """(n,) in pixels."""
    width: IntArray
    """(n,) in pixels."""

    @classmethod
    def open(cls, stem: Path) -> Self:
        """Returns the images of a cache on disk.

        Raises:
            RunError: if it is damaged.
        """
        try:
            table = read_arrays(stem.with_suffix(".npz"))
            pixels: Pixels = np.memmap(stem.with_suffix(".u8"), dtype=np.uint8, mode="r")
            found = cls(pixels, *(table[name].astype(np.int64) for name in PLACES))
            ends = found.offset + found.height * found.width * 3
            inside = min(found.offset.min(), found.height.min(), found.width.min()) >= 0 and ends.max() <= len(pixels)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise RunError(f"cache {stem}: damaged ({first_line(error)}); remove it, it is built anew") from error
        if not inside:
            raise RunError(f"cache {stem}: damaged (an image lies outside the file); remove it, it is built anew")
        return found

    def many(self, indices: IntArray) -> list[Pixels]:
        return [self._one(i) for i in indices.tolist()]

    def _one(self, i: int) -> Pixels:
        h, w, start = int(self.height[i]), int(self.width[i]), int(self.offset[i])
        return self.bytes[start : start + h * w * 3].reshape(h, w, 3)


def cached_side(size: int) -> int:
    """Returns the short side, in pixels, at which images are kept for training at `size`."""
    return round(size * OVERSAMPLING)


def estimate_bytes(index: ImageIndex, size: int) -> int:
    """Returns the cache's expected bytes: from the images' sizes where they were looked at, and otherwise as if they
    were 4:3 and no smaller than the short side.
    """
    if index.pixels is not None:
        return 0
    side = cached_side(size)
    sizes = known_sizes(index, cache_folder() / "hashes")
    if sizes is None:
        return int(len(index) * side**2 * 4 / 3 * 3)
    short, long = (np.maximum(1, part(sizes, axis=0)).astype(np.float64) for part in (np.min, np.max))
    scale = np.minimum(1, np.minimum(side / short, LONGEST * side / long))
    return int((short * scale * long * scale * 3).sum())


def open_images(
    index: ImageIndex, size: int, folder: Path, *, workers: int = 1, progress: Callable[[int], None] | None = None
) -> Images:
    """Returns the images of `index` for training at `size` pixels, building the cache in `folder` where it is missing.

    Args:
        index: the data set.
        size: training size in pixels.
        folder: where caches lie; created.
        workers: threads that decode.
        progress: called with the number of images decoded so far; with 0, about each second, while another process
            builds the same cache.

    Raises:
        RunError: if an image cannot be decoded.
        StorageError: if the disk has no room.
    """
    side = cached_side(size)
    needed = estimate_bytes(index, size)
    if index.pixels is not None or needed > LIMIT_BYTES:
        return DecodedImages(index, side, workers)
    stem = folder / f"{index.content[:16]}-{side}"
    table = stem.with_suffix(".npz")
    if not table.exists():
        with waiting_for(stem.with_suffix(".lock"), lambda: progress(0) if progress else None):
            if not table.exists():  # nobody has built it while we waited
                sweep(folder, f"{stem.name}.")  # of a builder that was killed
                free = shutil.disk_usage(folder).free
                if needed > free:
                    gib = f"needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
                    raise StorageError(f"cache {folder}: {gib}; make room, and give the same command again")
                _build(index, side, stem, workers, progress)
    return CachedImages.open(stem)


def _build(index: ImageIndex, side: int, stem: Path, workers: int, progress: Callable[[int], None] | None) -> None:
    height, width = np.empty((2, len(index)), dtype=np.int64)
    broken: list[str] = []
    with replacing(stem.with_suffix(".u8")) as temporary, temporary.open("wb") as file:
        reads = ahead(range(len(index)), lambda i: index.read(i, side), workers=workers, most=4 * workers)
        for done, first in enumerate(reads):
            error = first.exception()
            if isinstance(error, RunError):
                broken.append(str(error))
                continue
            image = first.result()
            height[done], width[done] = image.shape[:2]
            file.write(image.tobytes())
            if progress:
                progress(done + 1)
        if broken:
            others = ", ".join(text.partition(": ")[0] for text in broken[1:NAMED])
            more = f"; and {len(broken) - 1} more: {others}{', …' if len(broken) > NAMED else ''}"
            raise RunError(broken[0] + (more if others else ""))
    offset = np.concatenate([[0], np.cumsum(height * width * 3)[:-1]])
    with replacing(stem.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez(file, offset=offset, height=height, width=width)
