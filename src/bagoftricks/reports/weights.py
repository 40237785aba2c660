"""A word beside each verdict on an architecture: initial weights that do not fit both of two are part of the effect."""

from __future__ import annotations

from dataclasses import replace

from bagoftricks.reports.results import Results
from bagoftricks.studies.effects import Analysis, Effect

ARCHITECTURE = ("model.tweaks", "model.backbone", "model.depth")
"""Factors of which a level may be one that the initial weights were not trained in."""
NOTE = "part of this may be the initial weights, which were not trained in both architectures"


def noted(analysis: Analysis, results: Results) -> Analysis:
    """Returns the analysis with a note on effects between architectures where one had weights that do not fit."""
    unfit = {run.cell for run in results.done if (run.result.get("weights") or {}).get("warning")}
    if not unfit:
        return analysis
    levels = {
        name: {cell["name"]: str(cell["levels"].get(name)) for cell in results.plan["cells"]} for name in ARCHITECTURE
    }

    def concerns(effect: Effect) -> bool:
        compared = dict(zip(effect.factors, effect.levels, strict=True))
        for name, of_cell in levels.items():
            if "cell" in compared:  # of a ladder: two of its cells
                pair = {of_cell.get(cell, "") for cell in compared["cell"]}
            else:
                pair = set(compared.get(name, ()))
            if len(pair) > 1 and pair & {of_cell[cell] for cell in unfit}:
                return True
        return False

    marked = (
        replace(effect, notes=(*effect.notes, NOTE)) if concerns(effect) else effect for effect in analysis.effects
    )
    return replace(analysis, effects=tuple(marked))
