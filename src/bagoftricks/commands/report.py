"""`tricks report`: a study's report, from its folder alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bagoftricks.commands import DONE, add_json, new_command


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "report", run, "write a study's report: HTML, tables, charts",
        ("tricks report study", "tricks report study --out for-a-colleague"),
    )  # fmt: skip
    command.add_argument("folder", type=Path, help="the study's folder, or a copy of it")
    command.add_argument("--out", type=Path, help="where to write [FOLDER/report]")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Writes the report from the study folder alone."""
    from bagoftricks.console import print_cells, say
    from bagoftricks.reports.analysis import to_json
    from bagoftricks.reports.report import write_report
    from bagoftricks.reports.results import read_results

    results = read_results(options.folder)
    page = write_report(options.folder, options.out, results=results)
    if options.json:
        print(json.dumps({**to_json(results), "report": str(page)}, indent=2))
    else:
        print_cells(results)
        say(f"Report: {page}")
    return DONE
