"""`tricks status`: the state of a study folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bagoftricks.commands import DONE, add_json, new_command


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "status", run, "show what is done, running, failed and left", ("tricks status study",)
    )
    command.add_argument("folder", type=Path, help="the study's folder")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Shows the state of a study folder."""
    from bagoftricks.console import print_status
    from bagoftricks.reports.results import read_results

    results = read_results(options.folder)
    if options.json:
        print(json.dumps(results.to_dict(), indent=2))
    else:
        print_status(results)
    return DONE
