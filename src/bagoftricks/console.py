"""What commands print: tables and sentences on standard output, notes on standard error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from bagoftricks.data.names import shown
from bagoftricks.reports.results import STATES, Results
from bagoftricks.reports.tables import all_tables
from bagoftricks.reports.verdicts import cells_sentences, effects_table, sentences
from bagoftricks.studies.effects import SEEDS_FOR_VERDICT
from bagoftricks.terminal import error_console, output

if TYPE_CHECKING:
    from bagoftricks.catalogue import Card
    from bagoftricks.studies.confirm import Confirmation
    from bagoftricks.studies.cost import Cost
    from bagoftricks.studies.effects import Analysis
    from bagoftricks.studies.plan import Plan
    from bagoftricks.training.adapt import Adaptation
    from bagoftricks.training.final import TestResult
    from bagoftricks.training.lr_find import LrCurve
    from bagoftricks.training.train import Result

IMAGES_BETWEEN_LINES = 5_000


def say(text: str) -> None:
    """Prints a line of result."""
    output().print(Text(shown(text)), soft_wrap=True)


def note(text: str) -> None:
    """Prints a line beside the result, on standard error."""
    error_console().print(Text(shown(text)))


def say_hashed(done: int) -> None:
    """Says how many images were looked at, now and then."""
    if done % IMAGES_BETWEEN_LINES == 0:
        note(f"looked at {done:,} images, for faults and copies")


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
    console = error_console()
    blocks, runs = _counted(len(study.seeds), "seed"), _counted(len(plan.runs), "run")
    console.print(Text(f"Study {study.name}: {_counted(len(study.cells), 'cell')} x {blocks} = {runs}, in {out}"))
    console.print(Text(f"Cells: {shown(', '.join(cell.name for cell in study.cells))}"))
    console.print(Text(f"Data: {shown(data.name)}, {len(data):,} images in {data.num_classes} classes"))
    if locked := data.on_side("test").size or study.recipe.split.test_fraction:
        what = f"{locked} images" if isinstance(locked, int) else f"{locked:.0%} of each class"
        console.print(Text(f"Test set: {what}, locked; tricks test measures it once, after choosing"))
    if leaking := {seed: pairs for seed, pairs in plan.leaks.items() if pairs}:
        each = ", ".join(f"{pairs} (seed {seed})" for seed, pairs in list(leaking.items())[:5])
        console.print(
            Text(
                f"Copies: of {each}{', …' if len(leaking) > 5 else ''} pairs of near-equal images one is trained on "
                "and the other validates; --split.duplicates together keeps them on one side"
            )
        )
    hardware = plan.hardware
    kernels = ", native kernels" if hardware.kernels == "native" else ""
    where = f"{hardware.device}, {hardware.precision}{kernels}"
    where += f", runs at a time: {plan.jobs}, threads of each: {hardware.threads}"
    console.print(Text(f"Machine: {where}"))
    if cost.runs:
        console.print(
            Text(
                f"Cost: {_counted(cost.runs, 'run')} to do, about {duration(cost.seconds)} "
                f"({cost.images:,} training images at {cost.images_per_s:.0f}/s a run, measured now), "
                f"{size(cost.disk_bytes)} of disk{_kept(cost)}, {size(cost.memory_bytes)} of memory a run"
            )
        )
    else:
        console.print(Text("Cost: nothing to do, every run is done"))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _kept(cost: Cost) -> str:
    """Says how much of the disk stays taken by models."""
    return f" (models that stay: {size(cost.kept_bytes)})" if cost.kept_bytes else ""


def measures(row: Mapping[str, float], prefix: str = "") -> str:
    """Returns the measures that there are, in one line: "Top-1 0.912, Top-5 0.988, …"."""
    names = {"top1": "Top-1", "top5": "Top-5", "mean_class_acc": "per class", "macro_f1": "F1", "loss": "loss"}
    return ", ".join(f"{text} {row[prefix + name]:.3f}" for name, text in names.items() if prefix + name in row)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Prints a table: the first column names the rows and wraps, the others are figures in one line."""
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    # beside the table, not in it: there they would wrap at its width
    output().print(Text(shown(title), style="bold"), soft_wrap=True)
    output().print(table)
    if caption:
        output().print(Text(caption, style="italic"), soft_wrap=True)


def print_cells(results: Results) -> None:
    """Prints every table of the report, and what must be known about them."""
    for table in all_tables(results):
        print_table(table.title, table.columns, [[entry.text for entry in row] for row in table.rows])
    if analysis := results.analysis:
        print_verdicts(analysis)
    for what, warning in results.warnings():
        say(f"Note on {what.lower()}, {warning}")
    for run in results.runs:
        if run.state == "failed":
            say(f"Failed: {run.cell} seed {run.seed}: {run.error}")


