"""`tricks models`: the architectures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bagoftricks.commands import DONE, add_json, new_command


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands,
        "models",
        run,
        "list the architectures with their size and cost",
        ("tricks models", "tricks models --json", "tricks models --draw diagrams     # SVG and PNG of each"),
    )
    command.add_argument("--depth", type=int, default=50, help="10, 18, 34, 50, 101 or 152 [50]")
    command.add_argument("--draw", type=Path, metavar="FOLDER", help="draw each architecture, and A, B, C, D beside")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Lists every combination of tweaks at a depth."""
    from bagoftricks.console import note, print_models
    from bagoftricks.models.build import catalogue
    from bagoftricks.reports.diagrams import write_diagrams

    rows = catalogue(options.depth)
    if options.draw:
        for path in write_diagrams(options.draw, options.depth):
            note(f"wrote {path}")
    if options.json:
        print(json.dumps({"models": rows}, indent=2))
    else:
        print_models(rows)
    return DONE
