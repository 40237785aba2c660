"""A word beside each verdict on an architecture: initial weights that do not fit both of two are part of the effect."""

from __future__ import annotations

from dataclasses import replace

from bagoftricks.reports.results import Results
from bagoftricks.studies.effects import Analysis, Effect

ARCHITECTURE = "model.tweaks"
NOTE = "part of this may be the initial weights, which were not trained in both architectures"


def noted(analysis: Analysis, results: Results) -> Analysis:
    """Returns the analysis with a note on effects between architectures where one had weights that do not fit."""
    levels = {cell["name"]: str(cell["levels"].get(ARCHITECTURE)) for cell in results.plan["cells"]}
    warned = {levels[run.cell] for run in results.done if (run.result.get("weights") or {}).get("warning")}
    if not warned:
        return analysis

    def concerns(effect: Effect) -> bool:
        compared = dict(zip(effect.factors, effect.levels, strict=True))
        if "cell" in compared:  # of a ladder: two of its cells
            pair = {levels.get(name, "") for name in compared["cell"]}
        else:
            pair = set(compared.get(ARCHITECTURE, ()))
        return len(pair) > 1 and bool(pair & warned)

    marked = (
        replace(effect, notes=(*effect.notes, NOTE)) if concerns(effect) else effect for effect in analysis.effects
    )
    return replace(analysis, effects=tuple(marked))
