"""What is kept of every image to find its copies by: digests, perceptual hashes, thumbnails; with size and colours.

pHash: the signs of 8 x 8 low-frequency DCT coefficients about their median, of the image shrunk to 32 x 32 grey (Zauner
2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"; its smoothing is left to the shrinking).

Shapes: n images.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bagoftricks.data.ahead import ahead
from bagoftricks.data.index import ImageIndex, IntArray, Pixels
from bagoftricks.data.reading import BadImageError
from bagoftricks.files import replacing

READ, SIDE, THUMBNAIL, LOW = 64, 32, 16, 8
"""Pixels: short side at which an image is read, sides of the hashed image and the thumbnail; frequencies kept."""
SMALLEST = 32
"""Originals with a shorter side are compared pixel by pixel only: there is too little in them for a perceptual hash."""
FLAT = 8.0
"""Standard deviation of a thumbnail's grey levels, of 255, below which an image is compared exactly only."""
MARGIN = 0.01
"""How far above their median a coefficient must lie to set its bit, as a share of their root mean square."""
FORMAT = 2
"""Of the cached file; raised when its arrays change their meaning."""
BLOCK, AHEAD = 4096, 8
"""Images that are taken together, and those under way for each thread."""
ARRAYS = ("digests", "phash", "flipped", "thumbnails", "width", "height", "chroma")

UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
"""What reading a kept file raises that is not there, or damaged."""

