"""Verdicts of a study: its effects as `studies.effects` finds them, as sentences, a table and a forest plot."""

from __future__ import annotations

import math
from typing import Any

from bagoftricks.reports.charts import VALIDATION, Chart
from bagoftricks.reports.results import Results
from bagoftricks.reports.tables import Entry, Table
from bagoftricks.studies.effects import Analysis, Effect, analyse, sentence, successive

MOST_DRAWN = 40
"""Effects in the forest plot."""


def study_analysis(results: Results) -> Analysis | None:
    """Returns the effects of a study on its primary metric; None where nothing is varied, or less than two cells ran.

    A ladder gives successive differences; a one-at-a-time design declares its simple effects; any other declares main
    effects and two-way interactions.
    """
    import pandas as pd

    study, metric = results.plan["study"], results.metric
    factors = {name: list(map(str, levels)) for name, levels in study["factors"].items() if len(levels) > 1}
    if not factors or len({run.cell for run in results.done}) < 2:
        return None
    levels = {cell["name"]: {k: str(v) for k, v in cell["levels"].items()} for cell in results.plan["cells"]}
    rows: list[dict[str, Any]] = [
        {
            **{name: levels[run.cell][name] for name in factors},
            "cell": run.cell,
            "seed": run.seed,
            "value": float(run.result.get(metric, math.nan)),
            "status": run.state,
        }
        for run in results.runs
    ]
    first = results.done[0].result
    ratio = first["val_images"] / first["train_images"]
    frame = pd.DataFrame(rows).rename(columns={"value": metric})
    if study["design"] == "ladder":
        return successive(frame, results.cells, metric=metric, status="status", test_train_ratio=ratio)
    family = "all" if study["design"] == "one-at-a-time" else "main+two-way"
    return analyse(
        frame, list(factors), "seed", metric, status="status", levels=factors, family=family, test_train_ratio=ratio
    )


def sentences(analysis: Analysis) -> list[str]:
    """Returns a plain sentence for each effect, the declared ones first, then what cannot be told and why."""
    ordered = sorted(analysis.effects, key=lambda effect: not effect.declared)
    told = [" ".join([sentence(effect), *(f"[{note}]" for note in effect.notes)]) for effect in ordered]
    return told + [f"Not estimable: {missing.name}: {missing.why}." for missing in analysis.not_estimable]


def effects_table(analysis: Analysis) -> Table:
    """Every effect with its interval and verdict, the declared ones first."""
    ordered = sorted(analysis.effects, key=lambda effect: not effect.declared)
    note = (
        "In percentage points, over seeds that share split, initial weights and order. p after Holm for declared "
        "effects, Benjamini-Hochberg for exploratory ones (in brackets). New data: the interval for a claim "
        "beyond these splits (Nadeau and Bengio). Finds: the smallest effect that these seeds find with 80 % power."
    )
    columns = ("Effect", "Verdict", "Points", "95 % interval", "n", "p", "d_z", "Finds", "New data")
    return Table("effects", "Effects", note, columns, tuple(_row(effect) for effect in ordered))


def _row(effect: Effect) -> tuple[Entry, ...]:
    def number(value: float | None, text: str = ".2f") -> str:
        return "–" if value is None else f"{value:{text}}"

    def span(low: float | None, high: float | None) -> Entry:
        text = "–" if low is None else f"{number(low)} to {number(high)}"
        return Entry(text, {"low": number(low, ".4f"), "high": number(high, ".4f")})

    p = "–" if effect.p_adjusted is None else "<0.001" if effect.p_adjusted < 0.001 else f"{effect.p_adjusted:.3f}"
    return (
        Entry(effect.name, {"": effect.name}),
        Entry(effect.verdict or "withheld", {"": effect.verdict or "withheld"}, best=effect.verdict == "helps"),
        Entry(number(effect.estimate, "+.2f"), {"": number(effect.estimate, ".4f")}),
        span(effect.low, effect.high),
        Entry(str(effect.n), {"": str(effect.n)}),
        Entry(p if effect.declared else f"({p})", {"adjusted": number(effect.p_adjusted, ".6f")}),
        Entry(number(effect.d_z), {"": number(effect.d_z, ".4f")}),
        Entry(number(effect.detectable), {"": number(effect.detectable, ".4f")}),
        span(effect.corrected_low, effect.corrected_high),
    )


def forest(analysis: Analysis) -> Chart | None:
    """Every effect as a point with its interval, the margin as a band; None where no effect has an interval."""
    import altair as alt
    import pandas as pd

    ordered = sorted(analysis.effects, key=lambda effect: not effect.declared)
    rows = [
        {"effect": e.name, "points": e.estimate, "low": e.low, "high": e.high, "verdict": e.verdict or "withheld"}
        for e in ordered
        if e.low is not None
    ][:MOST_DRAWN]
    if not rows:
        return None
    frame, margin = pd.DataFrame(rows), analysis.settings.margin
    y = alt.Y("effect:N", sort=list(frame["effect"]), title=None, axis=alt.Axis(labelLimit=420))
    base = alt.Chart(frame)
    colours = alt.Scale(
        domain=["helps", "hurts", "negligible", "practically equivalent", "inconclusive", "withheld"],
        range=["#1a7f37", "#b3261e", "#8a8f98", "#5b6fb5", VALIDATION, "#777777"],
    )
    colour = alt.Color("verdict:N", scale=colours, legend=alt.Legend(columns=3, columnPadding=24))
    band = alt.Chart(pd.DataFrame([{"from": -margin, "to": margin}])).mark_rect(color="#9aa4b2", opacity=0.18)
    zero = alt.Chart(pd.DataFrame([{"at": 0.0}])).mark_rule(color="#777777")
    x = alt.X("low:Q", title="effect in percentage points")
    chart = alt.layer(
        band.encode(x=alt.X("from:Q", title=""), x2="to:Q"),
        zero.encode(x="at:Q"),
        base.mark_rule(strokeWidth=2.5).encode(x=x, x2="high:Q", y=y, color=colour),
        base.mark_point(filled=True, size=70, opacity=1).encode(x="points:Q", y=y, color=colour),
    ).properties(width=420, height=alt.Step(24))
    finished = (
        chart.configure(background="white", font="system-ui, sans-serif")
        .configure_view(stroke="#cccccc")
        .configure_axis(gridColor="#e6e6e6", labelFontSize=11, titleFontSize=11)
        .configure_legend(orient="top", title=None)
    )
    note = f"Estimate and 95 % interval of each effect; within the band of {margin:g} points it does not matter."
    return Chart("forest", "Effects", note, finished)
