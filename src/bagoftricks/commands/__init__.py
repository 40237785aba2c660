"""One command of `tricks` a file: its flags, then what calls the API and prints. No logic.

A command's file has `add(commands)`; `COMMANDS` lists them in the order of the help.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from bagoftricks.flags import Parser

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: done, failed while running, a wrong request, interrupted."""
COMMANDS = (
    "study",
    "plan",
    "status",
    "report",
    "train",
    "lr_find",
    "adapt",
    "weights",
    "test",
    "compare",
    "analyse",
    "predict",
    "evaluate",
    "export",
    "serve",
    "data",
    "models",
    "list",
    "show",
    "bench",
    "completion",
)
"""Modules of this folder."""
WITH_RECIPE = ("study", "plan", "train", "lr-find")
"""The commands that have the recipe's flags."""
STUDIES = "best, he2019, paper, quickstart, strikes-back, weights, or a TOML file"
"""What a study is named by."""


def new_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str, examples: Sequence[str]
) -> Parser:
    """Returns the parser of a new command, which shows examples in its help and calls `run`."""
    text = "examples:\n" + "\n".join(f"  {example}" for example in examples)
    command: Parser = commands.add_parser(
        name, help=about, description=about, epilog=text, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.set_defaults(command=run)
    return command


def add_base(command: Any) -> None:
    """Adds `--recipe`, which `studies.study_file.load_recipe` reads."""
    text = "a TOML file, or a preset whose recipe it is, as best; flags below override its fields"
    command.add_argument("--recipe", metavar="FILE", help=text)


def add_json(command: Any) -> None:
    """Adds `--json`."""
    command.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def add_log(command: Any) -> None:
    """Adds `--log`."""
    about = "also log to tensorboard, mlflow or wandb (offline), below logs/ of the folder; each an extra to install"
    command.add_argument("--log", nargs="+", default=[], metavar="TOOL", help=about)


def add_corrupt(command: Any) -> None:
    """Adds `--allow-corrupt`."""
    about = "leave out up to this share of images that cannot be used [0.1]"
    command.add_argument("--allow-corrupt", type=float, default=0.1, metavar="SHARE", help=about)


def add_machine(command: Parser, *, trains: bool = False) -> None:
    """Adds the flags that choose where to compute, and for a command that trains by which kernels."""
    group = command.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto (the fastest there is), cpu, cuda or mps")
    group.add_argument("--precision", default="auto", help="auto (bf16 where there are units for it), fp32 or bf16")
    about = "the same bits each time on a GPU too, which is slower; a CPU does so anyway"
    group.add_argument("--deterministic", action="store_true", help=about)
    if trains:
        about = "auto (this project's own, where they can be had), torch or native (bf16 on x86 CPUs)"
        group.add_argument("--kernels", default="auto", help=about)
