"""The tests behind the verdicts: t, sign flips, the share of seeds that agree, and equivalence, for each effect."""

from __future__ import annotations

from bagoftricks.reports.tables import Entry, Table
from bagoftricks.studies.effects import Analysis, Effect


def evidence_table(analysis: Analysis) -> Table | None:
    """Returns a row for each effect that could be tested, the declared ones first; None where none could."""
    ordered = sorted(analysis.effects, key=lambda effect: not effect.declared)
    rows = tuple(_row(effect) for effect in ordered if effect.p is not None)
    if not rows:
        return None
    settings = analysis.settings
    unit = " points" if settings.unit == "points" else ""
    note = (
        "t: of the paired t test, with its p before correction. Sign flips: p of the permutation test, and the least "
        f"that so many {settings.block}s can give; t decides. Better: share of {settings.block}s in which the level is "
        "better, ties half, with Wilson's 95 % interval. "
        f"Equivalence: corrected p of the two one-sided tests against {settings.margin:g}{unit}."
    )
    columns = ("Effect", "t", "p uncorrected", "Sign flips", "Floor", "Better", "Interval", "Equivalence")
    return Table("evidence", "The tests behind the verdicts", note, columns, rows)


def _row(effect: Effect) -> tuple[Entry, ...]:
    def number(value: float | None, text: str) -> str:
        return "–" if value is None else f"{value:{text}}"

    def p(value: float | None) -> Entry:
        shown = "<0.001" if value is not None and value < 0.001 else number(value, ".3f")
        return Entry(shown, {"": number(value, ".6f")})

    span = f"{number(effect.better_low, '.2f')} to {number(effect.better_high, '.2f')}"
    return (
        Entry(effect.name, {"": effect.name}),
        Entry(number(effect.t, ".2f"), {"": number(effect.t, ".4f")}),
        p(effect.p),
        p(effect.sign_flip_p),
        Entry(number(effect.sign_flip_floor, ".2g"), {"": number(effect.sign_flip_floor, ".6g")}),
        Entry(number(effect.better, ".2f"), {"": number(effect.better, ".4f")}),
        Entry(span, {"low": number(effect.better_low, ".4f"), "high": number(effect.better_high, ".4f")}),
        p(effect.equivalence_p_adjusted),
    )
