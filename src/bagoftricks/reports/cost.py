"""What each cell costs, and what each trick gains for it: time from the runs' own records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from bagoftricks.reports.charts import Chart, finish
from bagoftricks.reports.interactions import corners
from bagoftricks.reports.results import Results, RunRow
from bagoftricks.reports.tables import Entry, Table, plain_entry
from bagoftricks.studies.effects import Analysis, Effect
from bagoftricks.studies.verdicts import plain

MOST_DRAWN = 12
"""Effects in the chart, the largest first."""
COLOURS = ("#2a78b8", "#d9661f", "#1a7f37", "#8a4fbf", "#b3261e", "#8a8f98")
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")


@dataclass(frozen=True)
class Gain:
    """What one effect gains and costs."""

    name: str
    points: float
    low: float | None
    high: float | None
    """Its interval; None where there are too few seeds."""
    time: float
    """Training time with the level over that with its reference: the geometric mean over seeds and pairs of cells."""
    time_low: float
    time_high: float
    """The least and the greatest over seeds."""


def speed(run: RunRow) -> float | None:
    """Returns the training images per second of a run, the median over its epochs; None where none are recorded."""
    rates = [row["images_per_s"] for row in run.history if row.get("images_per_s", 0) > 0]
    return median(rates) if rates else None


def training_time(run: RunRow) -> float | None:
    """Returns seconds of training for each image of the training set, over its epochs; None where no speed is recorded.

    Epochs differ in speed where they differ in what is trained, or in the size of the images.
    """
    rates = [row.get("images_per_s", 0) for row in run.history]
    return sum(1 / rate for rate in rates) if rates and min(rates) > 0 else None


def cost_table(results: Results) -> Table:
    """Time, speed and length of each cell's runs."""
    rows = []
    for cell in results.cells:
        if not (runs := results.of_cell(cell)):
            continue
        seconds = [float(run.result["seconds"]) for run in runs]
        rates = [rate for run in runs if (rate := speed(run))]
        epochs = sorted({len(run.history) for run in runs})
        rows.append(
            (
                plain_entry(cell),
                _spread(seconds, ".1f"),
                _spread(rates, ".1f"),
                plain_entry(" or ".join(map(str, epochs))),
                Entry(f"{sum(seconds) / 3600:.2f}", {"": f"{sum(seconds) / 3600:.4f}"}),
                plain_entry(str(len(runs))),
            )
        )
    hardware = results.plan["hardware"]
    threads = f"{hardware['threads']} thread{'s' if hardware['threads'] != 1 else ''} a run"
    note = (
        f"Mean ± standard deviation over runs, on {hardware['device']} in {hardware['precision']}, {threads}. Seconds "
        "are of the whole run; images per second of training alone, the median over epochs. What else ran on the "
        "machine counts in."
    )
    columns = ("Cell", "Seconds a run", "Images per s", "Epochs", "Hours in all", "Runs")
    return Table("cost", "Cost of each cell", note, columns, tuple(rows))


def _spread(values: Sequence[float], form: str) -> Entry:
    if not values:
        return Entry("–", {"mean": "", "sd": "", "n": "0"})
    mean, sd = fmean(values), stdev(values) if len(values) > 1 else None
    text = f"{mean:{form}}" + ("" if sd is None else f" ± {sd:{form}}")
    return Entry(text, {"mean": f"{mean:.4f}", "sd": "" if sd is None else f"{sd:.4f}", "n": str(len(values))})


