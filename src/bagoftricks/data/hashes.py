"""What is kept of every image to find its copies by: digests, perceptual hashes, thumbnails; with size and colours.

pHash: the signs of 8 x 8 low-frequency DCT coefficients about their median, of the image shrunk to 32 x 32 grey (Zauner
2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"; its smoothing is left to the shrinking).

Shapes: n images.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bagoftricks.data.index import ImageIndex, IntArray, Pixels
from bagoftricks.errors import RunError, first_line
from bagoftricks.files import replacing

READ, SIDE, THUMBNAIL, LOW = 64, 32, 16, 8
"""Pixels: short side at which an image is read, sides of the hashed image and the thumbnail; frequencies kept."""
SMALLEST = 32
"""Originals with a shorter side are compared pixel by pixel only: there is too little in them for a perceptual hash."""
FLAT = 8.0
"""Standard deviation of a thumbnail's grey levels, of 255, below which an image is compared exactly only."""
MARGIN = 0.01
"""How far above their median a coefficient must lie to set its bit, as a share of their root mean square."""
FORMAT = 1
"""Of the cached file; raised when its arrays change their meaning."""
ARRAYS = ("digests", "phash", "flipped", "thumbnails", "width", "height", "chroma")

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

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def comparable(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the perceptual hash means something: neither broken, nor tiny, nor of one colour."""
        varied = self.thumbnails.reshape(len(self), -1).std(axis=1) >= FLAT
        return np.asarray(varied & (np.minimum(self.width, self.height) >= SMALLEST))


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
    path = cache / f"{index.content}.npz" if cache is not None else None
    if path is not None and (kept := _load(path, len(index))) is not None:
        return kept
    looks: list[_Look] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for look in pool.map(lambda i: _look(index, i), range(len(index))):
                looks.append(look)
                if progress:
                    progress(len(looks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    hashes = _assemble(looks)
    if path is not None and not any(look.passing for look in looks):
        with suppress(OSError):  # a folder that cannot be written to costs the time again, no more
            _save(hashes, path)
    return hashes


def _look(index: ImageIndex, i: int) -> _Look:
    from PIL import Image

    blank = np.zeros((SIDE, SIDE), np.uint8)
    digest, size, mode = b"", (0, 0), "RGB"
    try:
        if index.pixels is None:
            assert index.root is not None
            data = (index.root / index.names[i]).read_bytes()
            digest = hashlib.sha256(data).digest()
            with Image.open(io.BytesIO(data)) as image:
                size, mode = image.size, image.mode
        rgb = index.read(i, READ)
    except (RunError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return _Look(digest or hashlib.sha256(index.names[i].encode(errors="surrogateescape")).digest(), blank,
                     error=_reason(error), passing=_may_pass(error))  # fmt: skip
    height, width = rgb.shape[:2]
    if index.pixels is not None:
        size = width, height
    if (size[0] > size[1]) != (width > height) and width != height:  # EXIF turns it
        size = size[1], size[0]
    if index.pixels is not None or min(size) < SMALLEST:
        digest = hashlib.sha256(f"{rgb.shape}".encode() + rgb.tobytes()).digest()
    picture = Image.fromarray(rgb)
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    chroma = int((small.max(axis=2) - small.min(axis=2)).max())
    grey = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return _Look(digest, grey, size, chroma, mode)


def _may_pass(error: Exception) -> bool:
    """Whether the fault lies with the machine (a missing package, a file that cannot be read now), not the image."""
    from PIL import UnidentifiedImageError

    cause = error.__cause__ if isinstance(error, RunError) else error
    if isinstance(cause, UnidentifiedImageError):
        return False
    return cause is None or (isinstance(cause, OSError) and cause.errno is not None)


def _reason(error: Exception) -> str:
    """The reason alone: the image is named elsewhere, and Pillow's text about unknown content tells a user nothing."""
    from PIL import UnidentifiedImageError

    cause = error.__cause__ if isinstance(error, RunError) and error.__cause__ else error
    if isinstance(cause, UnidentifiedImageError):
        return "empty, no image, or of a kind that cannot be read"
    return (cause.strerror if isinstance(cause, OSError) else None) or first_line(cause)


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
    for start in range(0, len(grey), 4096):  # so that memory stays flat
        dct = basis @ grey[start : start + 4096].astype(np.float32) @ basis.T
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
    texts = json.dumps({"made_with": _made_with(), "modes": hashes.modes, "errors": hashes.errors})
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
        hashes = Hashes(**arrays, modes=tuple(texts["modes"]), errors=tuple(texts["errors"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return hashes if {count} == {len(getattr(hashes, name)) for name in (*ARRAYS, "modes", "errors")} else None
