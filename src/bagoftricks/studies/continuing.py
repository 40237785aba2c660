"""What a study folder that exists already asks of the study that wants to continue it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.errors import UserError
from bagoftricks.recipe import NEUTRAL, PATHS
from bagoftricks.store import Store
from bagoftricks.study_folder import read_plan

if TYPE_CHECKING:
    from bagoftricks.studies.plan import Plan

JUDGED = ("metric", "design")
"""What of a study says how its results are judged, and may be another one with the same runs."""


def check_continues(earlier: dict[str, Any], plan: Plan, out: Path) -> None:
    """Refuses what would change a folder's meaning: it belongs to one study, which more seeds or cells may join.

    Raises:
        UserError: naming what differs.
    """
    for what, before, now in (
        ("study", earlier["study"]["name"], plan.study.name),
        ("data", earlier["data"]["fingerprint"], plan.index.fingerprint),
    ):
        if before != now:
            name = earlier[what]["name"]
            raise UserError(f"study folder {out}: holds another {what} ('{name}'); choose another --out")
    ids = {(run["cell"], run["seed"]): run["id"] for run in earlier["runs"]}
    recipes = {cell["name"]: cell.get("recipe") for cell in earlier["cells"]}
    # an equal id proves a cell the same, although its weights may lie elsewhere now
    proven = {run.cell.name for run in plan.runs if ids.get((run.cell.name, run.seed)) == run.id}
    for run in plan.runs:
        same_run = ids.get((run.cell.name, run.seed), run.id) == run.id
        same_cell = run.cell.name in proven or recipes.get(run.cell.name) in (None, run.cell.recipe.canonical())
        if not (same_run and same_cell):
            what = _differences(recipes.get(run.cell.name) or {}, run.cell.recipe.canonical())
            raise UserError(
                f"study folder {out}: holds '{run.name}' with other settings ({what}); choose another --out"
            )
    if differ := _other_hardware(earlier["hardware"], vars(plan.hardware)):
        raise UserError(f"study folder {out}: holds runs made otherwise ({differ}); choose another --out")
    _check_design(earlier, plan, out)


def _other_hardware(there: dict[str, Any], now: dict[str, Any]) -> str:
    """Says in what the conditions of a folder's runs differ from a plan's, so that runs of both are not comparable."""
    usual = {"kernels": "torch", "deterministic": False}  # of folders from before there was a choice
    names = ["device", "precision", "threads", "kernels"] + ["deterministic"] * (now["device"] != "cpu")
    values = [(name, there.get(name, usual.get(name)), now[name]) for name in names]
    return ", ".join(f"{name}: {before} there, {value} now" for name, before, value in values if before != value)


def _check_design(earlier: dict[str, Any], plan: Plan, out: Path) -> None:
    """Refuses factors or steps beside which cells that stay in the folder would say something else, or nothing."""
    before, now = [cell["name"] for cell in earlier["cells"]], [cell.name for cell in plan.study.cells]
    stay = [name for name in before if name not in now]
    others = sorted(set(earlier["study"]["factors"]) ^ set(plan.study.factors))
    if stay and others:
        raise UserError(
            f"study folder {out}: holds '{stay[0]}', of a study of other factors ({', '.join(others)} is in one "
            "alone); choose another --out"
        )
    if stay and plan.study.design == "ladder" and before[: len(now)] != now:
        raise UserError(f"study folder {out}: holds a ladder with another step, '{stay[0]}'; choose another --out")


def _differences(there: dict[str, Any], now: dict[str, Any]) -> str:
    """Says in which fields two recipes differ; one that a recipe leaves out is at its neutral value there."""

    def value(recipe: dict[str, Any], name: str) -> Any:
        return recipe.get(name, NEUTRAL.get(name, "off"))

    differ = [name for name in sorted({*there, *now} - set(PATHS)) if value(there, name) != value(now, name)]
    if not there or not differ:
        return "weights, teacher, threads, precision, device or kernels"
    return ", ".join(f"{name}: {value(there, name)} there, {value(now, name)} now" for name in differ)


def _judged_by(earlier: dict[str, Any], now: dict[str, Any], seen: bool) -> list[dict[str, str]]:
    """Returns the metrics and designs that a folder's results were judged by before, once there were any."""
    told = list(earlier.get("earlier", []))
    before = {name: str(earlier.get(name, now[name])) for name in JUDGED}
    if seen and before != {name: now[name] for name in JUDGED} and before not in told:
        told.append(before)
    return told


def merged(plan: Plan, store: Store) -> dict[str, Any]:
    """The plan, with seeds and cells of an earlier one that it does not repeat, and what that was judged by."""
    merged = plan.to_dict()
    if store.plan.exists():
        earlier = read_plan(store.root)
        for key, name in (("cells", "name"), ("runs", "id")):
            known = {item[name] for item in merged[key]}
            merged[key] += [item for item in earlier[key] if item[name] not in known]
        merged["study"]["seeds"] = sorted({run["seed"] for run in merged["runs"]})
        merged["data"]["leaks"] = {**earlier["data"].get("leaks", {}), **merged["data"]["leaks"]}
        for name, levels in merged["study"]["factors"].items():
            levels += [level for level in earlier["study"]["factors"].get(name, []) if level not in levels]
        merged["study"]["earlier"] = _judged_by(earlier["study"], merged["study"], bool(store.finished()))
    return merged
