"""`tricks study`: plan, state the cost, run what is missing, report."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, FAILED, STUDIES, add_corrupt, add_json, add_log, add_machine, new_command
from bagoftricks.errors import UserError
from bagoftricks.flags import recipe_changes

if TYPE_CHECKING:
    from bagoftricks.studies.design import Study
    from bagoftricks.studies.engine import Event
    from bagoftricks.studies.plan import Plan


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "study", run, "run a study: what is missing, nothing twice; then write its report",
        (
            "tricks study                                   # the embedded quickstart, on handwritten digits",
            "tricks study paper --data caltech-101 --init resnet50.safetensors --seeds 5 --out study",
            "tricks study mine.toml --data photos --epochs 20 --dry-run",
        ),
    )  # fmt: skip
    command.add_argument("study", nargs="?", default="quickstart", help=STUDIES)
    group = command.add_argument_group("study")
    group.add_argument("--data", help="a folder of images, Caltech-101, or 'digits'; by default what the study names")
    group.add_argument("--seeds", type=int, help="how many blocks; each is a split, an initialisation and an order")
    group.add_argument("--out", type=Path, help="the study's folder; the same one continues it [study-NAME]")
    group.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared among them [1]")
    group.add_argument("--metric", help="what decides: top1, mean_class_acc or macro_f1 [what the study says, or top1]")
    group.add_argument(
        "--keep",
        choices=("none", "best", "all"),
        default="none",
        help="whose weights stay; best: of the best cell [none]",
    )
    group.add_argument("--max-hours", type=float, help="refuse a study that is expected to take longer")
    group.add_argument("--trim", action="store_true", help="with --max-hours: take fewer seeds instead of refusing")
    group.add_argument("--dry-run", action="store_true", help="say what would be run and what it costs; write nothing")
    group.add_argument("--no-samples", action="store_true", help="put no images of the data into the folder and report")
    group.add_argument(
        "--retries", type=int, default=2, metavar="N", help="try a run again whose process died or hung [2]"
    )
    group.add_argument(
        "--stall-minutes",
        type=float,
        default=10,
        metavar="MINUTES",
        help="a run without a step, an image or an epoch for so long counts as hung; the first step may compile [10]",
    )
    add_corrupt(group)
    add_log(group)
    add_json(group)
    add_machine(command, trains=True)


def run(options: argparse.Namespace) -> int:
    """Plans, states the cost, runs what is missing, reports."""
    from bagoftricks.console import note, print_cells, print_plan, say, say_hashed
    from bagoftricks.files import storage_errors
    from bagoftricks.loggers import open_loggers
    from bagoftricks.progress import StudyProgress
    from bagoftricks.reports.analysis import to_json
    from bagoftricks.reports.report import write_report
    from bagoftricks.reports.results import read_results
    from bagoftricks.store import Store
    from bagoftricks.studies.cost import estimate, given_up, trimmed
    from bagoftricks.studies.plan import plan_study
    from bagoftricks.studies.run import check_limits, execute_plan
    from bagoftricks.studies.study_file import load_study

    if options.max_hours is not None and not 0 < options.max_hours < math.inf:
        raise UserError(f"--max-hours {options.max_hours}: must be above 0")
    check_limits(options.retries, options.stall_minutes)
    if options.trim and options.max_hours is None:
        raise UserError("--trim: says nothing without --max-hours")
    chosen = load_study(options.study).adapted(recipe_changes(options), options.seeds, options.metric)
    out = options.out or Path(f"study-{chosen.name}")

    def plan_for(study: Study) -> Plan:
        return plan_study(
            study,
            options.data,
            out=out,
            jobs=options.jobs,
            device=options.device,
            precision=options.precision,
            deterministic=options.deterministic,
            kernels=options.kernels,
            allow_corrupt=options.allow_corrupt,
            on_hash=say_hashed,
        )

    plan = plan_for(chosen)
    if plan.index.left_out:
        note(plan.index.left_out.sentence())
    cost = estimate(plan, out, keep=options.keep)
    if options.max_hours is not None and cost.seconds > 3600 * options.max_hours:
        plan = plan_for(trimmed(plan, cost, options.max_hours, allowed=options.trim))
        cost = estimate(plan, out, keep=options.keep)
        note(given_up(chosen, plan.study))
    if options.dry_run and options.json:
        print(json.dumps({**plan.to_dict(), "cost": cost.to_dict()}, indent=2))
        return DONE
    print_plan(plan, cost, out)
    if options.dry_run:
        return DONE
    with (
        open_loggers(options.log, out, chosen.name) as logs,
        StudyProgress(plan.missing(out)) as progress,
        saying_what_is_finished(plan, out),
    ):

        def on_event(event: Event) -> None:
            progress.on_event(event)
            stored = Store(out).get(event.task.id) if event.kind == "done" else None
            logs.on_event(event, stored.result if stored else {})

        lacking = execute_plan(
            plan,
            out,
            keep=options.keep,
            samples=not options.no_samples,
            retries=options.retries,
            stall_minutes=options.stall_minutes,
            on_event=on_event,
            on_image=progress.on_image,
        )
    for line in lacking.splitlines():
        note(line)
    results = read_results(out)
    with storage_errors(out):
        page = write_report(out, results=results) if results.done else None
    if options.json:
        print(json.dumps({**to_json(results), "report": str(page) if page else None}, indent=2))
    else:
        print_cells(results)
        say(f"Report: {page}" if page else "No run was done; nothing to report.")
    asked = {run.id for run in plan.runs}
    return DONE if all(run.state == "done" for run in results.runs if run.id in asked) else FAILED


@contextmanager
def saying_what_is_finished(plan: Plan, out: Path) -> Iterator[None]:
    """Says it where the block is interrupted."""
    from bagoftricks.console import note

    try:
        yield
    except KeyboardInterrupt:
        note(f"{plan.finished(out)}; the same command continues")
        raise
