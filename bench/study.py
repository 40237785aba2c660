"""What a study costs beyond its training steps, and how that grows with runs, images and epochs.

    python bench/study.py --out bench/results/study.json

Needs no data: digits, made-up results, and an index of images that are never decoded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.checkpoint_cost import checkpoint_cost
from bench.growth import clean, copies_growth, image_growth, memory_growth, run_growth
from bench.machine import describe, load
from bench.summary import Spread, show

PARTS = ("overhead", "checkpoint", "runs", "images", "copies", "memory", "help")


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    found = argparse.ArgumentParser(prog="bench/study.py", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1000], help="of made-up studies")
    found.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    found.add_argument("--trainings", type=int, default=12, help="real runs on digits, to time one's overhead [12]")
    found.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    found.add_argument("--repeats", type=int, default=5, help="of commands that take a second [5]")
    found.add_argument("--work", type=Path, default=Path("bench/work"), help="folder for studies [bench/work]")
    found.add_argument("--out", type=Path, default=Path("bench/results/study.json"), help="JSON")
    return found


def overhead(work: Path, trainings: int) -> dict[str, Any]:
    """Runs a study of tiny trainings and returns seconds of a run beyond its training steps, and beyond evaluation."""
    from bagoftricks.store import Store
    from bagoftricks.studies.engine import Event
    from bagoftricks.studies.plan import plan_study
    from bagoftricks.studies.run import execute_plan
    from bagoftricks.studies.study_file import load_study

    out = clean(work / "overhead")
    study = load_study("quickstart").adapted({"epochs": 1}, seeds=-(-trainings // 4))
    began = time.perf_counter()
    plan = plan_study(study, "digits", out=out, jobs=1)
    planned = time.perf_counter() - began
    runs: dict[str, float] = {}
    began = time.perf_counter()

    def on_event(event: Event) -> None:
        if event.kind == "done":
            runs[event.task.id] = event.seconds

    execute_plan(plan, out, on_event=on_event)
    whole = time.perf_counter() - began
    steps, evaluations = [], []
    for run_id in runs:
        stored = Store(out).get(run_id)
        assert stored is not None
        steps.append(sum(row["train_s"] for row in stored.history))
        evaluations.append(sum(row["eval_s"] for row in stored.history))
    if not runs:
        raise RuntimeError("no run of the study was done")
    order = list(runs.values())
    beyond = [seconds - s for seconds, s in zip(order, steps, strict=True)]
    without = [b - e for b, e in zip(beyond, evaluations, strict=True)]
    return {
        "n": len(runs),
        "plan_s": planned,
        "study_s": whole,
        "run_s": vars(Spread.of(order)),
        "beyond_steps_s": vars(Spread.of(beyond)),
        "beyond_steps_and_evaluation_s": vars(Spread.of(without)),
        "beside_its_runs_s": whole - sum(order),
        "first_run_beyond_s": beyond[0],
    }


def command_seconds(command: list[str], repeats: int) -> Spread:
    """Returns wall seconds of a command, after one try that warms up.

    Raises:
        RuntimeError: if it fails.
    """
    taken = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        taken.append(time.perf_counter() - began)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")
    return Spread.of(taken[1:])


def tricks(*arguments: str) -> list[str]:
    """Returns the command line of `tricks`, by this interpreter."""
    return [sys.executable, "-c", "import sys; from bagoftricks.cli import main; sys.exit(main())", *arguments]


def help_times(repeats: int) -> dict[str, Any]:
    """Returns seconds of the commands that should answer at once, and of the bare interpreter."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "tricks --help": tricks("--help"),
        "tricks study --help": tricks("study", "--help"),
    }
    return {name: vars(command_seconds(command, repeats)) for name, command in commands.items()}


def growth_table(title: str, rows: list[dict[str, Any]], by: str) -> None:
    """Prints figures by size, and how many times each grew from the first size to the last."""
    if not rows:
        return
    names = [name for name in rows[0] if name != by]
    table = []
    for name in names:
        values = [row.get(name) for row in rows]
        cells = ["" if value is None else f"{value:,.3g}" for value in values]
        first, last = values[0], values[-1]
        grown = f"{last / first:,.1f} x" if first and last is not None and len(rows) > 1 else ""
        table.append([name, *cells, grown])
    times = f"{rows[-1][by] / rows[0][by]:,.0f} x {by}" if len(rows) > 1 else ""
    show(title, ["", *(f"{row[by]:,}" for row in rows), times], table)


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts and prints their tables."""
    options = parser().parse_args(arguments)
    from bagoftricks.files import write_json
    from bagoftricks.training.hardware import detect

    hardware = detect("cpu")
    work = (options.work / "study").resolve()
    found: dict[str, Any] = {"what": "study", "machine": describe(hardware.threads, "cpu"), "load_before": load()}

    def part(name: str, measured: Callable[[], Any]) -> None:
        if name in options.only:
            print(f"… {name}", file=sys.stderr, flush=True)
            found[name] = measured()
            write_json(options.out, found)

    commands = {"report": tricks("report"), "status": tricks("status")}
    part("help", lambda: help_times(options.repeats))
    part("overhead", lambda: overhead(work, options.trainings))
    part("checkpoint", lambda: checkpoint_cost(work, options.repeats))
    part("runs", lambda: run_growth(work, options.runs, commands))
    part("images", lambda: image_growth(work, options.images))
    part("copies", lambda: copies_growth(options.images))
    part("memory", lambda: memory_growth(work))
    show_all(found)
    return 0


def show_all(found: dict[str, Any]) -> None:
    """Prints a table for each part."""
    if "help" in found:
        rows = [[name, Spread(**value).text(3)] for name, value in found["help"].items()]
        show("Commands, s", ["", "median (range)"], rows)
    if "overhead" in found:
        rows = [
            [
                name.removesuffix("_s").replace("_", " "),
                Spread(**value).text(2) if isinstance(value, dict) else f"{value:,.2f}",
            ]
            for name, value in found["overhead"].items()
            if name != "n"
        ]
        show(f"A study of {found['overhead']['n']} tiny runs, s", ["", "median (range)"], rows)
    if "checkpoint" in found:
        cost = found["checkpoint"]
        rows = [
            ["training waits, s", Spread(**cost["waits_s"]).text(3)],
            ["until it is written, s", Spread(**cost["written_s"]).text(2)],
            ["size, MB", f"{cost['mb']:,.0f}"],
        ]
        show("A checkpoint of a ResNet-50", ["", "median (range)"], rows)
    growth_table("A study's folder, by its runs: s", found.get("runs", []), "runs")
    growth_table("A data set, by its images: s, MB", found.get("images", []), "images")
    growth_table("Looking for copies, by images: s, MB", found.get("copies", []), "images")
    if "memory" in found:
        rows = [
            [str(r["images"]), str(r["epochs"]), f"{r['private_mb']:,.0f}", f"{r['peak_rss_mb']:,.0f}"]
            for r in found["memory"]
        ]
        show("Memory of a training (ResNet-18, 32 px), MB", ["images", "epochs", "private", "peak resident"], rows)


if __name__ == "__main__":
    sys.exit(main())
