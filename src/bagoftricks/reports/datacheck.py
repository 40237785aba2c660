"""What a data check shows: tables for the terminal, a chart of class balance, its files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bagoftricks.data.check import DataCheck, shown
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.samples import overview_grid, sample_grid
from bagoftricks.files import replacing, write_json, write_text
from bagoftricks.reports.charts import TRAINING, Chart

if TYPE_CHECKING:
    from rich.table import Table

ROW_PX, CHART_ROWS, MOST_BARS = 13, 52, 208
"""Of the chart: height of a class's bar, classes in a column, and classes above which it shows their profile only."""
ENDS = 8
"""Largest and smallest classes in the table."""
LISTED = 10
"""Copies, and broken images, in the table."""
MOST_NAME = 200
"""Bytes of a class's name in the name of its grid: file systems take 255 for the whole."""


def balance_chart(name: str, sizes: Mapping[str, int]) -> Chart:
    """The images of each class, largest first; above 208 classes their profile alone, without names."""
    import altair as alt
    import pandas as pd

    counts = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
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
    note = f"Images of each of the {len(frame)} classes of {name}, largest first; a given test set apart."
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
    if check.undecodable < check.images:
        pictures["samples.jpg"] = overview_grid(index)
    write_json(folder / "check.json", check.to_dict())
    write_text(folder / "balance.svg", balance_chart(check.name, check.counts).svg())
    for name, picture in pictures.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(picture)
    return [folder / name for name in ("check.json", "balance.svg", *sorted(pictures))]


def _file_name(index: ImageIndex, class_name: str) -> str:
    """A name for a class's grid that any file system takes; where it had to be changed, the label keeps it apart."""
    plain = re.sub(r"[^\w.-]+", "_", shown(class_name))
    while len(plain.encode()) > MOST_NAME:
        plain = plain[:-1]
    if plain != class_name and class_name in index.classes:
        plain += f"-{index.classes.index(class_name)}"
    return f"samples-{plain}.jpg"
