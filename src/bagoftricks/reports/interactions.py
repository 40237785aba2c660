"""Interaction plots: what one factor does at each level of another, from the same cells and seeds as the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from statistics import fmean
from typing import Any

from bagoftricks.reports.charts import VALIDATION, Chart, finish
from bagoftricks.reports.results import HEADINGS, Results
from bagoftricks.studies.effects import Analysis, Effect
from bagoftricks.studies.verdicts import plain, tag

MOST_DRAWN, BESIDE = 12, 3
"""Interactions drawn, the largest first, and panels in a row."""
WIDTH, HEIGHT = 200, 170
REFERENCE = "#5a6270"

Corner = tuple[str, ...]
"""A level, or for an interaction two."""


def corners(results: Results, effect: Effect) -> list[Mapping[Corner, str]]:
    """Returns the cells that an effect compares: for each combination of the other factors, the cell of each corner.

    A main or simple effect has two corners, an interaction four. They are the cells that its average runs over.
    """
    if effect.kind == "successive":
        pair: dict[Corner, str] = {(level,): level for level in effect.levels[0]}
        return [pair] if all(map(results.of_cell, pair.values())) else []
    groups: dict[tuple[str, ...], dict[Corner, str]] = {}
    varied = [name for name, levels in results.plan["study"]["factors"].items() if len(levels) > 1]
    averaged = set(effect.cells)
    for cell, levels in results.levels.items():
        if tuple(levels[name] for name in varied) in averaged:
            others = tuple(level for name, level in levels.items() if name not in effect.factors)
            groups.setdefault(others, {})[tuple(levels[factor] for factor in effect.factors)] = cell
    return list(groups.values())


def interactions_drawn(analysis: Analysis) -> list[Effect]:
    """Returns the declared two-way interactions that have an estimate, the largest first, twelve at most."""
    found = [e for e in analysis.effects if e.kind == "interaction" and e.declared and e.estimate is not None]
    return sorted(found, key=lambda effect: -abs(effect.estimate or 0.0))[:MOST_DRAWN]


def interaction_rows(results: Results, effect: Effect) -> list[dict[str, Any]]:
    """Returns a row for each corner and seed: the mean of the primary metric, in points, over the other factors."""
    value = {
        (run.cell, str(run.seed)): 100 * float(run.result[results.metric])
        for run in results.done
        if results.metric in run.result  # older runs lack some metrics
    }
    groups = corners(results, effect)
    title = _title(effect)
    return [
        {
            "interaction": title,
            "first": corner[0],
            "second": corner[1],
            "seed": seed,
            "points": fmean(value[group[corner], seed] for group in groups if (group[corner], seed) in value),
        }
        for corner in (product(*(reversed(pair) for pair in effect.levels)) if groups else ())
        for seed in effect.blocks
    ]


def interaction_chart(results: Results, analysis: Analysis) -> Chart | None:
    """A panel for each interaction: a line for each level of the second factor, a dot for each seed."""
    import altair as alt

    effects = interactions_drawn(analysis)
    drawn = [(effect, rows) for effect in effects if (rows := interaction_rows(results, effect))]
    if not drawn:
        return None
    heading = f"{HEADINGS[results.metric]}, percentage points"
    panels = [_panel(effect, rows, heading) for effect, rows in drawn]
    own: Any = {"color": "independent", "shape": "independent"}
    lines = [alt.hconcat(*panels[i : i + BESIDE], spacing=76, bounds="flush") for i in range(0, len(panels), BESIDE)]
    chart = alt.vconcat(*(line.resolve_scale(**own) for line in lines), spacing=30).resolve_scale(**own)
    declared = sum(effect.kind == "interaction" and effect.declared for effect in analysis.effects)
    which = "" if len(drawn) == declared else f" The {len(drawn)} largest of {declared}."
    note = (
        f"Mean {HEADINGS[results.metric]} at the levels of two factors, over all cells with the other factors alike: "
        f"lines join means, dots are seeds. Parallel lines: the two do not change each other's effect.{which}"
    )
    told = "; ".join(f"{_title(effect)}: {_number(effect.estimate)} points" for effect, _ in drawn)
    return Chart("interactions", "Interactions", note, finish(chart), f"How much more the two do together. {told}.")


def _title(effect: Effect) -> str:
    return " × ".join(f"{plain(factor)} {on}" for factor, (on, _) in zip(effect.factors, effect.levels, strict=True))


def _number(value: float | None) -> str:
    text = f"{value or 0.0:+.2f}"
    return "0.00" if float(text) == 0 else text


def _panel(effect: Effect, rows: list[dict[str, Any]], heading: str) -> Any:
    import altair as alt
    import pandas as pd

    (level, reference), (on, off) = effect.levels
    first, second = map(plain, effect.factors)
    upright, inset = alt.Axis(labelAngle=0), alt.Scale(padding=0.4)
    x = alt.X("first:N", sort=[reference, level], title=first, axis=upright, scale=inset)
    y = alt.Y("points:Q", title=heading, scale=alt.Scale(zero=False))
    mean = alt.Y("mean(points):Q", title=heading, scale=alt.Scale(zero=False))
    legend = alt.Legend(orient="bottom", title=second, direction="horizontal", titleOrient="left", titleFontSize=11,
                        titlePadding=10)  # fmt: skip
    colour = alt.Color("second:N", sort=[off, on], legend=legend,
                       scale=alt.Scale(domain=[off, on], range=[REFERENCE, VALIDATION]))  # fmt: skip
    shape = alt.Shape("second:N", scale=alt.Scale(domain=[off, on], range=["circle", "triangle-up"]), legend=legend)
    base = alt.Chart(pd.DataFrame(rows)).encode(x=x, color=colour)
    many = len(effect.blocks) > 10
    dots = base.mark_point(size=22, opacity=0.3 if many else 0.55).encode(y=y, shape=shape)
    lines = base.mark_line(strokeWidth=2.5).encode(y=mean)
    means = base.mark_point(size=70, filled=True, opacity=1).encode(y=mean, shape=shape)
    low, high = effect.low, effect.high
    interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    title = alt.TitleParams(
        _title(effect),
        subtitle=f"{_number(effect.estimate)} points{interval}, {tag(effect)}",
        fontSize=12, subtitleFontSize=10.5, subtitleColor="#5a6270", anchor="start", frame="group", limit=265,
    )  # fmt: skip
    return alt.layer(dots, lines, means).properties(width=WIDTH, height=HEIGHT, title=title)
