"""Charts of classes: confusion matrix, reliability diagram, accuracy of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bagoftricks.reports.charts import TRAINING, VALIDATION, Chart
from bagoftricks.studies.classwise import Bins, Floats, Ints, per_class, seriation

MOST_CLASSES, SHOWN_CLASSES = 150, 60
"""Above this many classes the matrix shows only so many, those with most confusions."""
NUMBERED_CLASSES = 30
"""Up to so many, cells bear their counts."""
RIGHT, WRONG = ["#dbe7f3", "#2a6ea6"], ["#ffe3cc", "#f28c38", "#b3261e", "#5c0f0f"]
"""Colours of the matrix: shares of right guesses, and of wrong ones."""
CHART_ROWS, ROW_PX, MOST_ROWS = 52, 13, 208
"""Of the classes' accuracy: classes in a column, height of one, and most classes, the weakest first."""


def confusion_chart(counts_KK: Ints, names: Sequence[str]) -> Chart:
    """A heat map, a row for each true class; above 150 classes, of the 60 with most confusions.

    Args:
        counts_KK: (K, K) images of the row's class that were taken for the column's.
        names: (K,) class names, all different.
    """
    import altair as alt
    import pandas as pd

    chosen = _most_confused(counts_KK)
    order = chosen[seriation(counts_KK[np.ix_(chosen, chosen)])]
    labels = [names[k] for k in order]
    support_K = np.maximum(1, counts_KK.sum(axis=1))
    rows = [
        (names[i], names[j], counts_KK[i, j] / support_K[i], int(counts_KK[i, j]))
        for i in order
        for j in order
        if counts_KK[i, j]
    ]
    frame = pd.DataFrame(rows, columns=["true", "guessed", "share", "images"])
    side, font = _sizes(len(labels))
    axis: dict[str, Any] = {
        "labelFontSize": font,
        "labelOverlap": False,
        "labelLimit": 180,
        "ticks": False,
        "domain": False,
        "tickBand": "extent",
    }
    x = alt.X(
        "guessed:N", sort=labels, title="taken for", scale=alt.Scale(domain=labels),
        axis=alt.Axis(**axis, labelAngle=-90, orient="top", grid=True),
    )  # fmt: skip
    y = alt.Y(
        "true:N", sort=labels, title="true class", scale=alt.Scale(domain=labels), axis=alt.Axis(**axis, grid=True)
    )

    def cells(part: pd.DataFrame, colours: list[str], scale: alt.Scale, title: str) -> Any:
        legend = alt.Legend(title=title, format=".0%", gradientLength=160, gradientThickness=10)
        colour = alt.Color("share:Q", scale=scale, legend=legend)
        return alt.Chart(part).mark_rect().encode(x=x, y=y, color=colour)

    diagonal = frame["true"] == frame["guessed"]
    # below a tenth nothing is dark: a model that errs rarely should not look as one that errs often
    worst = max(0.1, float(frame.loc[~diagonal, "share"].max())) if not diagonal.all() else 1.0
    right = cells(frame[diagonal], RIGHT, alt.Scale(domain=[0, 1], range=RIGHT), "guessed right")
    # shares of mistakes are mostly small: a square root tells 2 % from 5 %
    wrong = cells(
        frame[~diagonal], WRONG, alt.Scale(type="sqrt", domain=[0, worst], range=WRONG, interpolate="lab"),
        "taken for another class",
    )  # fmt: skip
    layers = [right, wrong]
    if len(labels) <= NUMBERED_CLASSES:
        frame["dark"] = frame["share"] > np.where(diagonal, 0.5, 0.3 * worst)
        ink = alt.when("datum.dark").then(alt.value("#ffffff")).otherwise(alt.value("#222222"))
        layers.append(alt.Chart(frame).mark_text(fontSize=10).encode(x=x, y=y, text="images:Q", color=ink))
    chart = (
        alt.layer(*layers)
        .resolve_scale(color="independent")
        .properties(width=side * len(labels), height=side * len(labels))
    )
    note = (
        "A row for each true class, a column for what it was taken for: the share of the row's images; blank where "
        "there is none. Classes that are taken for each other stand side by side."
    )
    if len(labels) <= NUMBERED_CLASSES:
        note += " Numbers are images, once for each seed that held them out."
    if len(labels) < len(names):
        note += f" The {len(labels)} classes with most confusions, of {len(names)}."
    return Chart("confusion", "Confusion matrix", note, _finish(chart))


def _most_confused(counts_KK: Ints) -> Ints:
    """Returns the classes to show, ascending: all, or those with most mistakes to and from them."""
    every: Ints = np.arange(len(counts_KK))
    if len(every) <= MOST_CLASSES:
        return every
    mistakes_K = counts_KK.sum(axis=0) + counts_KK.sum(axis=1) - 2 * np.diag(counts_KK)
    return np.sort(np.argsort(-mistakes_K, kind="stable")[:SHOWN_CLASSES])


def _sizes(classes: int) -> tuple[int, int]:
    """Returns pixels of a cell's side, and the labels' size."""
    side = int(np.clip(1000 / classes, 9, 32))
    return side, min(11, side)


