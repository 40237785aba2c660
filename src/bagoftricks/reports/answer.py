"""The answer that a report begins with: for each factor what its levels do, then the rest, folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bagoftricks.reports.charts import Chart
from bagoftricks.studies.effects import Analysis, Effect, sentence
from bagoftricks.studies.verdicts import tag

SIGNS = {
    "helps": "▲",
    "hurts": "▼",
    "negligible": "≈",
    "practically equivalent": "=",
    "inconclusive": "?",
    "more together": "+",
    "less together": "−",
}
"""A sign beside each verdict, for those who do not see its colour."""


@dataclass(frozen=True)
class Finding:
    """One effect, for the page."""

    verdict: str
    sign: str
    text: str
    """The sentence, with the estimate and its interval."""
    notes: tuple[str, ...]

    @property
    def style(self) -> str:
        """Its class in the page's style sheet."""
        return self.verdict.replace(" ", "-")


@dataclass(frozen=True)
class Answer:
    """What a study found, by weight."""

    first: tuple[Finding, ...]
    """For each factor and level the widest statement that there is: a main effect, or else a simple one."""
    folded: tuple[tuple[str, tuple[Finding, ...]], ...]
    """The rest, in groups with a title."""
    untold: tuple[str, ...]
    """What cannot be told, and why."""
    margin: str
    """Below it a difference does not matter; with its unit."""
    notes: tuple[str, ...]


def answer(analysis: Analysis) -> Answer:
    """Returns an analysis in the order in which it is to be read."""
    first = headline(analysis.effects)
    chosen = {id(effect) for effect in first}
    rest = [effect for effect in analysis.effects if id(effect) not in chosen]
    interactions = [effect for effect in rest if effect.declared and "interaction" in effect.kind]
    declared = [effect for effect in rest if effect.declared and "interaction" not in effect.kind]
    exploratory = [effect for effect in rest if not effect.declared]
    groups = (
        ("Interactions: whether two do more, or less, together than apart", interactions),
        ("More declared effects", declared),
        ("Exploratory: not declared beforehand, to be confirmed by other seeds", exploratory),
    )
    settings = analysis.settings
    return Answer(
        first=tuple(map(_finding, first)),
        folded=tuple((title, tuple(map(_finding, group))) for title, group in groups if group),
        untold=tuple(f"{missing.name}: {missing.why}" for missing in analysis.not_estimable),
        margin=f"{settings.margin:g}" + (" percentage points" if settings.unit == "points" else ""),
        notes=analysis.notes,
    )


def headline(effects: Sequence[Effect]) -> list[Effect]:
    """Returns an effect for each factor and level: main or successive, or where there is neither the simple ones."""
    wide = [effect for effect in effects if effect.kind in ("main", "successive")]
    covered = {(effect.factors, effect.levels) for effect in wide}
    return [
        effect
        for effect in effects
        if effect.kind in ("main", "successive")
        or (effect.kind == "simple" and (effect.factors, effect.levels) not in covered)
    ]


def _finding(effect: Effect) -> Finding:
    verdict = tag(effect)
    return Finding(verdict, SIGNS.get(verdict, "–"), sentence(effect), effect.notes)


def told(analysis: Analysis, chart: Chart) -> str:
    """Says what a forest plot shows: each of the first effects, with its interval and verdict."""
    rows = [effect for effect in headline(analysis.effects) if effect.low is not None and effect.high is not None]
    unit = " points" if analysis.settings.unit == "points" else ""
    shown = "; ".join(
        f"{effect.name}: {effect.estimate or 0.0:+.2f}{unit}, {effect.low:.2f} to {effect.high:.2f}, {tag(effect)}"
        for effect in rows[:12]
    )
    more = len(chart.rows()) - len(rows[:12])
    return f"{shown}" + (f"; and {more} more." if more > 0 else ".")
