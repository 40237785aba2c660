"""Image files for the benches: JPEGs that anybody can make, and one tree of files for every contender."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bagoftricks.data.index import ImageIndex

HEIGHT, WIDTH = 200, 300
"""About Caltech-101's median size, in pixels."""
QUALITY = 90
FIELD = 1.2
"""Exponent of the amplitude's fall with frequency; photographs have about 1, and so compress alike."""


def make_photos(folder: Path, images: int, classes: int = 16, seed: int = 0) -> Path:
    """Writes `images` JPEGs of about 300 x 200 pixels into `classes` folders, once; returns the folder.

    Each is a random field whose amplitude falls with frequency as in photographs; each class has a tint of its own, so
    that it can be learnt.
    """
    from PIL import Image

    done = folder / "complete.json"
    wanted = {"images": images, "classes": classes, "seed": seed, "height": HEIGHT, "width": WIDTH}
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == wanted:
        return folder / "photos"
    draw = np.random.default_rng(seed)
    tints = draw.uniform(-40, 40, (classes, 3))
    for i in range(images):
        label = i % classes
        target = folder / "photos" / f"class-{label:03d}" / f"{i:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        height, width = HEIGHT + draw.integers(-20, 21), WIDTH + draw.integers(-30, 31)
        pixels = random_field(draw, int(height), int(width)) + tints[label]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, quality=QUALITY)
    done.write_text(json.dumps(wanted), encoding="utf-8")
    return folder / "photos"


def random_field(draw: np.random.Generator, height: int, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns (H, W, 3) of mean 128 and deviation 50: white noise, filtered to fall with frequency."""
    spectrum = np.fft.rfft2(draw.standard_normal((height, width, 3)), axes=(0, 1))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    spectrum /= np.maximum(np.hypot(fy, fx), 1 / max(height, width))[..., None] ** FIELD
    field = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    grey = field.mean(axis=2, keepdims=True)  # channels of a photograph move together
    field = grey + 0.4 * (field - grey)
    return 128 + 50 * (field - field.mean()) / field.std()


def plant(
    index: ImageIndex, folder: Path, sides: Mapping[str, Any], sizes: Mapping[str, int] | None = None
) -> dict[str, list[int]]:
    """Links the images of each side into `folder/<side>/<label>/`, so that folder readers of every library find them.

    Args:
        index: files of the data set.
        folder: created.
        sides: indices of the images, by side.
        sizes: most images of a side; they are drawn evenly from it.

    Returns:
        The indices linked, by side.
    """
    chosen = {}
    for side, members in sides.items():
        limit = (sizes or {}).get(side, len(members))
        order = np.random.default_rng(0).permutation(np.asarray(members))[:limit]
        chosen[side] = sorted(order.tolist())
        for label in range(index.num_classes):  # every class on each side: a library numbers the folders it finds
            (folder / side / f"{label:04d}").mkdir(parents=True, exist_ok=True)
        for i in chosen[side]:
            source = Path(index.root or ".") / index.names[i]
            link = folder / side / f"{index.labels[i]:04d}" / f"{i:07d}{source.suffix.lower()}"
            if not link.is_symlink():
                link.symlink_to(source.resolve())
    return chosen


def warm(index: ImageIndex) -> int:
    """Reads every file once, so that no contender finds a colder disk than the next; returns their bytes."""
    assert index.root is not None
    return sum(len((index.root / name).read_bytes()) for name in index.names)
