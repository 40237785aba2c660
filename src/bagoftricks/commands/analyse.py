"""`tricks analyse`: effects and verdicts of results that were made elsewhere, from a CSV file."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_json, new_command
from bagoftricks.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from bagoftricks.studies.effects import Analysis, Effect

MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "-"})
"""What stands where a run has no value, in any case."""
STATES = ("status", "state")
"""Columns taken for a run's state where none is named."""


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "analyse", run, "say what helped in results that were made elsewhere, from a CSV file",
        ("tricks analyse results.csv",
         "tricks analyse results.csv --factors mixup smoothing --block seed --metric top1 --margin 0.5",
         "tricks analyse results.csv --metric loss --unit raw --margin 0.01 --lower-is-better"),
    )  # fmt: skip
    command.add_argument("file", type=Path, help="a table with a row for each run: levels of factors, seed, metric")
    command.add_argument("--factors", nargs="+", metavar="COLUMN", help="columns that were varied [all that may be]")
    command.add_argument("--block", default="seed", metavar="COLUMN", help="column of the seed or split [seed]")
    command.add_argument("--metric", default="top1", metavar="COLUMN", help="column of the result [top1]")
    command.add_argument("--status", metavar="COLUMN", help="column that says done or failed [status or state]")
    command.add_argument(
        "--reference", action="append", default=[], metavar="COLUMN=LEVEL",
        help="the level that others are set against [the first in the file]; may be repeated",
    )  # fmt: skip
    command.add_argument(
        "--baseline", action="append", default=[], metavar="COLUMN=LEVEL",
        help="a level of the cell that whole cells are set against [every reference]; may be repeated",
    )  # fmt: skip
    command.add_argument(
        "--margin", type=float, help="a difference below it does not matter: in points [0.5], or in the raw unit"
    )
    command.add_argument("--alpha", type=float, default=0.05, help="bound on the family-wise error [0.05]")
    command.add_argument(
        "--family", default="main+two-way", help="effects declared beforehand: main+two-way, main or all [main+two-way]"
    )
    command.add_argument(
        "--test-train", type=float, default=0.25, metavar="RATIO",
        help="test images over training images, for the interval about new data [0.25]",
    )  # fmt: skip
    command.add_argument("--lower-is-better", action="store_true", help="such as a loss or an error")
    command.add_argument("--percent", action="store_true", help="the metric runs from 0 to 100")
    command.add_argument("--unit", default="points", help="points (of a metric from 0 to 1) or raw (anything) [points]")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Analyses the file and prints what it says."""
    from bagoftricks.studies.csvtable import choose_factors, read_table
    from bagoftricks.studies.effects import analyse

    frame = read_table(options.file)
    if options.metric not in frame.columns:
        raise UserError(f"{options.file}: no column '{options.metric}'; pass --metric with one of {_names(frame)}")
    if options.block not in frame.columns:
        raise UserError(f"{options.file}: no column '{options.block}'; pass --block with one of {_names(frame)}")
    status = options.status or next((name for name in STATES if _is_status(frame, name, options)), None)
    left_out: dict[str, str] = {}
    factors = options.factors
    if factors is None:
        factors, left_out = choose_factors(frame, options.block, [options.metric, *([status] if status else [])])
        if not factors:
            why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or "there is no other column"
            raise UserError(f"{options.file}: no column looks like a factor ({why}); name some with --factors")
    margin = options.margin
    if options.unit == "raw" and margin is None:
        raise UserError("--unit raw: say with --margin how small a difference does not matter, in the metric's unit")
    frame[options.metric] = _numbers(frame, options)
    analysis = analyse(
        frame, factors, options.block, options.metric, higher_is_better=not options.lower_is_better,
        margin=margin if options.unit == "raw" else (0.5 if margin is None else margin) / 100,
        alpha=options.alpha, family=options.family, status=status, unit=options.unit,
        levels={name: [level] for name, level in _levels(frame, factors, options.reference, "--reference").items()},
        baseline=_levels(frame, factors, options.baseline, "--baseline"), titles={name: name for name in factors},
        test_train_ratio=options.test_train,
    )  # fmt: skip
    if options.json:
        chosen = {"file": str(options.file), "factors": factors, "left_out": left_out, "status": status}
        print(json.dumps({**chosen, **analysis.to_dict()}, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(analysis, factors, left_out)
    return DONE


def _names(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame.columns))


def _is_status(frame: pd.DataFrame, name: str, options: argparse.Namespace) -> bool:
    """Whether a column of that name tells done runs from others."""
    from bagoftricks.studies.grid import DONE as FINISHED
    from bagoftricks.studies.grid import FAILED

    if name not in frame.columns or name in (options.factors or ()) or name in (options.metric, options.block):
        return False
    return bool(frame[name].str.lower().isin(FINISHED | FAILED | {"", "running", "left", "missing"}).all())


def _numbers(frame: pd.DataFrame, options: argparse.Namespace) -> list[float]:
    """The metric's column, NaN where a run has none, in [0, 1] unless it is raw."""
    values = []
    for i, text in enumerate(frame[options.metric]):
        try:
            values.append(math.nan if text.lower() in MISSING else float(text))
        except ValueError:
            raise UserError(f"{options.file}, row {i + 1}: {options.metric} = '{text}' is no number") from None
    if options.unit == "raw":
        if options.percent:
            raise UserError("--percent and --unit raw: one or the other")
        return values
    finite = [value for value in values if math.isfinite(value)]
    most = 100 if options.percent else 1
    wrong = next((value for value in finite if not 0 <= value <= most), None)
    if wrong is not None:
        hint = "" if options.percent else "--percent for a metric from 0 to 100, "
        raise UserError(f"{options.file}: {options.metric} holds {wrong:g}; pass {hint}--unit raw for any other")
    if options.percent and 0 < max(finite, default=0) <= 1:
        raise UserError(f"{options.file}: no {options.metric} is above 1, so that it is in no percent: drop --percent")
    return [value / most for value in values]


