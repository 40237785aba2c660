"""Charts: one definition gives SVG, PNG, the data as CSV and what the HTML report embeds."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from bagoftricks.data.untrusted import csv_cell
from bagoftricks.reports.results import HEADINGS, Results

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

TRAINING, VALIDATION = "#2a78b8", "#d9661f"
PANEL_WIDTH, PANEL_HEIGHT, COLUMNS = 190, 130, 4
MOST_PANELS = 24
"""Cells above which the curves show the first and the best ones only."""
SHOWN_PANELS = 12
"""How many they show then."""
ROW_PX = {40: 22, 120: 15, 10_000_000: 11}
"""Height of a cell's row among the dots, by the number of cells up to which it holds."""
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
"""Of the width that the drawing was laid out with, on whatever machine it is looked at."""
ROLES = r' (?:role="graphics-[a-z]+"|aria-[a-z]+="[^"]*")'
TALL_PX = 4_000
"""Height above which a PNG is not enlarged."""


@dataclass(frozen=True)
class Chart:
    """A titled chart."""

    key: str
    """For file names."""
    title: str
    note: str
    chart: alt.TopLevelMixin
    alt: str = ""
    """What it shows, in a sentence, for those who do not see it."""

    @property
    def described(self) -> str:
        """Its text alternative: the title, and what it shows."""
        return f"{self.title}. {self.alt or self.note}"

    @cached_property
    def _spec(self) -> dict[str, Any]:
        import altair as alt

        with alt.data_transformers.disable_max_rows():
            spec: dict[str, Any] = self.chart.to_dict()
        # every mark would be announced by itself; the drawing as a whole has a text alternative
        spec["config"] = {**spec.get("config", {}), "aria": False, "font": FONT}
        return spec

    @cached_property
    def _drawing(self) -> str:
        import vl_convert

        return str(vl_convert.vegalite_to_svg(json.dumps(self._spec)))

    def svg(self) -> str:
        """Returns the drawing as SVG with its text alternative, without scripts, outside references, or ids of others.

        Ids start with the chart's key, so that several drawings can stand in one page.
        """
        # vega gives its groups roles even so; only those of tags, as a label may hold any text
        bare = re.sub(r"<[a-z][^>]*>", lambda tag: re.sub(ROLES, "", tag[0]), self._drawing)
        named = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.key}-", bare)
        opening, _, rest = named.partition(">")
        opening = opening.replace("<svg ", f'<svg role="img" aria-label="{escape(self.described)}" ', 1)
        # a reader that goes on inside would meet the axes' numbers one by one
        return f'{opening}><g aria-hidden="true">{rest.removesuffix("</svg>")}</g></svg>'

    def png(self) -> bytes:
        """Returns the drawing as PNG on white, at twice the screen's resolution unless it is very tall."""
        import vl_convert

        height = re.search(r'\bheight="([\d.]+)"', self._drawing)
        tall = height is not None and float(height[1]) > TALL_PX
        return bytes(vl_convert.svg_to_png(self._drawing, scale=1 if tall else 2))

    def rows(self) -> list[dict[str, Any]]:
        """Returns the data that are drawn: those of the widest layer, where layers differ."""
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for rows in self._spec.get("datasets", {}).values():
            if rows:
                groups.setdefault(tuple(rows[0]), []).extend(rows)
        return groups[max(groups, key=lambda names: (len(names), len(groups[names])))] if groups else []

    def to_csv(self) -> str:
        """Returns the data that are drawn; figures have six digits; see `csv_cell` for what looks like a formula."""
        out, rows = io.StringIO(), self.rows()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(map(csv_cell, rows[0]) if rows else ())
        writer.writerows([csv_cell(figure(value)) for value in row.values()] for row in rows)
        return out.getvalue()


def figure(value: Any) -> str:
    """Returns a value as text: floats with six significant digits, nothing for what is missing."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def finish(chart: Any) -> Any:
    """Gives a chart the report's looks."""
    return (
        chart.configure(background="white")
        .configure_view(stroke="#cccccc")
        .configure_axis(gridColor="#e6e6e6", labelFontSize=10, titleFontSize=11)
        .configure_header(labelFontSize=12, labelFontWeight="bold", title=None)
        .configure_legend(orient="top", title=None)
    )


def span(results: Results, measure: str) -> str:
    """Says in words between which means the cells lie, and which cell is best."""
    means = results.means(measure)
    if len(means) < 2:
        return "; ".join(f"{cell}: {mean:.3f}" for cell, mean in means.items())
    low, high = (choose(means, key=lambda cell: means[cell]) for choose in (min, max))
    best = low if measure == "loss" else high
    return f"means of {len(means)} cells from {means[low]:.3f} ({low}) to {means[high]:.3f} ({high}); best: {best}"


def panels(results: Results) -> list[str]:
    """Returns the cells whose curves are drawn: all, or where they are many the first and those with the best means."""
    means = results.means(results.metric)
    done = [cell for cell in results.cells if results.of_cell(cell)]
    if len(done) <= MOST_PANELS:
        return done
    best = sorted(means, key=lambda cell: -means[cell])[: SHOWN_PANELS - 1]
    return [cell for cell in done if cell in {done[0], *best}]


