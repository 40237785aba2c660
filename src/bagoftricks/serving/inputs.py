"""Images to predict: found in files, folders, patterns and lists, and decoded ahead of the network.

Everything that is predicted goes the way of a training's files (`data.decoding`): upright, RGB, shrunk to the short
side at which training kept its images, with the same bounds on what a file may ask for.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, Union

import numpy as np
import numpy.typing as npt

from bagoftricks.data.ahead import ahead
from bagoftricks.data.decoding import Pixels, decode, decode_bytes, to_rgb
from bagoftricks.data.folder import SUFFIXES, entries, is_folder, is_image
from bagoftricks.data.names import shown
from bagoftricks.data.reading import BadImageError
from bagoftricks.errors import UserError, first_line
from bagoftricks.files import expanded

if TYPE_CHECKING:
    import PIL.Image

Image: TypeAlias = Union[str, Path, npt.NDArray[np.uint8], "PIL.Image.Image"]
"""What can be predicted: a file's path, an (H, W, 3) RGB array, or a Pillow image."""
T = TypeVar("T")


def find_images(paths: Sequence[str]) -> list[Path]:
    """Returns the images that paths name: in the order given, those of a folder in lexical order, each once.

    A file that is named is taken whatever its suffix; in folders, searched to the bottom, and among what a pattern
    matches, images are told by it. Hidden files and folders, and folders that are links, are left out below a folder.

    Args:
        paths: of files and folders, or patterns as of a shell, in which `**` is any depth.

    Raises:
        UserError: for what is not there, a folder or a pattern without an image, or a folder that cannot be read.
    """
    found: dict[Path, None] = {}
    for name in paths:
        if not name:
            raise UserError("'': the name of a file or folder is empty")
        path = expanded(name)
        if os.path.lexists(path):
            images = _below(path) if is_folder(path) else [path]
            lack = "no images in it"
        elif glob.has_magic(name):
            matches = _at_any_depth(path) if "**" in path.parts else sorted(map(Path, glob.glob(str(path))))  # noqa: PTH207 -- absolute
            nested = (_below(match) if is_folder(match) else [match] * is_image(match) for match in matches)
            images = [image for group in nested for image in group]
            lack = "matches no images" if matches else "matches nothing"
        else:
            raise UserError(f"{shown(name)}: no such file or folder")
        if not images:
            raise UserError(f"{shown(name)}: {lack} ({', '.join(sorted(SUFFIXES))})")
        found.update(dict.fromkeys(images))
    return list(found)


def listed_images(text: bytes, *, nul: bool = False) -> list[Path]:
    """Returns the images that a list names, one a line, in its order and each once.

    A folder is searched as by `find_images`. A file that is not there is named all the same: it may have gone since the
    list was made, and is a bad image like others.

    Args:
        text: names, as bytes.
        nul: whether names end with a NUL, as `find -print0` writes them, rather than with a line's end.
    """
    names = text.split(b"\0") if nul else text.splitlines()
    found: dict[Path, None] = {}
    for name in names:
        if name:
            path = Path(os.fsdecode(name))
            found.update(dict.fromkeys(_below(path) if is_folder(path) else [path]))
    return list(found)


def _at_any_depth(pattern: Path) -> list[Path]:
    """Returns what a pattern with `**` matches, in lexical order.

    Links to folders are not entered, as they may lead back; what is hidden is left out where the pattern names it not.
    """
    parts = pattern.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    found: set[Path] = set()
    _match(Path(*parts[:fixed]), parts[fixed:], found)
    return sorted(found)


def _match(folder: Path, parts: tuple[str, ...], found: set[Path]) -> None:
    """Adds what lies below a folder and matches a pattern's parts."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        if rest:
            _match(folder, rest, found)
        else:
            found.add(folder)
    for entry in entries(folder) if is_folder(folder) else ():
        if entry.name.startswith(".") and not part.startswith("."):
            continue
        if part == "**":
            if is_folder(entry):
                if not entry.is_symlink():
                    _match(entry, parts, found)
            elif not rest:
                found.add(entry)
        elif fnmatch(entry.name, part):
            if not rest:
                found.add(entry)
            elif is_folder(entry):
                _match(entry, rest, found)


def _below(folder: Path) -> list[Path]:
    """Returns every image below a folder, in lexical order."""

    def refuse(error: OSError) -> None:
        place = shown(str(error.filename or folder))
        raise UserError(f"folder {place}: cannot be read ({error.strerror}); put that right") from error

    found = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [path for path in (Path(root) / name for name in sorted(files)) if is_image(path)]
    return found


def read_image(image: Image, short_side: int) -> Pixels:
    """Returns an image as (H, W, 3) RGB uint8, upright, shrunk to `short_side` pixels but never enlarged.

    An array or a Pillow image goes the way of a file that holds the same pixels.

    Raises:
        BadImageError: for a file or a Pillow image that cannot be decoded.
        UserError: for an array that is no RGB image, or another kind of object.
    """
    if isinstance(image, str | Path):
        return decode(Path(image), short_side)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                f"an array of {image.dtype} with shape {image.shape}: images are uint8 of shape (height, width, 3), RGB"
            )
        return _as_file(image, "an array", short_side)
    from PIL import Image as Pillow
    from PIL import ImageOps

    if not isinstance(image, Pillow.Image):
        raise UserError(f"{type(image).__name__} is no image: pass a path, a uint8 array or a Pillow image")
    name = str(getattr(image, "filename", "") or "a Pillow image")
    try:
        pixels = np.asarray(to_rgb(ImageOps.exif_transpose(image)))
    except (OSError, ValueError, SyntaxError, MemoryError) as error:  # what is loaded only now may be damaged
        raise BadImageError(name, first_line(error)) from error
    return _as_file(pixels, name, short_side)


def _as_file(pixels: Pixels, name: str, short_side: int) -> Pixels:
    height, width = pixels.shape[:2]
    return decode_bytes(b"P6 %d %d 255\n" % (width, height) + pixels.tobytes(), name, short_side).pixels


def read_ahead(
    items: Iterable[T], read: Callable[[T], Pixels], *, workers: int, most: int
) -> Iterator[Pixels | BadImageError]:
    """Yields each item's pixels in order, or why there are none; threads read on while the caller computes.

    Args:
        items: taken one after the other, as there is room.
        read: called in the threads; only a BadImageError is yielded, others are raised.
        workers: threads.
        most: images that are read or being read and not yet taken, so that memory stays flat.
    """

    def attempt(item: T) -> Pixels | BadImageError:
        try:
            return read(item)
        except BadImageError as error:
            return error.bare()

    for future in ahead(items, attempt, workers=workers, most=most):
        yield future.result()
