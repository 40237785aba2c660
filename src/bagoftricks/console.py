"""What commands print: tables on standard output, progress on standard error, plain where that is no terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from bagoftricks.reports.results import STATES, Results
from bagoftricks.reports.tables import all_tables

if TYPE_CHECKING:
    from bagoftricks.studies.cost import Cost
    from bagoftricks.studies.engine import Event
    from bagoftricks.studies.run import Plan
    from bagoftricks.training.train import Result

IMAGES_BETWEEN_LINES = 5_000


def _out() -> Console:
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, width=160)


def _err() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints a line of result."""
    _out().print(Text(text))


def duration(seconds: float) -> str:
    """Returns a time for people: "45 s", "12 min", "3.4 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def size(count: float) -> str:
    """Returns bytes for people: "12 MB", "3.4 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def print_plan(plan: Plan, cost: Cost, out: Path) -> None:
    """Says what a study is and what it will cost, on standard error."""
    study, data = plan.study, plan.index
    console = _err()
    blocks = f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}"
    console.print(Text(f"Study {study.name}: {len(study.cells)} cells x {blocks} = {len(plan.runs)} runs, in {out}"))
    console.print(Text(f"Data: {data.name}, {len(data):,} images in {data.num_classes} classes"))
    hardware = plan.hardware
    where = f"{hardware.device}, {hardware.precision}, {plan.jobs} at a time with {hardware.threads} threads each"
    console.print(Text(f"Machine: {where}"))
    if cost.runs:
        console.print(
            Text(
                f"Cost: {cost.runs} runs to do, about {duration(cost.seconds)} "
                f"({cost.images:,} training images at {cost.images_per_s:.0f}/s a run, measured now), "
                f"{size(cost.disk_bytes)} of disk"
            )
        )
    else:
        console.print(Text("Cost: nothing to do, every run is done"))


class StudyProgress:
    """Shows a study at work: a line for each epoch and each finished run, with images per second and time left."""

    def __init__(self, plan: Plan, cost: Cost) -> None:
        self.console = _err()
        self.total, self.finished = cost.runs, 0
        self.epochs = {run.id: run.cell.recipe.epochs for run in plan.runs}
        self.started = time.monotonic()
        self.done_epochs, self.all_epochs = 0, 0
        self.all_epochs = sum(self.epochs[run.id] for run in plan.runs) * cost.runs // max(1, len(plan.runs))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is KeyboardInterrupt:
            self.console.print(Text(f"{self.finished} of {self.total} runs finished"))

    def on_image(self, done: int) -> None:
        """Says how many images are decoded, now and then."""
        if done % IMAGES_BETWEEN_LINES == 0:
            self.console.print(Text(f"decoded {done:,} images"))

    def on_event(self, event: Event) -> None:
        """Prints a line for an epoch, a finished or a failed run."""
        name = event.task.name
        if event.kind == "epoch":
            self.done_epochs += 1
            row = event.row
            left = (time.monotonic() - self.started) / self.done_epochs * (self.all_epochs - self.done_epochs)
            self.console.print(
                Text(
                    f"  {name}: epoch {row['epoch']} of {self.epochs[event.task.id]}, {measures(row, 'eval_')}, "
                    f"{row['images_per_s']:.0f} images/s, {duration(max(0, left))} left in all"
                ),
                style="dim",
            )
        elif event.kind in ("done", "failed"):
            self.finished += 1
            what = f"done in {duration(event.seconds)}" if event.kind == "done" else f"FAILED: {event.error}"
            self.console.print(Text(f"[{self.finished}/{self.total}] {name}: {what}"))


class TrainProgress:
    """Shows one training: a bar on a terminal, a line an epoch."""

    def __init__(self, epochs: int) -> None:
        self.console = _err()
        self.epochs = epochs
        self.started = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]} left"))
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("training", total=None, left="?")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def on_weights(self, summary: str, warning: str) -> None:
        """Says what became of the initial weights."""
        self.console.print(Text(f"Initial weights: {summary}"))
        if warning:
            self.console.print(Text(f"Warning: {warning}"))

    def on_step(self, done: int, total: int) -> None:
        """Moves the bar."""
        elapsed = time.monotonic() - self.started
        self.bar.update(self.task, completed=done, total=total, left=duration(elapsed / done * (total - done)))

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Prints an epoch's measures."""
        left = (row["train_s"] + row["eval_s"]) * (self.epochs - row["epoch"])
        self.console.print(
            Text(
                f"epoch {row['epoch']} of {self.epochs}: train loss {row['train_loss']:.3f}, {measures(row, 'eval_')}, "
                f"{row['images_per_s']:.0f} images/s, {duration(left)} left"
            )
        )


def measures(row: Mapping[str, float], prefix: str = "") -> str:
    """Returns the measures that there are, in one line: "Top-1 0.912, Top-5 0.988, …"."""
    names = {"top1": "Top-1", "top5": "Top-5", "mean_class_acc": "per class", "loss": "loss"}
    return ", ".join(f"{text} {row[prefix + name]:.3f}" for name, text in names.items() if prefix + name in row)


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _out().print(table)


def print_cells(results: Results) -> None:
    """Prints every table of the report, and what must be known about the initial weights."""
    for table in all_tables(results):
        _print_table(table.title, table.columns, [[entry.text for entry in row] for row in table.rows])
    for warning in results.warnings():
        say(f"Note on initial weights, {warning}")
    for run in results.runs:
        if run.state == "failed":
            say(f"Failed: {run.cell} seed {run.seed}: {run.error}")


def print_status(results: Results) -> None:
    """Prints the state of every cell, what is running and what failed."""
    rows = [[cell, *(str(results.counts(cell)[state]) for state in STATES)] for cell in results.cells]
    total = results.counts()
    rows.append(["all", *(str(total[state]) for state in STATES)])
    _print_table(f"Study {results.plan['study']['name']}", ("Cell", *STATES), rows)
    for run in results.runs:
        if run.state == "running":
            last = (
                f": epoch {run.history[-1]['epoch']} done, {measures(run.history[-1], 'eval_')}" if run.history else ""
            )
            say(f"Running: {run.cell} seed {run.seed}{last}")
        elif run.state == "failed":
            say(f"Failed: {run.cell} seed {run.seed}: {run.error}")


def print_result(result: Result) -> None:
    """Prints what one training gave and where it is kept."""
    say(f"{measures(result.measures)}")
    say(f"Kept in {result.folder}")


def print_models(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the architectures."""
    _print_table(
        "Architectures",
        ("Name", "Tweaks", "Parameters (M)", "Multiply-adds at 224 (G)"),
        [[r["name"], r["tweaks"], f"{r['parameters'] / 1e6:.2f}", f"{r['multiply_adds'] / 1e9:.2f}"] for r in rows],
    )