def _levels(frame: pd.DataFrame, factors: Sequence[str], given: Sequence[str], flag: str) -> dict[str, str]:
    """The level that a flag names, by factor."""
    named = {}
    for text in given:
        name, equals, level = text.partition("=")
        if not equals:
            raise UserError(f"{flag} {text}: must be COLUMN=LEVEL")
        if name not in factors:
            raise unknown(f"factor in {flag}", name, factors)
        if name in frame.columns and level not in set(frame[name]):
            raise unknown(f"level of {name}", level, set(frame[name]))
        named[name] = level
    return named


def _print(analysis: Analysis, factors: Sequence[str], left_out: Mapping[str, str]) -> None:
    """Prints the tables, a sentence for each effect, and what cannot be told."""
    from bagoftricks.console import say
    from bagoftricks.reports.verdicts import cells_sentences, secondary_sentence
    from bagoftricks.studies.effects import sentence

    runs = analysis.runs
    say(f"Factors: {', '.join(factors)}" + "".join(f"; not {name} ({why})" for name, why in left_out.items()))
    say(f"Runs: {runs.expected} expected, {runs.done} done, {runs.failed} failed, {runs.missing} missing")
    for state, names, count in (
        ("Failed", runs.failed_runs, runs.failed),
        ("Missing", runs.missing_runs, runs.missing),
    ):
        if names:
            say(f"{state}: {'; '.join(names[:10])}" + (f"; and {count - 10} more" if count > 10 else ""))
    for declared in (True, False):
        if effects := [effect for effect in analysis.effects if effect.declared == declared]:
            _print_table(effects)
    for effect in analysis.effects:
        say(" ".join([sentence(effect), *(f"[{note}]" for note in effect.notes)]))
    for missing in analysis.not_estimable:
        say(f"Not estimable: {missing.name}: {missing.why}.")
    for text in [*cells_sentences(analysis), *secondary_sentence(analysis)]:
        say(text)
    for note in analysis.notes:
        say(f"Note: {note}.")


def _print_table(effects: Sequence[Effect]) -> None:
    """Prints the effects of one family; names wrap, figures do not."""
    from rich.table import Table
    from rich.text import Text

    from bagoftricks.terminal import output

    settings, declared = effects[0].settings, effects[0].declared
    unit = "points" if settings.unit == "points" else settings.metric
    interval = f"{100 * (1 - settings.alpha):g} % interval"
    table = Table(
        title=Text(f"{'Declared' if declared else 'Exploratory'} effects on {settings.metric}"),
        caption=Text(
            f"p: t test after {effects[0].correction}; flips: sign-flip test and its floor; new data: interval "
            f"for overlapping splits (Nadeau-Bengio); better: share of {settings.block}s, ties half; "
            f"finds: smallest effect that these {settings.block}s find with 80 % power"
        ),
        title_justify="left", caption_justify="left", title_style="bold",
    )  # fmt: skip
    table.add_column("Effect", overflow="fold")
    for column in (unit, interval, "new data", "n", "p", "flips", "d_z", "better", "finds", "Verdict"):
        table.add_column(Text(column), justify="right", no_wrap=True)
    for effect in effects:
        table.add_row(*map(Text, _row(effect)))
    output().print(table)


def _row(effect: Effect) -> list[str]:
    """The figures of one effect, "-" where there are too few blocks."""
    from bagoftricks.studies.verdicts import tag

    def number(value: float | None, text: str) -> str:
        return "-" if value is None else f"{value:{text}}"

    def chance(value: float | None) -> str:
        return "<0.001" if value is not None and value < 0.001 else number(value, ".3f")

    def span(low: float | None, high: float | None, text: str) -> str:
        return "-" if low is None else f"{number(low, text)} to {number(high, text)}"

    size = ".2f" if effect.settings.unit == "points" else ".3g"
    return [
        effect.name,
        number(effect.estimate, f"+{size}"),
        span(effect.low, effect.high, size),
        span(effect.corrected_low, effect.corrected_high, size),
        str(effect.n),
        chance(effect.p_adjusted),
        "-" if effect.sign_flip_p is None else f"{chance(effect.sign_flip_p)} ({effect.sign_flip_floor:.2g})",
        number(effect.d_z, ".2f"),
        "-" if effect.better is None else f"{effect.better:.2f} ({span(effect.better_low, effect.better_high, '.2f')})",
        number(effect.detectable, size),
        tag(effect),
    ]