def reliability_chart(before: Bins, after: Bins) -> Chart:
    """Accuracy against confidence, before and after temperature scaling, over the number of guesses."""
    import altair as alt
    import pandas as pd

    kinds = ("as trained", "after temperature scaling")
    frame = pd.DataFrame(
        [
            (kind, bins.low[b], bins.high[b], bins.confidence[b], bins.accuracy[b], int(bins.count[b]))
            for kind, bins in zip(kinds, (before, after), strict=True)
            for b in range(len(bins.count))
            if bins.count[b]
        ],
        columns=["kind", "low", "high", "confidence", "accuracy", "images"],
    )
    frame["share"] = frame["images"] / int(before.count.sum())
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=kinds, range=[VALIDATION, TRAINING]),
        legend=alt.Legend(orient="top", title=None, symbolOpacity=1),
    )  # fmt: skip
    shares = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X("confidence:Q", title=None, scale=shares, axis=alt.Axis(format="%", tickCount=5))
    y = alt.Y("accuracy:Q", title="right guesses", scale=shares, axis=alt.Axis(format="%", tickCount=5))
    ideal = pd.DataFrame({"confidence": [0.0, 1.0], "accuracy": [0.0, 1.0]})
    base = alt.Chart(frame).encode(x=x, y=y, color=colour)
    curve = alt.layer(
        alt.Chart(ideal).mark_line(color="#999999", strokeDash=[4, 4], strokeWidth=1).encode(x=x, y=y),
        base.mark_line(strokeWidth=2),
        base.mark_circle(opacity=0.9).encode(size=alt.Size("images:Q", scale=alt.Scale(range=[20, 220]), legend=None)),
    ).properties(width=340, height=340)
    counts = (
        alt.Chart(frame)
        .mark_bar(opacity=0.45, binSpacing=1)
        .encode(
            x=alt.X("low:Q", title="confidence", scale=shares, axis=alt.Axis(format="%", tickCount=5), bin="binned"),
            x2="high:Q",
            y=alt.Y("share:Q", title="guesses", stack=None, axis=alt.Axis(format="%", tickCount=3)),
            color=colour,
        )
        .properties(width=340, height=80)
    )
    note = (
        f"Guesses in {len(before.count)} bins of equal width by the probability that the model gives them, against the "
        "share of them that is right; below, how many guesses each bin holds. On the dashed line a model's "
        "probabilities can be taken at their word; below it the model is too sure of itself."
    )
    return Chart("reliability", "Reliability diagram", note, _finish(alt.vconcat(curve, counts, spacing=8)))


def accuracy_chart(counts_KK: Ints, recall_SK: Floats, names: Sequence[str]) -> Chart:
    """The share of each class's images that is guessed right, weakest class first.

    Args:
        counts_KK: (K, K) confusions of all seeds.
        recall_SK: (S, K) of each seed, NaN for a class without images.
        names: (K,) class names, all different.
    """
    import altair as alt
    import pandas as pd

    figures = per_class(counts_KK)
    order = [k for k in np.argsort(figures.recall, kind="stable") if figures.support[k]][:MOST_ROWS]
    frame = pd.DataFrame(
        [
            (names[k], figures.recall[k], float(np.nanmin(recall_SK[:, k])), float(np.nanmax(recall_SK[:, k])))
            for k in order
        ],
        columns=["class", "accuracy", "low", "high"],
    )
    columns = -(-len(frame) // CHART_ROWS)
    each = -(-len(frame) // columns)
    x = alt.X(
        "low:Q", title="accuracy", scale=alt.Scale(domain=[0, 1], nice=False), axis=alt.Axis(format="%", tickCount=5)
    )
    panels = []
    for start in range(0, len(frame), each):
        base = alt.Chart(frame.iloc[start : start + each])
        y = alt.Y("class:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, labelOverlap=False, grid=True))
        spread = base.mark_rule(strokeWidth=2.5, opacity=0.35, color=TRAINING).encode(x=x, x2="high:Q", y=y)
        dots = base.mark_circle(size=42, opacity=1, color=TRAINING).encode(x="accuracy:Q", y=y)
        panels.append(alt.layer(spread, dots).properties(width=max(130, 480 // columns - 40), height=alt.Step(ROW_PX)))
    note = "The share of each class's validation images that is guessed right (recall), weakest class first"
    note += "; a bar spans the seeds." if len(recall_SK) > 1 else "; one seed."
    if len(frame) < len(names):
        note += f" {len(frame)} of {len(names)} classes."
    return Chart("class-accuracy", "Accuracy of each class", note, _finish(alt.hconcat(*panels)))


def _finish(chart: Any) -> Any:
    return (
        chart.configure(background="white", font="system-ui, sans-serif")
        .configure_view(stroke="#cccccc")
        .configure_axis(gridColor="#eeeeee", labelFontSize=10, titleFontSize=11)
        .configure_legend(orient="top", labelFontSize=10, titleFontSize=10, direction="horizontal")
    )
