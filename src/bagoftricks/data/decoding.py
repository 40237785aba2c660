"""Image files as pixels. Nothing in a file is trusted: not its name, its size, its header, its metadata.

Read are JPEG, PNG, BMP, GIF, WebP, TIFF, PPM and, with an extra, HEIC, whatever the suffix says; of several frames or
pages the first. Every other decoder of Pillow (PostScript would start another program) is out of reach. What cannot be
read whole is refused: a picture that ends in grey would be learnt from like any other.

Bounds: 256 MiB a file; 120 million pixels, of WebP and HEIC 60 million, and 4 million in the few encodings that Pillow
decodes in Python. The largest take up to 1 GiB, and about 2 s.
"""

from __future__ import annotations

import ctypes
import io
import logging
import re
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bagoftricks.data.metadata import DamagedError, Jpeg, check_tiff, orientation, plain_jpeg
from bagoftricks.data.names import shown
from bagoftricks.data.reading import NO_MEMORY, BadImageError, read_bytes
from bagoftricks.errors import first_line

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MOST_PIXELS = 120_000_000
"""Beyond a camera's 108 million; four bytes each, twice, are just below 1 GiB."""
HUNGRY_PIXELS = {"WEBP": 60_000_000, "HEIF": 60_000_000}
"""Decoders that hold more copies."""
MOST_SCANNED = 3_000_000_000
"""Pixels times scans of a JPEG."""
SLOW_PIXELS = 2**22
SLOW = frozenset(("bmp_rle", "ppm", "ppm_plain"))
"""Pillow's decoders that are written in Python: about a second for a million pixels."""
LONGEST = 8
"""Long side of a shrunk image, as a multiple of the short side asked for. A strip of 20,000 x 3 pixels would make a
whole batch 20,000 pixels wide."""
STRIP_PIXELS = 2**22
"""Pixels of which the transparency is resolved, or that are copied, at once."""
FILL = b"\x55" * 64
"""Bytes that a JPEG decoder takes for pixels, if it still waits for some."""
TURNS = (
    "", "", "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90",
)  # fmt: skip
"""What sets an image upright, by its EXIF orientation."""
KINDS = "JPEG, PNG, BMP, GIF, WebP, TIFF, PPM, HEIC"
HEIC_SUFFIXES = (".heic", ".heif")
HEIC_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml|svg|!--)", re.IGNORECASE)
QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

Pixels = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    """A decoded image."""

    pixels: Pixels
    """(H, W, 3) RGB, upright."""
    width: int
    """Of the original, upright, in pixels."""
    height: int
    """Of the original, upright, in pixels."""
    mode: str
    """Of the file, as Pillow names it: "RGB", "L", "P", "CMYK", …"""


def decode(path: Path, short_side: int | None = None) -> Pixels:
    """Returns an image file as (H, W, 3) RGB uint8, EXIF-upright, shrunk to `short_side` but never enlarged.

    Raises:
        BadImageError: if the file cannot be decoded whole; a RunError.
    """
    return decode_bytes(read_bytes(path), str(path), short_side).pixels


def decode_bytes(data: bytes, name: str, short_side: int | None = None) -> Picture:
    """Returns the image that an image file's bytes hold.

    Args:
        data: the file's content.
        name: for errors; its suffix matters for HEIC only, where it is not known what the content is.
        short_side: to shrink to, in pixels; the long side becomes at most 8 times that, and the short one then less.

    Raises:
        BadImageError: if it cannot be decoded whole.
    """
    try:
        return _decoded(data, name, short_side)
    except BadImageError:
        raise
    except DamagedError as error:
        raise BadImageError(name, str(error)) from error
    except MemoryError as error:
        raise BadImageError(name, NO_MEMORY, passing=True) from error
    except Exception as error:  # parsers raise whatever they stumble over: struct.error, IndexError, SystemError, …
        raise BadImageError(name, _reason(error, _kind(data))) from error


def _reason(error: Exception, kind: str | None) -> str:
    """Pillow's text about unknown content names an address in memory, and its texts differ for the same fault."""
    from PIL import Image, UnidentifiedImageError

    text = shown(first_line(error))[:100]
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels (at most {MOST_PIXELS:,})"
    if isinstance(error, UnidentifiedImageError):
        return f"damaged (not readable as {kind})"
    if "truncat" in text.lower():
        return "truncated"
    return text if text.startswith("32-bit") else f"damaged ({kind}: {text})"


def _kind(data: bytes) -> str | None:
    """Returns Pillow's name of a file's format, by its first bytes; None for what is not read."""
    for kind, starts in (
        ("JPEG", (b"\xff\xd8\xff",)),
        ("PNG", (b"\x89PNG\r\n\x1a\n",)),
        ("GIF", (b"GIF87a", b"GIF89a")),
        ("BMP", (b"BM",)),
        ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ):
        if data.startswith(starts):
            return kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        return "HEIF"
    return "PPM" if re.match(rb"P[1-6]\s", data) else None


