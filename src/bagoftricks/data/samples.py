"""Sample images with captions, as one picture: a data set's Figure 1."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bagoftricks.data.check import shown
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import RunError, unknown
from bagoftricks.rng import stream

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

CELL, GAP, CAPTION, TITLE = 120, 6, 18, 30
"""Pixels: side of a sample, space around it, heights of its caption and of the grid's title."""
GRID = (5, 8)
"""Rows and columns of the grid of one class."""
MOST_SAMPLES, SAMPLE_COLUMNS = 144, 12
"""Classes in the grid of one image each, and its most columns."""
PIXELATED = 32
"""Pixels of the short side below which samples are enlarged without smoothing."""


def sample_grid(index: ImageIndex, class_name: str | None, rows: int = GRID[0], columns: int = GRID[1]) -> bytes:
    """Returns a JPEG of sample images with captions: a data set's Figure 1.

    The sample is the same at every call. A given test set is left out, as are images that cannot be decoded.

    Args:
        index: the data set.
        class_name: whose images to show; None for one image each of as many classes as there is room for.
        rows: most rows.
        columns: columns.

    Raises:
        UserError: for an unknown class.
        RunError: if none of its images can be decoded.
    """
    room = rows * columns
    if class_name is None:
        chosen = np.arange(index.num_classes)
        if len(chosen) > room:
            chosen = np.sort(stream(0, "samples").permutation(chosen)[:room])
        found = [(index.classes[k], picture) for k in chosen for _, picture in _samples(index, int(k), 1)]
        of = f"{len(found)} of " if len(found) < index.num_classes else ""
        title = f"{index.name}: one image each of {of}{index.num_classes} classes"
    else:
        if class_name not in index.classes:
            raise unknown("class", class_name, index.classes)
        label = index.classes.index(class_name)
        found = [(Path(index.names[i]).name, picture) for i, picture in _samples(index, label, room)]
        title = f"{class_name}: {len(found)} of {index.counts[label]:,} images"
    if not found:
        raise RunError(f"data set {index.name}: no image of {class_name or 'any class'} can be decoded; repair them")
    return _drawn([(shown(caption), picture) for caption, picture in found], shown(title), columns)


def _samples(index: ImageIndex, label: int, count: int) -> list[tuple[int, Image.Image]]:
    """Returns up to `count` images of a class and their numbers, drawn from the class's own stream."""
    from PIL import Image

    members = index.open_images[index.labels[index.open_images] == label]
    found: list[tuple[int, Image.Image]] = []
    for i in stream(0, f"samples/{index.classes[label]}").permutation(members).tolist():
        if len(found) == count:
            break
        try:
            found.append((i, Image.fromarray(index.read(i, 2 * CELL))))
        except (RunError, OSError):
            continue
    return found


def _drawn(cells: Sequence[tuple[str, Image.Image]], title: str, columns: int) -> bytes:
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    columns = min(columns, len(cells))
    step = CELL + GAP
    size = GAP + columns * step, TITLE + -(-len(cells) // columns) * (step + CAPTION)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(size=11), ImageFont.load_default(size=15)
    draw.text((GAP, 7), _fitting(draw, title, large, size[0] - 2 * GAP), fill="black", font=large)
    for k, (caption, picture) in enumerate(cells):
        left, top = GAP + k % columns * step, TITLE + k // columns * (step + CAPTION)
        resample = Image.Resampling.NEAREST if min(picture.size) < PIXELATED else Image.Resampling.BICUBIC
        fitted = ImageOps.contain(picture, (CELL, CELL), method=resample)
        sheet.paste(fitted, (left + (CELL - fitted.width) // 2, top + (CELL - fitted.height) // 2))
        text = _fitting(draw, caption, small, CELL)
        draw.text((left + CELL / 2, top + CELL + 2), text, fill="#333333", font=small, anchor="ma")
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=88, optimize=True)
    return out.getvalue()


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> str:
    """Returns as much of a text as fits, in pixels, with an ellipsis for the rest."""
    line = " ".join(text.split())
    if draw.textlength(line, font=font) <= width:
        return line
    while line and draw.textlength(f"{line}…", font=font) > width:
        line = line[:-1]
    return f"{line}…"


def overview_grid(index: ImageIndex) -> bytes:
    """Returns a JPEG with an image of each class, or of as many as there is room for; see `sample_grid`."""
    columns = min(SAMPLE_COLUMNS, math.ceil(math.sqrt(1.3 * index.num_classes)))
    return sample_grid(index, None, -(-min(index.num_classes, MOST_SAMPLES) // columns), columns)
