"""A study folder's analysis: its finished runs as `studies.effects` takes them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from bagoftricks.reports.beside import beside_the_baseline
from bagoftricks.reports.results import Results
from bagoftricks.reports.weights import noted
from bagoftricks.studies.effects import Analysis, analyse, successive


def study_analysis(results: Results, *, in_full: bool = False) -> Analysis | None:
    """Returns the effects of a study on its primary metric; None where nothing is varied, or less than two cells ran.

    A ladder gives successive differences; a one-at-a-time design declares its simple effects; any other declares main
    effects and two-way interactions.

    Args:
        results: of the study.
        in_full: name the effects of a one-at-a-time design as contrasts are named, with all other factors' levels.
    """
    import pandas as pd

    study, metric = results.plan["study"], results.metric
    factors = {name: list(map(str, levels)) for name, levels in study["factors"].items() if len(levels) > 1}
    if not factors or len({run.cell for run in results.done}) < 2:
        return None
    rows: list[dict[str, Any]] = [
        {
            **{name: results.levels[run.cell][name] for name in factors},
            "cell": run.cell,
            "seed": run.seed,
            "value": float(run.result.get(metric, math.nan)),
            "status": run.state,
        }
        for run in results.runs
    ]
    first = results.done[0].result
    # a split that the data bring is the same for each seed, so that nothing tells of other ones
    ratio = None if results.plan["data"].get("given_split") else first["val_images"] / max(1, first["train_images"])
    frame = pd.DataFrame(rows).rename(columns={"value": metric})
    if study["design"] == "ladder":
        found = successive(frame, results.cells, metric=metric, status="status", test_train_ratio=ratio)
    else:
        family = "all" if study["design"] == "one-at-a-time" else "main+two-way"
        found = analyse(
            frame, list(factors), "seed", metric, status="status", levels=factors, family=family,
            test_train_ratio=ratio, cell="cell",
        )  # fmt: skip
    if study["design"] == "one-at-a-time" and not in_full:
        found = beside_the_baseline(found)
    return noted(_interim(found, results), results)


def _interim(analysis: Analysis, results: Results) -> Analysis:
    """Adds a note where runs are still to come."""
    counts = results.counts()
    to_come = counts["left"] + counts["running"]
    if not to_come:
        return analysis
    note = (
        f"interim: {to_come:,} of {len(results.runs):,} runs are still to come, and verdicts may change; whoever stops "
        "or goes on by what they say now finds more than there is"
    )
    return replace(analysis, notes=(note, *analysis.notes))


def to_json(results: Results) -> dict[str, Any]:
    """Returns what `--json` tells of a study: `Results.to_dict`, its warnings, and "analysis", None without one."""
    analysis = results.analysis
    warnings = [{"about": about, "warning": warning} for about, warning in results.warnings()]
    return {**results.to_dict(), "warnings": warnings, "analysis": analysis.to_dict() if analysis else None}