HashArray = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Hashes:
    """What is kept of every image, in the order of the index."""

    digests: Pixels
    """(n, 32) sha256 of the file's bytes, or of the pixels: in memory, or below 32 pixels."""
    phash: HashArray
    """(n,) perceptual hash; 0 where the image cannot be decoded."""
    flipped: HashArray
    """(n,) perceptual hash of the mirror image."""
    thumbnails: Pixels
    """(n, 16, 16) grey."""
    width: IntArray
    """(n,) of the original, upright, in pixels; 0 where it cannot be decoded."""
    height: IntArray
    """(n,) of the original, upright, in pixels; 0 where it cannot be decoded."""
    chroma: Pixels
    """(n,) largest difference between an image's colour channels at 32 x 32, of 255; 0 for grey."""
    modes: tuple[str, ...]
    """Pillow's mode of each file ("RGB", "L", "P", "CMYK", …); "" where it cannot be decoded."""
    errors: tuple[str, ...]
    """Why an image cannot be decoded; "" where it can."""
    passing: tuple[int, ...] = ()
    """Numbers of the images whose fault may be gone next time: they are looked at anew."""

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def comparable(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the perceptual hash means something: neither broken, nor tiny, nor of one colour."""
        varied = self.thumbnails.reshape(len(self), -1).std(axis=1) >= FLAT
        return np.asarray(varied & (np.minimum(self.width, self.height) >= SMALLEST))

    def at(self, keep: IntArray) -> Hashes:
        """Returns what is kept of the images at `keep`, in that order."""
        place = {int(i): k for k, i in enumerate(keep)}
        return Hashes(
            **{name: getattr(self, name)[keep] for name in ARRAYS},
            modes=tuple(self.modes[i] for i in keep),
            errors=tuple(self.errors[i] for i in keep),
            passing=tuple(place[i] for i in self.passing if i in place),
        )


class _Look(NamedTuple):
    """One image, looked at."""

    digest: bytes
    grey: Pixels
    size: tuple[int, int] = (0, 0)
    chroma: int = 0
    mode: str = ""
    error: str = ""
    passing: bool = False
    """Whether the error may be gone next time, so that it must not be kept."""


def hash_images(
    index: ImageIndex,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    cache: Path | None = None,
) -> Hashes:
    """Looks at every image once, at 64 pixels (about 1 ms each in one thread for Caltech-101's JPEGs).

    Args:
        index: the data set.
        workers: threads that decode.
        progress: called with the number of images done so far.
        cache: folder where the result is kept, by the content of the data set; a damaged file there is replaced.
    """
    path = _place(index, cache)
    kept = None if path is None else _load(path, len(index))
    if kept is not None and not kept.passing:
        return kept
    again = list(range(len(index)) if kept is None else kept.passing)
    each = _looks(index, again, workers, progress)
    blocks = iter(lambda: list(islice(each, BLOCK)), [])  # which bound the memory
    looks = _joined([_assemble(block) for block in blocks])
    hashes = looks if kept is None else _renewed(kept, again, looks)
    if path is not None and (kept is None or hashes.errors != kept.errors):
        with suppress(OSError):  # a folder that cannot be written to costs the time again, no more
            _save(hashes, path)
    return hashes


def known_sizes(index: ImageIndex, cache: Path) -> IntArray | None:
    """Returns the images' (2, n) heights and widths, upright, where all were looked at and it was kept; else None."""
    path = _place(index, cache)
    assert path is not None
    try:
        with np.load(path, allow_pickle=False) as kept:
            sizes: IntArray = np.stack([kept["height"], kept["width"]]).astype(np.int64)
    except UNREADABLE:
        return None
    return sizes if sizes.shape == (2, len(index)) else None


def keep_hashes(index: ImageIndex, hashes: Hashes, cache: Path | None) -> None:
    """Keeps what is known of a data set, for `hash_images` to find: of a part of one that was looked at."""
    path = _place(index, cache)
    if path is not None and not path.exists():
        with suppress(OSError):
            _save(hashes, path)


def _place(index: ImageIndex, cache: Path | None) -> Path | None:
    return None if cache is None else cache / f"{index.content}.npz"


def _looks(
    index: ImageIndex, chosen: list[int], workers: int, progress: Callable[[int], None] | None
) -> Iterator[_Look]:
    """Yields looks in order."""
    for done, future in enumerate(ahead(chosen, lambda i: _look(index, i), workers=workers, most=AHEAD * workers), 1):
        look = future.result()
        if progress:
            progress(done)
        yield look


def _look(index: ImageIndex, i: int) -> _Look:
    from PIL import Image

    try:
        picture = index.picture(i, READ)
    except BadImageError as error:
        digest = index.contents[i] or hashlib.sha256(index.names[i].encode(errors="surrogateescape")).digest()
        return _Look(digest, np.zeros((SIDE, SIDE), np.uint8), error=error.reason, passing=error.passing)
    rgb, size = picture.pixels, (picture.width, picture.height)
    digest = index.contents[i]
    if index.pixels is not None or min(size) < SMALLEST:
        digest = hashlib.sha256(f"{rgb.shape}".encode() + rgb.tobytes()).digest()
    small = Image.fromarray(rgb).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    colours = np.asarray(small)
    chroma = int((colours.max(axis=2) - colours.min(axis=2)).max())
    grey = np.asarray(Image.fromarray(rgb).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return _Look(digest, grey, size, chroma, picture.mode)


def _renewed(kept: Hashes, places: list[int], looks: Hashes) -> Hashes:
    """Returns what was kept, with the images at `places` looked at anew."""
    arrays = {name: getattr(kept, name).copy() for name in ARRAYS}
    texts = {name: list(getattr(kept, name)) for name in ("modes", "errors")}
    for name, values in arrays.items():
        values[places] = getattr(looks, name)
    for name, words in texts.items():
        for place, word in zip(places, getattr(looks, name), strict=True):
            words[place] = word
    return Hashes(
        **arrays,
        modes=tuple(texts["modes"]),
        errors=tuple(texts["errors"]),
        passing=tuple(places[i] for i in looks.passing),
    )


def _assemble(looks: list[_Look]) -> Hashes:
    grey = np.stack([look.grey for look in looks])
    phash, flipped = perceptual_hashes(grey)
    broken = np.array([bool(look.error) for look in looks])
    half = grey.reshape(-1, THUMBNAIL, 2, THUMBNAIL, 2).mean(axis=(2, 4), dtype=np.float32)
    size = np.array([look.size for look in looks], dtype=np.int64)
    size[broken] = 0
    return Hashes(
        digests=np.frombuffer(b"".join(look.digest for look in looks), np.uint8).reshape(-1, 32),
        phash=np.where(broken, np.uint64(0), phash),
        flipped=np.where(broken, np.uint64(0), flipped),
        thumbnails=np.rint(half).astype(np.uint8),
        width=size[:, 0],
        height=size[:, 1],
        chroma=np.array([look.chroma for look in looks], dtype=np.uint8),
        modes=tuple(look.mode for look in looks),
        errors=tuple(look.error for look in looks),
        passing=tuple(i for i, look in enumerate(looks) if look.passing),
    )


def _joined(parts: list[Hashes]) -> Hashes:
    """Returns what is kept of several blocks of images as one."""
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    return Hashes(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS},
        modes=tuple(mode for part in parts for mode in part.modes),
        errors=tuple(error for part in parts for error in part.errors),
        passing=tuple(start + i for start, part in zip(starts, parts, strict=False) for i in part.passing),
    )


def perceptual_hashes(grey: Pixels) -> tuple[HashArray, HashArray]:
    """Returns pHash of (n, 32, 32) grey images, and of their mirror images.

    Frequencies 1 to 8 in both directions are kept; the constant row and column are not (as in the pHash library).
    Mirroring changes the sign of the odd horizontal ones, which are zero in a symmetric picture: the margin keeps their
    bits from following rounding errors.
    """
    frequency, place = np.arange(1, LOW + 1)[:, None], np.arange(SIDE)[None]
    basis = np.cos(np.pi / (2 * SIDE) * (2 * place + 1) * frequency).astype(np.float32)
    signs = np.where(np.arange(1, LOW + 1) % 2, -1, 1).astype(np.float32)
    both: list[list[HashArray]] = [[], []]
    for start in range(0, len(grey), BLOCK):  # so that memory stays flat
        dct = basis @ grey[start : start + BLOCK].astype(np.float32) @ basis.T
        for found, values in zip(both, (dct, dct * signs), strict=True):
            flat = values.reshape(len(values), LOW * LOW)
            scale = np.sqrt((flat**2).mean(axis=1, keepdims=True))
            bits = flat > np.median(flat, axis=1, keepdims=True) + MARGIN * scale
            found.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.concatenate(both[0]), np.concatenate(both[1])


def _made_with() -> str:
    import PIL

    return f"{FORMAT} pillow {PIL.__version__}"


def _save(hashes: Hashes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    words = {name: getattr(hashes, name) for name in ("modes", "errors", "passing")}
    texts = json.dumps({"made_with": _made_with(), **words})
    arrays = {name: getattr(hashes, name) for name in ARRAYS}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, texts=np.array(texts), **arrays)


def _load(path: Path, count: int) -> Hashes | None:
    """Returns what is kept at `path`; None if there is nothing, it is damaged, or was made differently."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            texts = json.loads(str(kept["texts"]))
            arrays = {name: kept[name] for name in ARRAYS}
        if texts["made_with"] != _made_with():
            return None
        modes, errors, passing = (tuple(texts[name]) for name in ("modes", "errors", "passing"))
        hashes = Hashes(**arrays, modes=modes, errors=errors, passing=passing)
    except UNREADABLE:
        return None
    return hashes if {count} == {len(getattr(hashes, name)) for name in (*ARRAYS, "modes", "errors")} else None