def gains(results: Results, analysis: Analysis) -> list[Gain]:
    """Returns gain and cost of every main, simple and successive effect whose runs recorded their speed."""
    times = {(run.cell, str(run.seed)): time for run in results.done if (time := training_time(run))}
    found = []
    for effect in analysis.effects:
        if effect.kind not in ("main", "simple", "successive") or effect.estimate is None:
            continue
        level, reference = effect.levels[0]
        pairs = [(group[(level,)], group[(reference,)]) for group in corners(results, effect)]
        by_seed = [
            fmean(logs)
            for seed in effect.blocks
            if (logs := [
                math.log(times[a, seed] / times[b, seed]) for a, b in pairs if {(a, seed), (b, seed)} <= times.keys()
            ])
        ]  # fmt: skip
        if by_seed:
            ratios = (math.exp(fmean(by_seed)), math.exp(min(by_seed)), math.exp(max(by_seed)))
            found.append(Gain(effect_name(effect), effect.estimate, effect.low, effect.high, *ratios))
    return found


def effect_name(effect: Effect) -> str:
    """Returns a short name: the factor, its level and the reference."""
    level, reference = effect.levels[0]
    if effect.kind == "successive":
        return f"{reference} → {level}"
    held = ", simple" if effect.kind == "simple" else ""
    return f"{plain(effect.factors[0])}: {level} (against {reference}{held})"


def gain_chart(results: Results, analysis: Analysis) -> Chart | None:
    """Gain in points against relative training time, a point for each effect; None where no run recorded its speed."""
    import altair as alt
    import pandas as pd

    found = gains(results, analysis)
    if not found:
        return None
    drawn = sorted(found, key=lambda gain: -abs(gain.points))[:MOST_DRAWN]
    frame = pd.DataFrame([vars(gain) for gain in drawn]).rename(columns={"name": "effect"})
    names = list(frame["effect"])
    edge = max(0.05, *(abs(math.log(v)) for g in drawn for v in (g.time_low, g.time_high)))
    scale = alt.Scale(type="log", base=2, domain=[math.exp(-1.15 * edge), math.exp(1.15 * edge)], nice=False)
    axis = alt.Axis(format=".2f", tickCount=7)
    x = alt.X("time:Q", title="training time against the reference (ratio)", scale=scale, axis=axis)
    y = alt.Y("points:Q", title="gain in percentage points")
    legend = alt.Legend(orient="right", title=None, labelLimit=330, symbolSize=90, rowPadding=5)
    cycle = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    # a shape and a colour of its own for each: neighbours differ in both
    looks = [cycle[(i * (len(COLOURS) + 1)) % len(cycle)] for i in range(len(names))]
    colour = alt.Color("effect:N", legend=legend, scale=alt.Scale(domain=names, range=[c for _, c in looks]))
    shape = alt.Shape("effect:N", legend=legend, scale=alt.Scale(domain=names, range=[s for s, _ in looks]))
    base = alt.Chart(frame)
    same = alt.Chart(pd.DataFrame([{"at": 1.0}])).mark_rule(color="#777777").encode(x=alt.X("at:Q", title=""))
    zero = alt.Chart(pd.DataFrame([{"at": 0.0}])).mark_rule(color="#777777").encode(y=alt.Y("at:Q", title=""))
    whiskers = base.mark_rule(strokeWidth=1.5, opacity=0.7)
    chart = alt.layer(
        zero,
        same,
        whiskers.encode(x=x, y=alt.Y("low:Q", title=""), y2="high:Q", color=colour),
        whiskers.encode(x=alt.X("time_low:Q", title=""), x2="time_high:Q", y=y, color=colour),
        base.mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
    ).properties(width=400, height=300)
    which = "" if len(drawn) == len(found) else f" The {len(drawn)} largest of {len(found)} effects."
    note = (
        "Effect on the primary metric, with its 95 % interval, against how much longer training takes than with the "
        "reference (1: as long; the horizontal bar spans the seeds). Upper left is better for less; what is right of 1 "
        f"and not above 0 costs and does not gain.{which}"
    )
    told = "; ".join(f"{g.name}: {g.points:+.2f} points at {g.time:.2f} times the time" for g in drawn)
    return Chart("gain-cost", "Gain against cost", note, finish(chart).configure_legend(orient="right"), f"{told}.")
