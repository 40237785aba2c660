"""`tricks models`: the architectures."""

from __future__ import annotations

import argparse
import json
from typing import Any

from bagoftricks.commands import DONE, add_json, new_command


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands,
        "models",
        run,
        "list the architectures with their size and cost",
        ("tricks models", "tricks models --json"),
    )
    command.add_argument("--depth", type=int, default=50, help="18, 34, 50, 101 or 152 [50]")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Lists every combination of tweaks at a depth."""
    from bagoftricks.console import print_models
    from bagoftricks.models.resnet import catalogue

    rows = catalogue(options.depth)
    if options.json:
        print(json.dumps({"models": rows}, indent=2))
    else:
        print_models(rows)
    return DONE