def curves_frame(results: Results, measure: str, cells: Sequence[str] | None = None) -> pd.DataFrame:
    """Returns a row for each cell, epoch and side, with the mean, min and max over seeds."""
    import pandas as pd

    rows = [
        (run.cell, int(row["epoch"]), side, row[f"{prefix}_{measure}"])
        for cell in (results.cells if cells is None else cells)
        for run in results.of_cell(cell)
        for row in run.history
        for side, prefix in (("training", "train"), ("validation", "eval"))
        if f"{prefix}_{measure}" in row
    ]
    frame = pd.DataFrame(rows, columns=["cell", "epoch", "side", "value"])
    return frame.groupby(["cell", "epoch", "side"], sort=False)["value"].agg(["mean", "min", "max"]).reset_index()


def curves(results: Results, measure: str, heading: str) -> Chart | None:
    """A panel for each cell: training and validation against the epoch, mean over seeds with their range.

    None where no run tells its epochs, as in a folder handed over without them.
    """
    import altair as alt

    cells = panels(results)
    frame = curves_frame(results, measure, cells)
    if frame.empty:
        return None
    last = int(frame["epoch"].max())
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=list(range(1, last + 1, -(-last // 10))), format="d"))
    scale = alt.Scale(domain=["training", "validation"], range=[TRAINING, VALIDATION])
    colour = alt.Color("side:N", scale=scale, legend=alt.Legend(symbolType="stroke", symbolOpacity=1))
    dash = alt.StrokeDash("side:N", scale=alt.Scale(domain=["training", "validation"], range=[[4, 2], [1, 0]]))
    y = alt.Y("mean:Q", title=heading, scale=alt.Scale(zero=False))
    base = alt.Chart(frame).encode(x=x, color=colour).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("min:Q", title=heading), y2="max:Q")
    line = base.mark_line(point={"size": 18} if last <= 20 else False).encode(y=y, strokeDash=dash)
    faceted = alt.layer(band, line).facet(facet=alt.Facet("cell:N", sort=cells), columns=min(COLUMNS, len(cells)))
    done = sum(1 for cell in results.cells if results.of_cell(cell))
    which = "every cell" if len(cells) == done else f"{len(cells)} of {done} cells, the first and the best"
    note = (
        f"{heading} against the epoch for {which}: mean over seeds, the band spans them. "
        "Training figures are running ones over augmented images, and over blended ones where mixup is on."
    )
    if any(len({len(run.history) for run in results.of_cell(cell)}) > 1 for cell in cells):
        note += " Some runs ended before others: beyond their end the mean is over those that went on."
    told = f"A panel for {which}, over {last} epochs. Validation after the last epoch: {span(results, measure)}."
    return Chart(f"curves-{measure}", f"{heading} during training", note, finish(faceted), told)


def dots(results: Results, measure: str, heading: str) -> Chart:
    """Every run as a dot in its cell's row, the mean as a bar."""
    import altair as alt
    import pandas as pd

    frame = pd.DataFrame(
        [
            {"cell": run.cell, "seed": run.seed, "value": run.result[measure]}
            for run in results.done
            if measure in run.result
        ]
    )
    found = set(frame["cell"])
    cells = [cell for cell in results.cells if cell in found]
    step = next(pixels for most, pixels in ROW_PX.items() if len(cells) <= most)
    many = len(frame) > 10 * len(cells)
    y = alt.Y("cell:N", sort=cells, title=None, axis=alt.Axis(labelLimit=320, labelOverlap=False))
    x = alt.X("value:Q", title=heading, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=8))
    size, opacity = (min(55, 3 * step), 0.35) if many else (min(55, 4 * step), 0.65)
    points = alt.Chart(frame).mark_circle(size=size, opacity=opacity, color=VALIDATION).encode(x=x, y=y)
    mean = alt.Chart(frame).mark_tick(thickness=2, size=step - 5, color="#666666").encode(x="mean(value):Q", y=y)
    chart = (points + mean).properties(width=560, height=alt.Step(step))
    note = f"Validation {heading} after the last epoch: a dot for every run, a bar at each cell's mean."
    told = f"{len(frame)} runs; {span(results, measure)}."
    return Chart(f"runs-{measure}", f"Every run: {heading}", note, finish(chart), told)


def all_dots(results: Results) -> list[Chart]:
    """Every run as a dot: the primary metric, and Top-1 where that is another."""
    return [dots(results, measure, HEADINGS[measure]) for measure in dict.fromkeys((results.metric, "top1"))]


def all_curves(results: Results) -> list[Chart]:
    """The curves: the primary metric first, then Top-1, Top-5 and the loss."""
    measures = dict.fromkeys((results.metric, "top1", "top5", "loss"))
    drawn = (curves(results, m, HEADINGS[m]) for m in measures if m in results.measures)
    return [chart for chart in drawn if chart]


def all_charts(results: Results) -> list[Chart]:
    """What the report shows of the runs themselves; nothing while no run is done."""
    return [*all_dots(results), *all_curves(results)] if results.done else []
