"""Verdicts of a study: what `reports.analysis` finds, as sentences, tables and a forest plot."""

from __future__ import annotations

from collections.abc import Sequence

from bagoftricks.reports.charts import VALIDATION, Chart
from bagoftricks.reports.tables import Entry, Table
from bagoftricks.studies.cells import CellComparison
from bagoftricks.studies.effects import SEEDS_FOR_VERDICT, Analysis, Effect, sentence
from bagoftricks.studies.mixed import ModelEffect, disagreements
from bagoftricks.studies.verdicts import tag

MOST_DRAWN, MOST_TOLD = 40, 12
"""Effects in the forest plot; cells or effects that a sentence names. All are counted."""
COLOURS = {
    "helps": "#1a7f37",
    "hurts": "#b3261e",
    "more together": "#1b7c83",
    "less together": "#8250df",
    "negligible": "#8a8f98",
    "practically equivalent": "#5b6fb5",
    "inconclusive": VALIDATION,
    "withheld": "#777777",
}
"""Of the points in the forest plot."""


def sentences(analysis: Analysis) -> list[str]:
    """Returns a plain sentence for each effect, the declared ones first, then the best cells, then what is not told."""
    ordered = sorted(analysis.effects, key=lambda effect: not effect.declared)
    told = [" ".join([sentence(effect), *(f"[{note}]" for note in effect.notes)]) for effect in ordered]
    told += cells_sentences(analysis)[:1]
    return told + [f"Not estimable: {missing.name}: {missing.why}." for missing in analysis.not_estimable]


def cells_sentences(analysis: Analysis) -> list[str]:
    """Returns which cells may be the best (Hsu), then which differ from the baseline (Dunnett); [] without either."""
    found = analysis.cells
    if found is None:
        return []
    block, unit = analysis.settings.block, " points" if analysis.settings.unit == "points" else ""
    sure = f"n = {len(found.blocks)} {block}s"
    if found.exploratory:
        sure += f", exploratory below {SEEDS_FOR_VERDICT}"
    level = f"{100 * (1 - found.alpha):g} %"
    if len(found.best) == 1:
        best = f"The best cell is {found.best[0]} (Hsu, {level}, {sure})."
    elif len(found.best) == len(found.cells):
        best = f"Any of the {len(found.cells)} cells may be the best (Hsu, {level}, {sure})."
    else:
        names = _listed(found.best)
        best = f"{len(found.best)} of {len(found.cells)} cells may be the best (Hsu, {level}, {sure}): {names}."
    size = _size(analysis)

    def told(beats: str) -> str:
        cells = [cell for cell in found.cells if cell.beats == beats]
        cells.sort(key=lambda cell: -abs(cell.difference))
        named = _listed([f"{c.name} ({c.difference:+{size}}{unit}, {_p(c.p)})" for c in cells])
        return f"{beats.capitalize()}: {named or 'none'}."

    against = f"Against the baseline {found.baseline} (Dunnett, {level} over all {len(found.cells) - 1}, {sure})."
    others = sum(cell.beats == "not shown" for cell in found.cells)
    return [best, f"{against} {told('better')} {told('worse')} No difference shown: {others}."]


def secondary_sentence(analysis: Analysis) -> list[str]:
    """Returns whether the secondary model says what the verdicts say, naming where not; [] without one."""
    model = analysis.secondary
    if model is None:
        return []
    how = model.method + (f", as {model.why}" if model.why else "")
    wrong, compared = disagreements(analysis.effects, model)
    if not compared:
        return [f"Secondary model ({how}): below {SEEDS_FOR_VERDICT} {analysis.settings.block}s it is exploratory."]
    if not wrong:
        return [f"Secondary model ({how}): agrees with the verdict on {_all(compared, 'effect')}."]
    fitted = {effect.name: effect for effect in model.effects}
    size = _size(analysis)
    named = [
        f"{e.name} ({e.verdict}; by the model {fitted[e.name].estimate:+{size}}, {_p(fitted[e.name].p_adjusted)})"
        for e in wrong
    ]
    return [f"Secondary model ({how}): disagrees with the verdict on {len(wrong)} of {compared}: {_listed(named)}."]


