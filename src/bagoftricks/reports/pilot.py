"""What a study that was run tells of one that is planned: the sd of each effect, and what a run costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bagoftricks.errors import UserError
from bagoftricks.recipe import PATHS
from bagoftricks.reports.analysis import study_analysis
from bagoftricks.reports.results import Results, read_results
from bagoftricks.store import ENVIRONMENT, Store, StoredRun
from bagoftricks.studies.design import Study
from bagoftricks.studies.effects import Effect
from bagoftricks.studies.planning import Family, Sd, pilot_sds
from bagoftricks.studies.price import Price, pilot_price


@dataclass(frozen=True)
class Pilot:
    """What a study folder tells of another study."""

    sds: tuple[Sd, ...]
    """Of each effect that both have, and its upper limit after it; empty where no sd can be told."""
    price: Price | None
    notes: tuple[str, ...]


def read_pilot(folder: Path, study: Study, family: Family, jobs: int) -> Pilot:
    """Reads a pilot; its finished runs count, whatever became of the others.

    Args:
        folder: a study folder.
        study: what is planned.
        family: of that study.
        jobs: runs at a time, as planned.

    Raises:
        UserError: if it is no study folder, nothing in it is finished, or it measured something else.
    """
    results = read_results(folder)
    if not results.done:
        raise UserError(f"pilot {folder}: no run in it is finished")
    results = replace(results, plan={**results.plan, "study": {**results.plan["study"], "metric": study.metric}})
    if results.metric != study.metric:
        raise UserError(f"pilot {folder}: its runs lack {study.metric}, which decides study '{study.name}'")
    analysis = study_analysis(results, in_full=True)
    known = {effect.name: effect for effect in (analysis.effects if analysis else ())}
    wanted = {(contrast.factors, contrast.levels) for contrast in family.contrasts}
    if known and wanted.isdisjoint((effect.factors, effect.levels) for effect in known.values()):
        raise UserError(f"pilot {folder}: measured no effect of study '{study.name}'; run a pilot of that study")
    sds, notes = pilot_sds(family, {name: (effect.sd, effect.n) for name, effect in known.items()})
    if not sds:
        notes = [
            "the pilot tells no sd of this study's effects (it takes two seeds with every run), so some are assumed"
        ]
    return Pilot(sds, _price(results, study, jobs), (*notes, *_differences(results, study, family, known)))


def _price(results: Results, study: Study, jobs: int) -> Price | None:
    from bagoftricks.training.hardware import cores  # which imports torch

    seconds: dict[str, list[float]] = {}
    for row in results.done:
        seconds.setdefault(row.cell, []).append(float(row.result["seconds"]))
    hardware, speedup = results.plan["hardware"], 0
    if hardware.get("device", "cpu") != "cpu":
        speedup = 1  # one run may have had a GPU to itself: others beside it gain nothing for certain
    elif threads := hardware.get("threads"):  # which its runs keep
        jobs = min(jobs, max(1, cores() // threads))
    price = pilot_price(seconds, [cell.name for cell in study.cells], jobs, _machine(results))
    return replace(price, speedup=speedup) if price else None


def _differences(results: Results, study: Study, family: Family, known: Mapping[str, Effect]) -> list[str]:
    """Says in what the pilot was another study."""
    notes = []
    for contrast in family.contrasts:
        own = known.get(contrast.name)
        if own and own.combinations != contrast.combinations:
            pairs = f"{own.combinations} combinations in the pilot, over {contrast.combinations} in the study"
            notes.append(f"{contrast.name}: averaged over {pairs}")
    theirs = {cell["name"]: cell.get("recipe") for cell in results.plan["cells"]}
    for cell in study.cells:
        if before := theirs.get(cell.name):
            now = cell.recipe.canonical()
            fields = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            if other := ", ".join(f"{key} {before.get(key)}, not {now.get(key)}" for key in fields if key not in PATHS):
                notes.append(f"the pilot's runs had other settings ({other}): its sds and times are theirs")
            break  # what cells share differs in all of them
    return notes


def _machine(results: Results) -> str:
    """Says where the runs were made."""
    run = StoredRun(Store(results.root).runs / results.done[0].id)
    where = run.environment if (run.folder / ENVIRONMENT).is_file() else {}
    hardware = results.plan["hardware"]
    parts = [hardware.get("device"), where.get("gpu" if hardware.get("device") == "cuda" else "cpu")]
    parts.append(hardware.get("precision"))
    if threads := hardware.get("threads"):
        parts.append(f"{threads} thread{'' if threads == 1 else 's'} a run")
    return ", ".join(str(part) for part in parts if part)
