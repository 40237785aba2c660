"""Small valid image files of every kind that is read, to be damaged."""

from __future__ import annotations

import importlib.util
import io
import struct
from functools import cache
from typing import Any

import numpy as np
from PIL import Image


def picture(size: tuple[int, int] = (40, 28), mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A smooth picture with some noise."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + draw.integers(-9, 9, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    if "append_images" in options:  # saving leaves traces in an image
        options["append_images"] = [one.copy() for one in options["append_images"]]
    image.copy().save(out, kind, **options)
    return out.getvalue()


def exif_block(orientation: int = 6) -> bytes:
    """An EXIF block with an orientation, some text, and a second directory."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = orientation, "a camera", 72.0
    exif.get_ifd(0x8769)[0x829A] = 0.01
    return exif.tobytes()


def rle_bitmap(width: int = 12, height: int = 6) -> bytes:
    """A BMP with run-length encoding, which Pillow reads but does not write."""
    rows = b"".join(bytes((4, 1, 8, 2, 0, 0)) for _ in range(height)) + b"\0\1"
    palette = b"".join(bytes((v, v, 255 - v, 0)) for v in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 2835, 2835, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + palette + rows


@cache
def valid_files() -> dict[str, bytes]:
    """Each by a name."""
    rgb, second, exif = picture(), picture(seed=1), exif_block()
    moving: dict[str, Any] = {"save_all": True, "append_images": [second]}
    deep = Image.fromarray((np.arange(28 * 40).reshape(28, 40) * 58).astype(np.uint16))
    files = {
        "jpeg": saved(rgb, "JPEG"),
        "jpeg progressive": saved(rgb, "JPEG", progressive=True, exif=exif),
        "jpeg exif": saved(rgb, "JPEG", exif=exif, icc_profile=b"x" * 300, comment=b"hello"),
        "jpeg grey": saved(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": saved(rgb.convert("CMYK"), "JPEG"),
        "jpeg restarts": saved(rgb, "JPEG", restart_marker_blocks=2),
        "mpo": saved(rgb, "MPO", **moving),
        "png": saved(rgb, "PNG"),
        "png palette": saved(rgb.quantize(16), "PNG", transparency=3),
        "png grey alpha": saved(rgb.convert("LA"), "PNG"),
        "png bits": saved(rgb.convert("1"), "PNG"),
        "png 16 bits": saved(deep, "PNG"),
        "png exif": saved(rgb, "PNG", exif=exif),
        "apng": saved(rgb, "PNG", **moving),
        "bmp": saved(rgb, "BMP"),
        "bmp palette": saved(rgb.quantize(16), "BMP"),
        "bmp runs": rle_bitmap(),
        "gif": saved(rgb, "GIF"),
        "gif moving": saved(rgb, "GIF", **moving),
        "webp": saved(rgb, "WEBP", exif=exif),
        "webp lossless": saved(rgb.convert("RGBA"), "WEBP", lossless=True),
        "webp moving": saved(rgb, "WEBP", **moving),
        "tiff": saved(rgb, "TIFF"),
        "tiff big": saved(rgb, "TIFF", big_tiff=True),
        "tiff pages": saved(rgb, "TIFF", **moving),
        "tiff 16 bits": saved(deep, "TIFF"),
        "tiff palette": saved(rgb.quantize(16), "TIFF", tiffinfo={0x0112: 6}),
        "tiff float": saved(picture(mode="L").convert("F"), "TIFF"),
        **{
            f"tiff {name}": saved(rgb, "TIFF", compression=name)
            for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd")
        },
        "tiff group4": saved(rgb.convert("1"), "TIFF", compression="group4"),
        "ppm": saved(rgb, "PPM"),
        "pgm": saved(rgb.convert("L"), "PPM"),
        "pgm 16 bits": saved(deep, "PPM"),
        "ppm plain": b"P3\n# a comment\n3 2\n255\n" + b" ".join(b"%d" % v for v in range(18)),
        "pbm plain": b"P1\n4 2\n1 0 1 0\n0101",
        "ppm odd": b"P6\n3 2\n100\n" + bytes(range(18)),
    }
    if importlib.util.find_spec("pillow_heif"):
        from pillow_heif import register_heif_opener

        register_heif_opener()
        files["heic"] = saved(rgb, "HEIF", exif=exif)
    return files
