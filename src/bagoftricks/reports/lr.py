"""The learning-rate finder's drawing: loss against rate, with what is suggested."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bagoftricks.files import replacing, storage_errors
from bagoftricks.reports.charts import TRAINING, VALIDATION, Chart, finish

if TYPE_CHECKING:
    from bagoftricks.training.lr_find import LrCurve

TALLEST = 1.15
"""Height of the drawing over the loss at the start: what breaks is cut off."""


def lr_chart(curve: LrCurve, used: float) -> Chart:
    """Returns the drawing: each step's loss as a dot, the smoothed loss as a line, rates as rules.

    Args:
        curve: what was found.
        used: the recipe's rate, drawn beside.
    """
    import altair as alt
    import pandas as pd

    frame = pd.DataFrame({"rate": curve.lrs, "loss": curve.losses, "smoothed": curve.smoothed})
    low, high = min(curve.losses), TALLEST * max(curve.smoothed[0], curve.losses[0])
    span = high - low
    x = alt.X("rate:Q", title="learning rate", scale=alt.Scale(type="log"), axis=alt.Axis(format="~e", tickCount=7))
    y = alt.Y("loss:Q", title="training loss", scale=alt.Scale(domain=[low - 0.05 * span, high], clamp=False))
    dots = alt.Chart(frame).mark_circle(size=18, color=TRAINING, opacity=0.35, clip=True).encode(x=x, y=y)
    line = alt.Chart(frame).mark_line(color=TRAINING, clip=True).encode(x=x, y=alt.Y("smoothed:Q"))
    marks = [(curve.suggestion, f"suggested: {curve.suggestion:.2g}", VALIDATION)]
    if min(curve.lrs) <= used <= max(curve.lrs):
        marks.append((used, f"recipe: {used:.2g}", "#777777"))
    layers = [dots, line]
    for place, (rate, text, colour) in enumerate(marks):
        at = pd.DataFrame([{"rate": rate, "text": text, "height": high - (0.02 + 0.07 * place) * span}])
        layers.append(alt.Chart(at).mark_rule(color=colour, strokeDash=[4, 3]).encode(x=x))
        left = len(marks) > 1 and rate == min(mark[0] for mark in marks)  # away from the other rule
        named = alt.Chart(at).mark_text(
            align="right" if left else "left", dx=-5 if left else 5, color=colour, baseline="top"
        )
        layers.append(named.encode(x=x, y=alt.Y("height:Q"), text="text:N"))
    ended = f"the loss broke at {curve.lrs[-1]:.2g}" if curve.broke else "the loss did not break"
    told = f"the loss falls from {curve.smoothed[0]:.2f} to {min(curve.smoothed):.2f}; {ended}"
    note = "Each dot is a step, with a higher rate than the one before; the line averages around each."
    chart = alt.layer(*layers).properties(width=460, height=260)
    return Chart(
        "lr-find", "Loss against learning rate", note, finish(chart), f"{told}; suggested: {curve.suggestion:.2g}"
    )


def write_lr(curve: LrCurve, folder: Path, used: float) -> list[Path]:
    """Writes lr-find.svg, .png and .csv into a folder, and returns their paths.

    Raises:
        StorageError: if they cannot be written.
    """
    chart = lr_chart(curve, used)
    table = "lr,loss,smoothed\n" + "".join(
        f"{lr:.6g},{loss:.6g},{smoothed:.6g}\n"
        for lr, loss, smoothed in zip(curve.lrs, curve.losses, curve.smoothed, strict=True)
    )
    contents = {"svg": chart.svg().encode(), "png": chart.png(), "csv": table.encode()}
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, content in contents.items():
            with replacing(folder / f"lr-find.{suffix}") as temporary:
                temporary.write_bytes(content)
    return [folder / f"lr-find.{suffix}" for suffix in contents]
