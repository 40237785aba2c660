"""What a data check shows: tables for the terminal, a grid of sample images, a chart of class balance, its files."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bagoftricks.data.check import DataCheck, shown
from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import RunError, unknown
from bagoftricks.files import replacing, write_json, write_text
from bagoftricks.reports.charts import TRAINING, Chart
from bagoftricks.rng import stream

if TYPE_CHECKING:
    from PIL import Image, ImageDraw
    from rich.table import Table

CELL, GAP, CAPTION, TITLE = 120, 6, 18, 30
"""Pixels: side of a sample, space around it, heights of its caption and of the grid's title."""
GRID = (5, 8)
"""Rows and columns of the grid of one class."""
MOST_SAMPLES, SAMPLE_COLUMNS = 144, 12
"""Classes in the grid of one image each, and its most columns."""
PIXELATED = 32
"""Pixels of the short side below which samples are enlarged without smoothing."""
ROW_PX, CHART_ROWS, MOST_BARS = 13, 52, 208
"""Of the chart: height of a class's bar, classes in a column, and classes above which it shows their profile only."""
ENDS = 8
"""Largest and smallest classes in the table."""
LISTED = 10
"""Copies, and broken images, in the table."""


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


def balance_chart(check: DataCheck) -> Chart:
    """The images of each class, largest first; above 208 classes their profile alone, without names."""
    import altair as alt
    import pandas as pd

    counts = sorted(check.counts.items(), key=lambda item: (-item[1], item[0]))
    frame = pd.DataFrame(counts, columns=["class", "images"])
    frame["rank"] = np.arange(1, len(frame) + 1)
    if len(frame) > MOST_BARS:
        x = alt.X("rank:Q", title="class, by rank", scale=alt.Scale(domain=[1, len(frame)], nice=False))
        chart = (
            alt.Chart(frame)
            .mark_area(interpolate="step", color=TRAINING)
            .encode(x=x, y=alt.Y("images:Q", title="images"))
        )
        whole: Any = chart.properties(width=640, height=240)
    else:
        columns = -(-len(frame) // CHART_ROWS)
        each = -(-len(frame) // columns)
        x = alt.X(
            "images:Q", title="images", scale=alt.Scale(domain=[0, int(frame["images"].max()) * 1.12], nice=False)
        )
        panels = []
        for start in range(0, len(frame), each):
            base = alt.Chart(frame.iloc[start : start + each])
            y = alt.Y("class:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, labelOverlap=False))
            bars = base.mark_bar(color=TRAINING).encode(x=x, y=y)
            numbers = base.mark_text(align="left", dx=3, fontSize=9, color="#444444").encode(x=x, y=y, text="images:Q")
            panels.append((bars + numbers).properties(width=max(150, 420 // columns), height=alt.Step(ROW_PX)))
        whole = alt.hconcat(*panels)
    finished = (
        whole.configure(background="white", font="system-ui, sans-serif")
        .configure_view(stroke="#cccccc")
        .configure_axis(gridColor="#e6e6e6", labelFontSize=10, titleFontSize=11)
    )
    note = f"Images of each of the {len(frame)} classes of {check.name}, largest first; a given test set apart."
    return Chart("balance", "Class balance", note, finished)


def tables(check: DataCheck) -> list[Table]:
    """Returns what the terminal shows below the findings; what is empty is left out."""
    copies, sizes = check.copies, check.sizes
    found = [_table("Images", ("", "Images"), [(k, f"{v:,}") for k, v in _overview(check).items()])]
    if check.broken:
        rows = [(one.name, one.reason) for one in check.broken[:LISTED]]
        found.append(_table(_titled("Images that cannot be decoded", len(rows), check.undecodable), ("", "Why"), rows))
    if total := sum(copies.pairs.values()):
        rows3 = [(kind, f"{n:,}", f"{copies.across_classes[kind]:,}") for kind, n in copies.pairs.items()]
        found.append(_table("Pairs of copies", ("Kind", "Pairs", "Across classes"), rows3))
        listed = [(one.kind, *one.names) for one in copies.listed[:LISTED]]
        found.append(_table(_titled("Copies", len(listed), total), ("Kind", "Image", "Copy"), listed))
    if len(copies.shared):
        rows2 = [(" and ".join(one.classes), f"{one.pairs:,}") for one in copies.shared[:LISTED]]
        found.append(_table("Classes that share images", ("Classes", "Pairs"), rows2))
    found.append(_table(*_balance(check)))
    if sizes:
        spread = [(name, *(f"{v:,.0f}" for v in getattr(sizes, name.lower()))) for name in ("Width", "Height")]
        found.append(_table("Sizes in pixels", ("", "Least", "Median", "Most"), spread))
    return found


def _overview(check: DataCheck) -> dict[str, int]:
    sides = {} if set(check.sides) == {"pool"} else {f"in {side}": count for side, count in check.sides.items()}
    modes = {f"of mode {mode}": count for mode, count in check.colours.modes.items()}
    small = {"short side below 64 pixels": check.sizes.small} if check.sizes else {}
    return {"all": check.images, **sides, "cannot be decoded": check.undecodable,
            "with a copy": check.copies.images, **small, **modes, "without colour": check.colours.grey}  # fmt: skip


def _balance(check: DataCheck) -> tuple[str, tuple[str, str], list[tuple[str, str]]]:
    counts = sorted(check.counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, f"{count:,}") for name, count in counts]
    if len(rows) > 2 * ENDS + 1:
        rows = [*rows[:ENDS], (f"… {len(rows) - 2 * ENDS} more", ""), *rows[-ENDS:]]
    return f"Classes ({len(counts)})", ("Class", "Images"), rows


def _titled(title: str, listed: int, total: int) -> str:
    return title if listed == total else f"{title} ({listed} of {total:,})"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        number = i > 0 and all(row[i].replace(",", "").isdigit() or not row[i] for row in rows)
        table.add_column(Text(column), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def write_check(check: DataCheck, index: ImageIndex, folder: Path, grids: Sequence[str] = ()) -> list[Path]:
    """Writes check.json, samples.jpg, balance.svg and a samples-CLASS.jpg for each of `grids`; returns their paths.

    Args:
        check: what was found.
        index: the data set, whose images are shown.
        folder: created.
        grids: classes to show more of.

    Raises:
        UserError: for an unknown class; nothing is written.
        RunError: if no image of a class can be decoded.
    """
    pictures = {_file_name(index, name): sample_grid(index, name) for name in grids}
    columns = min(SAMPLE_COLUMNS, math.ceil(math.sqrt(1.3 * index.num_classes)))
    if check.undecodable < check.images:
        rows = -(-min(index.num_classes, MOST_SAMPLES) // columns)
        pictures["samples.jpg"] = sample_grid(index, None, rows, columns)
    write_json(folder / "check.json", check.to_dict())
    write_text(folder / "balance.svg", balance_chart(check).svg())
    for name, picture in pictures.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(picture)
    return [folder / name for name in ("check.json", "balance.svg", *sorted(pictures))]


def _file_name(index: ImageIndex, class_name: str) -> str:
    """A name for a class's grid that any file system takes; where it had to be changed, the label keeps it apart."""
    plain = re.sub(r"[^\w.-]+", "_", shown(class_name))
    if plain != class_name and class_name in index.classes:
        plain += f"-{index.classes.index(class_name)}"
    return f"samples-{plain}.jpg"