def _decoded(data: bytes, name: str, short_side: int | None) -> Picture:
    from PIL import Image

    kind = _kind(data)
    beside: tuple[bytes, bytes | str] = b"", b""  # EXIF and XMP
    if kind == "HEIF" or (kind is None and name.lower().endswith(HEIC_SUFFIXES)):
        _open_heic(name)
    if kind is None:
        raise BadImageError(name, "empty file" if not data else "a web page or XML, not an image"
                            if MARKUP.match(data) else f"no image of a kind that is read ({KINDS})")  # fmt: skip
    jpeg = plain_jpeg(data) if kind == "JPEG" else None
    if kind == "TIFF":
        check_tiff(data)
    with _opened(jpeg.data if jpeg else data, kind) as image:
        size, mode = image.size, image.mode
        _check_header(image, kind, jpeg.scans if jpeg else 1)
        _load(image, short_side)
        if jpeg:
            _check_tail(image, jpeg, short_side)
            beside = jpeg.exif, jpeg.xmp
        elif kind != "TIFF":  # which Pillow turns itself
            beside = _metadata(image.info)
        turned = orientation(*beside)
        upright = image.transpose(Image.Transpose[TURNS[turned]]) if turned > 1 else image
    width, height = (size[1], size[0]) if turned >= 5 else size
    if kind == "PPM" and mode == "I":  # 16 bits, by its definition
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    rgb = to_rgb(upright)
    del upright, image
    if short_side is not None and (scale := _scale(rgb.size, short_side)) < 1:
        shrunk = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
        rgb = rgb.resize(shrunk, Image.Resampling.BILINEAR)
    return Picture(_pixels(rgb), width, height, mode)


def _pixels(rgb: Image.Image) -> Pixels:
    """Returns (H, W, 3) uint8; of a large image a strip at a time, since Pillow copies all of it twice on the way."""
    if rgb.width * rgb.height <= STRIP_PIXELS:
        return np.asarray(rgb)
    pixels, rows = np.empty((rgb.height, rgb.width, 3), dtype=np.uint8), max(1, STRIP_PIXELS // rgb.width)
    for top in range(0, rgb.height, rows):
        pixels[top : top + rows] = np.asarray(rgb.crop((0, top, rgb.width, min(top + rows, rgb.height))))
    return pixels


def _scale(size: tuple[int, int], short_side: int) -> float:
    return min(short_side / min(size), LONGEST * short_side / max(size))


def _opened(data: bytes, kind: str) -> ImageFile.ImageFile:
    """Returns an image of which only the header was read, by the decoder of that kind and no other."""
    from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401 -- Image would import all plugins for these

    if QUIET not in warnings.filters:  # what Pillow finds odd in a file is no news for a terminal
        warnings.filterwarnings("ignore", module=r"PIL\.")
    _hush_libtiff()
    log = logging.getLogger("PIL")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return Image.open(io.BytesIO(data), formats=(kind,))


@cache
def _hush_libtiff() -> None:
    """Keeps libtiff from writing to standard error, which Pillow leaves it to: a file's faults are in its reason."""
    with suppress(OSError, AttributeError):  # no /proc, no such library: it talks, then
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        for path in {line[line.index("/") :] for line in lines if "/libtiff" in line}:
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                function = getattr(ctypes.CDLL(path), name)
                function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
                function(None)


def _check_header(image: ImageFile.ImageFile, kind: str, scans: int) -> None:
    """Refuses an image by its header, before anything is decoded."""
    pixels, most, why = image.width * image.height, MOST_PIXELS, ""
    tiles: list[Any] = getattr(image, "tile", None) or []
    if kind in HUNGRY_PIXELS:
        most, why = HUNGRY_PIXELS[kind], f" in {kind}"
    elif any(tile[0] in SLOW for tile in tiles):
        most, why = SLOW_PIXELS, " in an encoding that is slow to read"
    elif pixels * scans > MOST_SCANNED:
        most, why = MOST_SCANNED // scans, f" in {scans} scans"
    if pixels > most:
        raise DamagedError(f"too many pixels ({image.width} x {image.height}{why}; at most {most:,})")
    painted = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (tile[1] for tile in tiles if tile[1]))
    if painted > 8 * pixels:
        raise DamagedError("damaged (tiles that overlap)")
    if kind == "TIFF" and painted < pixels:  # Pillow would leave the rest black; a GIF's first frame may be a part
        raise DamagedError("truncated")


def _load(image: ImageFile.ImageFile, short_side: int | None) -> None:
    """Decodes; a JPEG at 1/2, 1/4 or 1/8 at once, where twice the size wanted is kept for quality."""
    if short_side is not None and (scale := _scale(image.size, short_side)) < 1:
        image.draft("RGB", (max(1, int(2 * scale * image.width)), max(1, int(2 * scale * image.height))))
    image.load()


def _check_tail(image: ImageFile.ImageFile, jpeg: Jpeg, short_side: int | None) -> None:
    """Refuses a JPEG whose pixels end before its end marker: libjpeg fills the rest with grey and says nothing.

    Where the last pixel is of that very grey, the file is decoded once more with some bytes added to its pixels: by
    that a whole picture does not change.
    """
    last = image.getpixel((image.width - 1, image.height - 1))
    if not set(last if isinstance(last, tuple) else (last,)) <= {127, 128}:
        return
    with _opened(jpeg.data[: jpeg.end] + FILL + jpeg.data[jpeg.end :], "JPEG") as longer:
        _load(longer, short_side)
        if longer.tobytes() != image.tobytes():
            raise DamagedError("truncated")


def _metadata(info: dict[Any, Any]) -> tuple[bytes, bytes | str]:
    """Returns the EXIF block and the XMP document that Pillow found beside the pixels."""
    exif, xmp = info.get("exif"), info.get("XML:com.adobe.xmp") or info.get("xmp")
    if exif is None and isinstance(text := info.get("Raw profile type exif"), str):  # ImageMagick's, in a PNG
        try:
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            exif = None
    return exif if isinstance(exif, bytes) else b"", xmp if isinstance(xmp, bytes | str) else b""


def _open_heic(name: str) -> None:
    """Teaches Pillow to read HEIC."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        reason = "HEIC needs pillow-heif, which the extra heic installs"
        raise BadImageError(name, reason, passing=True) from None
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
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgb = Image.new("RGB", image.size)
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):  # a strip at a time, so that memory stays bounded
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        rgb.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return rgb
