"""`tricks plan`: how many seeds a study needs, what they cost, and what can be learned in some hours."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, STUDIES, add_json, add_machine, new_command
from bagoftricks.errors import UserError
from bagoftricks.flags import recipe_changes

if TYPE_CHECKING:
    from bagoftricks.reports.pilot import Pilot
    from bagoftricks.studies.design import Study
    from bagoftricks.studies.planning import Family, Need, Planned, Sd, Within
    from bagoftricks.studies.price import Price


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "plan", run, "say how many seeds a study needs for an effect, what they cost, and what H hours find",
        (
            "tricks plan paper                              # seeds for a few effects and standard deviations",
            "tricks plan mine.toml --pilot pilot --effect 0.5 1",
            "tricks plan quickstart --sd 1 --seconds-per-run 12 --hours 3",
        ),
    )  # fmt: skip
    command.add_argument("study", help=STUDIES)
    group = command.add_argument_group("plan")
    group.add_argument("--effect", type=float, nargs="+", metavar="POINTS", help="sizes to be found [0.5 1 2]")
    group.add_argument("--power", type=float, default=0.8, help="chance of finding an effect of that size [0.8]")
    group.add_argument(
        "--sd", type=float, metavar="POINTS",
        help="standard deviation between seeds of the difference that one effect makes, in percentage points",
    )  # fmt: skip
    group.add_argument(
        "--pilot", type=Path, metavar="FOLDER",
        help="a study folder that was run: the sd of each effect, and the time of a run, are taken from it",
    )  # fmt: skip
    group.add_argument("--hours", type=float, help="say what can be learned in so many hours")
    group.add_argument("--seconds-per-run", type=float, metavar="S", help="what a run costs, where it is known")
    group.add_argument("--data", help="measure on this machine what a run costs: a folder, Caltech-101, or 'digits'")
    group.add_argument("--jobs", type=int, default=1, help="runs at a time [1]")
    add_json(group)
    add_machine(command, trains=True)


def run(options: argparse.Namespace) -> int:
    """Plans, and prints the plan."""
    from bagoftricks.reports.pilot import read_pilot
    from bagoftricks.studies.planning import (
        EFFECTS,
        Planned,
        check_request,
        family_of,
        for_all,
        needs,
        stated_sds,
        within,
    )
    from bagoftricks.studies.study_file import load_study

    effects = tuple(options.effect or EFFECTS)
    check_request(effects, options.power)
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: must be at least 1")
    if options.data is None:
        for name in ("device", "precision", "kernels", "deterministic"):
            if getattr(options, name) not in ("auto", False):
                raise UserError(f"--{name}: says nothing without --data, by which this machine is measured")
    study = load_study(options.study).adapted(recipe_changes(options))
    family, cells, power = family_of(study), len(study.cells), options.power
    sds = stated_sds(options.sd)
    pilot = read_pilot(options.pilot, study, family, options.jobs) if options.pilot else None
    if pilot and pilot.sds and options.sd is None:
        sds = pilot.sds
    price = _price(options, study, pilot)
    if options.hours is not None and price is None:
        raise UserError("--hours: needs the cost of a run; pass --pilot, --data or --seconds-per-run")
    found = needs(sds, effects, family, cells, power=power, price=price)
    planned = Planned(
        study, family, power, sds, price, found,
        for_all(found, cells, price) if sds[0].effect else (),
        within(sds, family, price, options.hours, power=power) if options.hours is not None and price else None,
        (*_notes(sds, family), *(pilot.notes if pilot else ())),
    )  # fmt: skip
    if options.json:
        print(json.dumps(planned.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(planned)
    return DONE


def _price(options: argparse.Namespace, study: Study, pilot: Pilot | None) -> Price | None:
    """Returns what a seed costs: stated, else measured now, else the pilot's; None where none of them is there."""
    from bagoftricks.studies.price import Price

    if options.seconds_per_run is not None:
        seconds = options.seconds_per_run
        if not 0 < seconds < math.inf:
            raise UserError(f"--seconds-per-run {seconds:g}: must be above 0")
        if options.data is not None:
            raise UserError("--seconds-per-run and --data: stated or measured, one or the other")
        return Price(seconds * len(study.cells), seconds, len(study.cells), options.jobs, "stated")
    if options.data is not None:
        return _measure(options, study)
    return pilot.price if pilot else None


def _measure(options: argparse.Namespace, study: Study) -> Price:
    """Times two small training steps, as `tricks study` does before it starts; weights do not change what they cost."""
    from bagoftricks.console import say_hashed
    from bagoftricks.studies.cost import estimate
    from bagoftricks.studies.plan import plan_study
    from bagoftricks.studies.price import Price

    one = study.adapted({} if "init" in study.factors else {"init": "scratch"}, seeds=1)
    plan = plan_study(
        one,
        options.data,
        jobs=options.jobs,
        device=options.device,
        precision=options.precision,
        deterministic=options.deterministic,
        kernels=options.kernels,
        allow_corrupt=1.0,  # what it costs is asked here, not whether they will do
        on_hash=say_hashed,
    )
    with tempfile.TemporaryDirectory(prefix="bagoftricks-") as nothing_done:
        cost = estimate(plan, Path(nothing_done))
    hardware = plan.hardware
    threads = f"{hardware.threads} thread{'' if hardware.threads == 1 else 's'} a run"
    machine = f"{hardware.device}, {hardware.precision}, {threads}"
    (seed,) = one.seeds
    return Price(
        cost.seconds_by_seed[seed], cost.longest_by_seed[seed], len(one.cells), plan.jobs, "measured now", machine,
        plan.speedup,
    )  # fmt: skip