def _all(count: int, what: str) -> str:
    return f"the one {what}" if count == 1 else f"all {count} {what}s"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_TOLD
    return "; ".join([*names[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])])


def _chance(value: float | None) -> str:
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _p(value: float | None) -> str:
    return "p < 0.001" if value is not None and value < 0.001 else f"p = {_chance(value)}"


def _size(analysis: Analysis) -> str:
    return ".2f" if analysis.settings.unit == "points" else ".3g"


def verdict_tables(analysis: Analysis) -> list[Table]:
    """Returns every table of verdicts that has rows: effects, best cells, secondary model."""
    tables = [effects_table(analysis), best_cells_table(analysis), secondary_table(analysis)]
    return [table for table in tables if table and table.rows]


def best_cells_table(analysis: Analysis) -> Table | None:
    """Every cell against the best of the others and against the baseline; None where cells are not compared."""
    found = analysis.cells
    if found is None:
        return None
    size, level = _size(analysis), f"{100 * (1 - found.alpha):g} %"
    note = (
        f"Over {len(found.blocks)} {analysis.settings.block}s with a run of every cell"
        f"{f' ({len(found.left_out)} left out)' if found.left_out else ''}. To the best: difference from the best of "
        f"the other cells, with Hsu's {level} interval; a cell may be the best (bold) unless its interval ends at 0. "
        f"Baseline: difference from {found.baseline}, with Dunnett's {level} interval and p, which hold for all cells "
        "together."
    )
    if found.cells_left_out:
        note += f" Left out, with too few runs: {_listed(found.cells_left_out)}."
    if found.exploratory:
        note += f" Exploratory: fewer than {SEEDS_FOR_VERDICT} {analysis.settings.block}s."
    columns = ("Cell", "May be best", "Mean", "To the best", "Hsu interval", "To baseline", "Dunnett interval", "p")
    sign = 1 if found.higher_is_better else -1
    ordered = sorted(found.cells, key=lambda cell: -sign * cell.mean)
    return Table("best-cells", "Which cells may be the best", note, columns, tuple(_cell(c, size) for c in ordered))


def _cell(cell: CellComparison, size: str) -> tuple[Entry, ...]:
    may = "yes" if cell.may_be_best else "no"
    own = cell.beats == "baseline"
    return (
        Entry(cell.name, {"": cell.name}, best=cell.may_be_best),
        Entry(may, {"": may}),
        _figure(cell.mean, size),
        _figure(cell.to_best, f"+{size}"),
        _span(cell.best_low, cell.best_high, size),
        Entry("baseline", {"": ""}) if own else _figure(cell.difference, f"+{size}"),
        _span(cell.low, cell.high, size),
        Entry(_chance(cell.p), {"": "" if cell.p is None else f"{cell.p:.6f}"}),
    )


def secondary_table(analysis: Analysis) -> Table | None:
    """Every effect by the secondary model beside the primary analysis; None where there is no model."""
    model = analysis.secondary
    if model is None:
        return None
    level, block = f"{100 * (1 - analysis.settings.alpha):g} %", analysis.settings.block
    note = f"By a {model.method}{f', as {model.why}' if model.why else ''}: main effects and two-way interactions, "
    note += f"{model.runs} runs in {model.blocks} {block}s, t with {model.df} degrees of freedom, p corrected alike. "
    note += f"It takes luck to be the same for all effects; the verdict is the primary analysis's. {level} intervals."
    if model.not_estimable:
        note += f" Not estimable within a {block}: {_listed([missing.name for missing in model.not_estimable])}."
    if model.exploratory:
        note += f" Exploratory: fewer than {SEEDS_FOR_VERDICT} {block}s."
    wrong = {effect.name for effect in disagreements(analysis.effects, model)[0]}
    primary = {effect.name: effect for effect in analysis.effects}
    ordered = sorted(model.effects, key=lambda effect: not effect.declared)
    rows = tuple(_fitted(e, primary[e.name], e.name in wrong, _size(analysis)) for e in ordered)
    columns = ("Effect", "Estimate", "Interval", "SE", "p", "Primary", "Verdict", "Agrees")
    return Table("secondary", "Secondary model", note, columns, rows)


