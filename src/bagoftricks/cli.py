"""`tricks …`: parse, call the API, print. No logic."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bagoftricks import __version__
from bagoftricks.errors import RunError, UserError
from bagoftricks.flags import Parser, add_recipe, recipe_changes

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 a wrong request, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    try:
        options = parser(arguments).parse_args([a for a in arguments if a != "--debug"])
        with _terminating_as_interrupt():
            status = int(options.command(options))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _say_error("interrupted; what is finished is kept")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if debug:
            raise
        if isinstance(error, UserError | RunError | OSError):
            _say_error(str(error))
        else:
            _say_error(f"unexpected {type(error).__name__}: {error}; --debug shows where")
        return WRONG if isinstance(error, UserError) else FAILED


@contextmanager
def _terminating_as_interrupt() -> Iterator[None]:
    """Treats SIGTERM like Ctrl-C, so that processes at work are ended and the terminal is left in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_error(text: str) -> None:
    print(f"tricks: {_one_line(text)}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def parser(arguments: Sequence[str] = ()) -> Parser:
    """The whole command line; the recipe's flags are added only to the command that `arguments` name, for speed."""
    root = Parser(prog="tricks", description="Which training tricks actually help on your images?", allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"bagoftricks {__version__}")
    root.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for add in (_study, _status, _report, _train, _models):
        add(commands)
    named = next((a for a in arguments if not a.startswith("-")), None)
    if named in ("study", "train"):
        add_recipe(commands.choices[named])
    return root


def _command(commands: Any, name: str, run: Any, about: str, examples: Sequence[str]) -> Parser:
    text = "examples:\n" + "\n".join(f"  {example}" for example in examples)
    command: Parser = commands.add_parser(
        name, help=about, description=about, epilog=text, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.set_defaults(command=run)
    return command


def _add_machine(command: Parser) -> None:
    group = command.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto (the fastest there is), cpu, cuda or mps")
    group.add_argument("--precision", default="auto", help="auto (bf16 where there are units for it), fp32 or bf16")


# study


def _study(commands: Any) -> None:
    command = _command(
        commands, "study", study, "run a study: what is missing, nothing twice; then write its report",
        (
            "tricks study                                   # the embedded quickstart, on handwritten digits",
            "tricks study paper --data caltech-101 --init resnet50.safetensors --seeds 5 --out study",
            "tricks study mine.toml --data photos --epochs 20 --dry-run",
        ),
    )  # fmt: skip
    command.add_argument("study", nargs="?", default="quickstart", help="paper, he2019, quickstart, or a TOML file")
    group = command.add_argument_group("study")
    group.add_argument("--data", help="a folder of images, Caltech-101, or 'digits'; by default what the study names")
    group.add_argument("--seeds", type=int, help="how many blocks; each is a split, an initialisation and an order")
    group.add_argument("--out", type=Path, help="the study's folder; the same one continues it [study-NAME]")
    group.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared among them [1]")
    group.add_argument("--keep", choices=("none", "all"), default="none", help="whose weights are kept [none]")
    group.add_argument("--dry-run", action="store_true", help="say what would be run and what it costs; write nothing")
    group.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    _add_machine(command)


def study(options: argparse.Namespace) -> int:
    """Plans, states the cost, runs what is missing, reports."""
    from bagoftricks.console import StudyProgress, print_cells, print_plan, say
    from bagoftricks.reports.report import write_report
    from bagoftricks.reports.results import read_results
    from bagoftricks.studies.cost import estimate
    from bagoftricks.studies.design import load_study
    from bagoftricks.studies.run import execute_plan, plan_study

    chosen = load_study(options.study).adapted(recipe_changes(options), options.seeds)
    out = options.out or Path(f"study-{chosen.name}")
    plan = plan_study(
        chosen, options.data, out=out, jobs=options.jobs, device=options.device, precision=options.precision
    )
    cost = estimate(plan, out, keep_models=options.keep == "all")
    if options.dry_run and options.json:
        print(json.dumps({**plan.to_dict(), "cost": cost.to_dict()}, indent=2))
        return DONE
    print_plan(plan, cost, out)
    if options.dry_run:
        return DONE
    with StudyProgress(plan.missing(out)) as progress:
        execute_plan(
            plan, out, keep_models=options.keep == "all", on_event=progress.on_event, on_image=progress.on_image
        )
    results = read_results(out)
    page = write_report(out) if results.done else None
    if options.json:
        print(json.dumps({**results.to_dict(), "report": str(page) if page else None}, indent=2))
    else:
        print_cells(results)
        say(f"Report: {page}" if page else "No run was done; nothing to report.")
    asked = {run.id for run in plan.runs}
    return DONE if all(run.state == "done" for run in results.runs if run.id in asked) else FAILED


# status


def _status(commands: Any) -> None:
    command = _command(
        commands, "status", status, "show what is done, running, failed and left", ("tricks status study",)
    )
    command.add_argument("folder", type=Path, help="the study's folder")
    command.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def status(options: argparse.Namespace) -> int:
    """Shows the state of a study folder."""
    from bagoftricks.console import print_status
    from bagoftricks.reports.results import read_results

    results = read_results(options.folder)
    if options.json:
        print(json.dumps(results.to_dict(), indent=2))
    else:
        print_status(results)
    return DONE


# report


def _report(commands: Any) -> None:
    command = _command(
        commands, "report", report, "write a study's report: HTML, tables, charts",
        ("tricks report study", "tricks report study --out for-a-colleague"),
    )  # fmt: skip
    command.add_argument("folder", type=Path, help="the study's folder, or a copy of it")
    command.add_argument("--out", type=Path, help="where to write [FOLDER/report]")
    command.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def report(options: argparse.Namespace) -> int:
    """Writes the report from the study folder alone."""
    from bagoftricks.console import print_cells, say
    from bagoftricks.reports.report import write_report
    from bagoftricks.reports.results import read_results

    page = write_report(options.folder, options.out)
    results = read_results(options.folder)
    if options.json:
        print(json.dumps({**results.to_dict(), "report": str(page)}, indent=2))
    else:
        print_cells(results)
        say(f"Report: {page}")
    return DONE


# train


def _train(commands: Any) -> None:
    command = _command(
        commands, "train", train, "train one recipe once and keep the model",
        (
            "tricks train --data photos --init resnet50.safetensors --epochs 5",
            "tricks train --data photos --recipe recipe.toml --mixup.alpha 0.2 --seed 1",
        ),
    )  # fmt: skip
    group = command.add_argument_group("training")
    group.add_argument("--data", required=True, help="a folder of images, Caltech-101, or 'digits'")
    group.add_argument("--recipe", type=Path, help="a TOML file; flags below override its fields")
    group.add_argument("--seed", type=int, default=0, help="of split, initial weights, order and augmentation [0]")
    group.add_argument("--out", type=Path, default=Path("trained"), help="folder for the run [trained]")
    group.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    _add_machine(command)


def train(options: argparse.Namespace) -> int:
    """Trains once."""
    from bagoftricks.console import TrainProgress, print_result
    from bagoftricks.recipe import Recipe
    from bagoftricks.training.fit import Listener
    from bagoftricks.training.hardware import detect
    from bagoftricks.training.train import train as train_once

    recipe = (Recipe.load(options.recipe) if options.recipe else Recipe()).with_fields(recipe_changes(options))
    hardware = detect(options.device, options.precision)
    with TrainProgress(recipe.epochs) as progress:
        listener = Listener(progress.on_image, progress.on_weights, progress.on_step, progress.on_epoch)
        result = train_once(
            recipe, options.data, seed=options.seed, out=options.out, hardware=hardware, listener=listener
        )
    if options.json:
        print(
            json.dumps(
                {"id": result.id, "folder": str(result.folder), **result.measures, "history": result.history}, indent=2
            )
        )
    else:
        print_result(result)
    return DONE


# models


def _models(commands: Any) -> None:
    command = _command(
        commands,
        "models",
        models,
        "list the architectures with their size and cost",
        ("tricks models", "tricks models --json"),
    )
    command.add_argument("--depth", type=int, default=50, help="18, 34, 50, 101 or 152 [50]")
    command.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def models(options: argparse.Namespace) -> int:
    """Lists every combination of tweaks at a depth."""
    from bagoftricks.console import print_models
    from bagoftricks.models.resnet import catalogue

    rows = catalogue(options.depth)
    if options.json:
        print(json.dumps({"models": rows}, indent=2))
    else:
        print_models(rows)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