def _notes(sds: Sequence[Sd], family: Family) -> list[str]:
    """What must be known to read the plan."""
    from bagoftricks.studies.planning import CONFIDENCE
    from bagoftricks.studies.verdicts import SEEDS_FOR_VERDICT

    notes = [f"never fewer than {SEEDS_FOR_VERDICT} seeds, below which there is no verdict"]
    if sds[0].source == "pilot":
        notes.append(
            f"a pilot's sd is uncertain: plan on its upper limit (one-sided, {CONFIDENCE:.0%} confidence, chi-square); "
            "and on the effect that matters, not on the one that the pilot saw"
        )
    else:
        notes.append(
            "sd: standard deviation between seeds of the difference that one effect makes, averaged over the other "
            "factors' combinations; not the spread of a cell's results, and an interaction's is larger"
        )
    if not family.declared:
        notes.append(f"the design declares no effect: planned as if all {family.tests} exploratory ones were declared")
    return notes


def _print(planned: Planned) -> None:
    """Prints the plan: seeds, runs and time for each effect, then what the hours find."""
    from bagoftricks.console import duration, print_table, say

    study, family, price = planned.study, planned.family, planned.price
    what = f"{family.tests} {'declared' if family.declared else 'exploratory'} effect{'s' if family.tests > 1 else ''}"
    say(f"Study {study.name}: {len(study.cells)} cells, {what} ({family.correction}), by {study.metric}")
    if price:
        where = f"{price.source}, {price.machine}" if price.machine else price.source
        mean = duration(price.seconds_per_seed / price.cells)
        say(f"Cost: {mean} a run ({where}), runs at a time: {price.jobs}")
    if planned.for_all:
        _print_pilot(planned.sds, planned.needs)
    rows = [
        [
            f"{need.points:g}", _sd(need), _count(need.seeds), _count(need.alone),
            *([f"{need.runs:,}"] if need.runs else ["-"]),
            *([duration(need.hours * 3600) if need.hours is not None else "-"] if price else []),
        ]
        for need in planned.for_all or planned.needs
    ]  # fmt: skip
    head = ("Effect, points", "sd, points", "Seeds", "Alone", "Runs", *(("Time",) if price else ()))
    title = f"Seeds that find {'each effect' if planned.for_all else 'an effect'} of that size, power"
    alone = f"Alone: seeds, were it the only test instead of one of {family.tests}"
    print_table(f"{title} {planned.power:.0%}", head, rows, alone if family.tests > 1 else "")
    if planned.within:
        _print_within(planned.within, family, planned.power)
    for note in planned.notes:
        say(f"Note: {note}.")


def _sd(item: Any) -> str:
    """The sd of a need, or where it is from when it stands for several."""
    if item.sd is None:
        return {"pilot": "as in the pilot", "upper limit": "its upper limit"}[item.source]
    return f"{item.sd:.3g}"


def _points(value: float) -> str:
    return f"{value:.3g}" if value <= 100 else "> 100"


def _count(value: int | None) -> str:
    from bagoftricks.studies.design import MOST_SEEDS

    return f"{value:,}" if value is not None else f"> {MOST_SEEDS:,}"


def _print_pilot(sds: Sequence[Sd], found: Sequence[Need]) -> None:
    """Prints each effect's sd in the pilot, and its seeds at that sd and at the upper limit."""
    from bagoftricks.console import print_table

    sizes = list(dict.fromkeys(need.points for need in found))
    seeds = {(need.effect, need.source, need.points): _count(need.seeds) for need in found}
    rows = []
    for sd, upper in zip(sds[::2], sds[1::2], strict=True):
        each = [f"{seeds[sd.effect, 'pilot', p]} / {seeds[sd.effect, 'upper limit', p]}" for p in sizes]
        rows.append([sd.effect, str(sd.blocks), f"{sd.points:.3g}", f"{upper.points:.3g}", *each])
    head = ("Effect", "n", "sd", "up to", *(f"seeds for {p:g}" for p in sizes))
    print_table("Effects in the pilot", head, rows, "Seeds at the pilot's sd / at its upper limit; sd in points")


def _print_within(fits: Within, family: Family, power: float) -> None:
    """Prints what can be learned in the hours."""
    from bagoftricks.console import duration, print_table, say
    from bagoftricks.studies.verdicts import SEEDS_FOR_VERDICT

    text = f"{fits.seeds:,} seed{'' if fits.seeds == 1 else 's'} ({fits.runs:,} runs, {duration(fits.hours * 3600)})"
    text = f"In {duration(fits.allowed * 3600)}: {text if fits.seeds else 'not one seed fits'}"
    if not fits.verdict:
        least = duration(fits.hours_for_verdict * 3600)
        text += f"; exploratory, without a verdict: {SEEDS_FOR_VERDICT} seeds take {least}"
    say(f"{text}.")
    rows = [
        [find.effect or "any", f"{find.sd:.3g}" + (" (upper limit)" if find.source == "upper limit" else ""),
         _points(find.corrected), _points(find.alone)]
        for find in fits.finds
    ]  # fmt: skip
    if rows:
        title = f"Smallest effect that {fits.seeds:,} seeds find with {power:.0%} power, in points"
        print_table(title, ("Effect", "sd", f"among {family.tests} (corrected)", "alone"), rows)