def print_verdicts(analysis: Analysis) -> None:
    """Prints every effect with its interval and verdict, and a sentence for each; with one seed, why there is none."""
    if not analysis.effects:
        for text in cells_sentences(analysis):
            say(text)
        say("The cells differ in several factors at once: what each of these does, this design does not tell.")
        return
    if (most := max(effect.n for effect in analysis.effects)) < 2:
        why = "one seed tells nothing of luck" if most else "no seed has both of the runs that an effect compares"
        say(f"Verdicts are withheld: {why}; {SEEDS_FOR_VERDICT} are needed.")
        return
    table = effects_table(analysis)
    print_table(table.title, table.columns, [[entry.text for entry in row] for row in table.rows])
    for text in (*sentences(analysis), *(f"Note: {note}." for note in analysis.notes)):
        say(text)


def print_status(results: Results) -> None:
    """Prints the state of every cell, what is running and what failed."""
    rows = [[cell, *(str(results.counts(cell)[state]) for state in STATES)] for cell in results.cells]
    total = results.counts()
    rows.append(["all", *(str(total[state]) for state in STATES)])
    print_table(f"Study {results.plan['study']['name']}", ("Cell", *STATES), rows)
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
    say(f"Kept in {result.folder}" + ("" if result.model else ", without its model: another --out trains it again"))


def print_test(result: TestResult) -> None:
    """Prints what a cell's models say of the locked test set, and that it is spent now."""
    for look in result.looks:
        low, high = look["top1_interval"]
        say(f"{look['run']}: {measures(look)}")
        say(f"  Top-1, 95 % interval: {low:.3f} to {high:.3f}, over {look['images']:,} images")
    first = result.looks[0]
    say(
        f"Test set spent {first['when']}; what is chosen from here on needs another."
        if result.fresh
        else f"Measured before, {first['when']}; nothing was measured again."
    )


def print_confirmation(found: Confirmation, cell: str, against: str) -> None:
    """Prints by how much a chosen cell is better than another on the locked test set."""
    low, high, mean = (100 * value for value in (found.low, found.high, found.difference))
    seeds = f"{found.seeds} seeds" if found.seeds > 1 else "one seed: of these two models, not of the recipes"
    say(
        f"{cell} minus {against}: {mean:+.1f} points of Top-1 (95 % interval {low:+.1f} to {high:+.1f}; "
        f"{found.images:,} images, {seeds})"
    )


def print_adaptation(result: Adaptation) -> None:
    """Prints how far each stage's output is from the source network's, before and after."""
    rows = [(stage, f"{result.before[stage]:.3f}", f"{after:.3f}") for stage, after in result.after.items()]
    caption = "Share of the variance of the source network's outputs that is not reproduced: 0 is equal."
    print_table(f"Architecture {result.source} carried over to {result.target}", ("", "before", "after"), rows, caption)


def print_models(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the architectures."""
    print_table(
        "Architectures",
        ("Name", "Tweaks", "Parameters (M)", "Multiply-adds at 224 (G)"),
        [[r["name"], r["tweaks"], f"{r['parameters'] / 1e6:.2f}", f"{r['multiply_adds'] / 1e9:.2f}"] for r in rows],
    )


def print_lr(curve: LrCurve, used: float) -> None:
    """Prints what the learning-rate finder suggests."""
    ended = f"until it broke at {curve.lrs[-1]:.2g}" if curve.broke else f"up to {curve.lrs[-1]:.2g}; it did not break"
    say(f"Suggested: {curve.suggestion:.2g} (in the midst of the loss's longest fall); the recipe has {used:.2g}")
    say(f"Steepest fall: {curve.steepest:.2g}; {len(curve.lrs)} steps from {curve.lrs[0]:.2g} {ended}")


def print_tricks(cards: Sequence[Card]) -> None:
    """Prints the bag: what each trick does, costs and interacts with, its source, and whether it is on by default."""
    table = Table(show_lines=True)
    for column, share in (
        ("Trick", 6),
        ("What it does", 11),
        ("Cost", 8),
        ("Interacts", 10),
        ("Source", 8),
        ("Default", 3),
    ):
        table.add_column(column, ratio=share, overflow="fold")
    for card in cards:
        source = re.match(r".*?arXiv:\d+\.\d+", card.source)
        texts = (
            card.cost.partition(". ")[0],
            card.interacts.partition(". ")[0],
            source[0] if source else card.source.partition("; ")[0],
        )
        default = "on" if card.on_by_default else "off"
        cells = (card.name, card.summary, *(text.rstrip(".") for text in texts), default)
        table.add_row(*(Text(cell) for cell in cells))
    output().print(table)
    output().print(
        Text("tricks show NAME: the whole of a trick's card, with its fields and their defaults", style="italic")
    )


def print_card(card: Card) -> None:
    """Prints one method card."""
    from bagoftricks.recipe import field_help

    output().print(Text(card.title, style="bold"))
    if card.about:
        output().print(Text(f"\n{card.about}"))
    for label, text in (("Cost", card.cost), ("Interacts", card.interacts), ("Source", card.source)):
        if text:
            output().print(Text.assemble("\n", (f"{label}: ", "bold"), text))
    for name, default in card.fields.items():
        shown_default = str(default).lower() if isinstance(default, bool) else default
        output().print(Text.assemble("\n", (f"{name} = {shown_default}", "bold"), f"\n{field_help()[name]}"))