def _fitted(effect: ModelEffect, primary: Effect, wrong: bool, size: str) -> tuple[Entry, ...]:
    p, verdict = _chance(effect.p_adjusted), tag(primary)
    agrees = "–" if primary.verdict is None else "no" if wrong else "yes"
    return (
        Entry(effect.name, {"": effect.name}),
        _figure(effect.estimate, f"+{size}"),
        _span(effect.low, effect.high, size),
        _figure(effect.se, size),
        Entry(p if effect.declared else f"({p})", {"adjusted": f"{effect.p_adjusted:.6f}"}),
        _figure(primary.estimate, f"+{size}"),
        Entry(verdict, {"": verdict}),
        Entry(agrees, {"": agrees}),
    )


def _figure(value: float | None, size: str) -> Entry:
    if value is None:
        return Entry("–", {"": ""})
    return Entry(f"{value:{size}}", {"": f"{value:.6g}"})


def _span(low: float | None, high: float | None, size: str) -> Entry:
    if low is None or high is None:
        return Entry("–", {"low": "", "high": ""})
    return Entry(f"{low:{size}} to {high:{size}}", {"low": f"{low:.6g}", "high": f"{high:.6g}"})


def effects_table(analysis: Analysis) -> Table:
    """Every effect with its interval and verdict, the declared ones first."""
    ordered = sorted(analysis.effects, key=lambda effect: not effect.declared)
    note = (
        "In percentage points, over seeds that share split, initial weights and order. p after Holm for declared "
        "effects, Benjamini-Hochberg for exploratory ones (in brackets). New data: the interval for a claim "
        "beyond these splits (Nadeau and Bengio), none where the data bring their split. Finds: the smallest effect "
        "that these seeds find with 80 % power."
    )
    columns = ("Effect", "Verdict", "Points", "95 % interval", "n", "p", "d_z", "Finds", "New data")
    return Table("effects", "Effects", note, columns, tuple(_row(effect) for effect in ordered))


def _row(effect: Effect) -> tuple[Entry, ...]:
    def number(value: float | None, text: str = ".2f") -> str:
        return "–" if value is None else f"{value:{text}}"

    def span(low: float | None, high: float | None) -> Entry:
        text = "–" if low is None else f"{number(low)} to {number(high)}"
        return Entry(text, {"low": number(low, ".4f"), "high": number(high, ".4f")})

    p = _chance(effect.p_adjusted)
    return (
        Entry(effect.name, {"": effect.name}),
        Entry(tag(effect), {"": tag(effect)}, best=tag(effect) == "helps"),
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
    told = [
        {"effect": e.name, "points": e.estimate, "low": e.low, "high": e.high, "verdict": tag(e)}
        for e in ordered
        if e.low is not None
    ]
    rows = told[:MOST_DRAWN]
    if not rows:
        return None
    frame, margin = pd.DataFrame(rows), analysis.settings.margin
    y = alt.Y("effect:N", sort=list(frame["effect"]), title=None, axis=alt.Axis(labelLimit=420))
    base = alt.Chart(frame)
    said = [verdict for verdict in COLOURS if verdict in set(frame["verdict"])]
    colours = alt.Scale(domain=said, range=[COLOURS[verdict] for verdict in said])
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
    which = "each effect" if len(rows) == len(told) else f"the first {len(rows)} of {len(told)} effects"
    note = f"Estimate and 95 % interval of {which}; within the band of {margin:g} points it does not matter."
    return Chart("forest", "Effects", note, finished)
