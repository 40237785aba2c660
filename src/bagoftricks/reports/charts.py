"""Charts: one definition gives SVG, PNG and what the HTML report embeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bagoftricks.reports.results import HEADINGS, Results

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

TRAINING, VALIDATION = "#2a78b8", "#d9661f"
PANEL_WIDTH, PANEL_HEIGHT, COLUMNS = 190, 130, 4


@dataclass(frozen=True)
class Chart:
    """A titled chart."""

    key: str
    """For file names."""
    title: str
    note: str
    chart: alt.TopLevelMixin

    def _spec(self) -> str:
        import altair as alt

        with alt.data_transformers.disable_max_rows():
            return str(self.chart.to_json())

    def svg(self) -> str:
        """Returns the drawing as SVG, without scripts or outside references."""
        import vl_convert

        return str(vl_convert.vegalite_to_svg(self._spec()))

    def png(self) -> bytes:
        """Returns the drawing as PNG on white, at twice the screen's resolution."""
        import vl_convert

        return bytes(vl_convert.vegalite_to_png(self._spec(), scale=2))


def curves_frame(results: Results, measure: str) -> pd.DataFrame:
    """Returns a row for each cell, epoch and side, with the mean, min and max over seeds."""
    import pandas as pd

    rows = [
        (run.cell, int(row["epoch"]), side, row[f"{prefix}_{measure}"])
        for run in results.done
        for row in run.history
        for side, prefix in (("training", "train"), ("validation", "eval"))
    ]
    frame = pd.DataFrame(rows, columns=["cell", "epoch", "side", "value"])
    return frame.groupby(["cell", "epoch", "side"], sort=False)["value"].agg(["mean", "min", "max"]).reset_index()


def _finish(chart: Any) -> Any:
    return (
        chart.configure(background="white", font="system-ui, sans-serif")
        .configure_view(stroke="#cccccc")
        .configure_axis(gridColor="#e6e6e6", labelFontSize=10, titleFontSize=11)
        .configure_header(labelFontSize=12, labelFontWeight="bold", title=None)
        .configure_legend(orient="top", title=None)
    )


def curves(results: Results, measure: str, heading: str) -> Chart:
    """A panel for each cell: training and validation against the epoch, mean over seeds with their range."""
    import altair as alt

    frame = curves_frame(results, measure)
    last = int(frame["epoch"].max())
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=list(range(1, last + 1, -(-last // 10))), format="d"))
    scale = alt.Scale(domain=["training", "validation"], range=[TRAINING, VALIDATION])
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=3)
    y = alt.Y("mean:Q", title=heading, scale=alt.Scale(zero=False))
    base = alt.Chart(frame).encode(x=x, color=alt.Color("side:N", scale=scale, legend=legend))
    base = base.properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("min:Q", title=heading), y2="max:Q")
    line = base.mark_line(point={"size": 18}).encode(y=y)
    cells = [cell for cell in results.cells if cell in set(frame["cell"])]
    faceted = alt.layer(band, line).facet(
        facet=alt.Facet("cell:N", sort=cells), columns=min(COLUMNS, len(cells))
    )  # fmt: skip
    note = (
        f"{heading} against the epoch for every cell: mean over seeds, the band spans them. "
        "Training figures are running ones over augmented images, and over blended ones where mixup is on."
    )
    return Chart(f"curves-{measure}", f"{heading} during training", note, _finish(faceted))


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
    cells = [cell for cell in results.cells if cell in set(frame["cell"])]
    y = alt.Y("cell:N", sort=cells, title=None)
    x = alt.X("value:Q", title=heading, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=8))
    points = alt.Chart(frame).mark_circle(size=55, opacity=0.65, color=VALIDATION).encode(x=x, y=y)
    mean = alt.Chart(frame).mark_tick(thickness=2, size=16, color="#666666").encode(x="mean(value):Q", y=y)
    chart = (points + mean).properties(width=560, height=alt.Step(22))
    note = f"Validation {heading} after the last epoch: a dot for every run, a bar at each cell's mean."
    return Chart(f"runs-{measure}", f"Every run: {heading}", note, _finish(chart))


def all_charts(results: Results) -> list[Chart]:
    """What the report shows; nothing while no run is done."""
    if not results.done:
        return []
    first = dict.fromkeys((results.metric, "top1"))
    charts = [dots(results, measure, HEADINGS[measure]) for measure in first]
    charts += [curves(results, measure, HEADINGS[measure]) for measure in first]
    if "top5" in results.measures:
        charts.append(curves(results, "top5", "Top-5"))
    return [*charts, curves(results, "loss", "Loss")]
