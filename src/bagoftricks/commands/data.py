"""`tricks data …`: what is done with data sets before training."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from bagoftricks.commands import DONE, add_json, new_command
from bagoftricks.errors import UserError, unknown
from bagoftricks.flags import Parser


def add(commands: Any) -> None:
    """Adds the command and those below it."""
    about = "look at a data set before training on it"
    command = commands.add_parser("data", help=about, description=about, allow_abbrev=False)
    below = command.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    _add_check(below)
    _add_fetch(below)


def _add_check(commands: Any) -> None:
    command = new_command(
        commands, "check", check, "find broken images, copies, uneven classes and other faults",
        (
            "tricks data check photos",
            "tricks data check photos --out check --grid cat dog    # with sample images and a chart",
        ),
    )  # fmt: skip
    command.add_argument("data", metavar="DIR", help="a folder of images, a CSV manifest, or digits")
    command.add_argument("--out", type=Path, help="folder for check.json, samples.jpg and balance.svg")
    command.add_argument("--grid", nargs="+", default=[], metavar="CLASS", help="with --out: samples of these classes")
    add_json(command)


def _add_fetch(commands: Any) -> None:
    command = new_command(
        commands, "fetch", fetch, "download Caltech-101 from its official record, checked",
        ("tricks data fetch caltech-101 data", "tricks data check data"),
    )  # fmt: skip
    command.add_argument("name", choices=("caltech-101",), metavar="NAME", help="caltech-101 (137 MB, CC BY 4.0)")
    command.add_argument("folder", type=Path, help="where to put it; what is there already is not fetched again")
    command.add_argument("--keep-archive", action="store_true", help="keep the downloaded zip beside the images")
    add_json(command)


def fetch(options: argparse.Namespace) -> int:
    """Downloads a data set."""
    from bagoftricks.console import say
    from bagoftricks.data.fetch import fetch_caltech101
    from bagoftricks.progress import DownloadProgress

    with DownloadProgress(options.name) as progress:
        folder = fetch_caltech101(
            options.folder, on_bytes=progress.on_bytes, on_file=progress.on_file, keep_archive=options.keep_archive
        )
    if options.json:
        print(json.dumps({"name": options.name, "folder": str(folder)}))
    else:
        say(f"Caltech-101 is in {folder}")
    return DONE


def check(options: argparse.Namespace) -> int:
    """Checks a data set and says what was found."""
    from bagoftricks.console import say, say_hashed
    from bagoftricks.data.check import check as check_data
    from bagoftricks.data.sources import open_data
    from bagoftricks.files import cache_folder, check_output
    from bagoftricks.reports.datacheck import tables, write_check

    if options.grid and options.out is None:
        raise UserError("--grid needs a place for its pictures: pass --out with a folder")
    index = open_data(options.data)
    for name in options.grid:
        if name not in index.classes:
            raise unknown("class", name, index.classes)
    if options.out is not None:
        check_output(options.out, index.folders)
    found = check_data(index, workers=os.cpu_count() or 1, progress=say_hashed, cache=cache_folder() / "hashes")
    written = [] if options.out is None else write_check(found, index, options.out, options.grid)
    if options.json:
        print(json.dumps({**found.to_dict(), "written": [str(path) for path in written]}, indent=2))
        return DONE
    say(f"{found.name}: {found.images:,} images in {len(found.counts)} classes")
    for number, finding in enumerate(found.findings or ("Nothing is wrong with it that this check knows.",), 1):
        say(f"{number}. {finding}" if found.findings else finding)
    _print(tables(found))
    for path in written:
        say(f"Written: {path}")
    return DONE


def _print(found: list[Any]) -> None:
    from bagoftricks.terminal import output

    console = output()
    for table in found:
        console.print(table)
