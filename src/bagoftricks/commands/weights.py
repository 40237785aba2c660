"""`tricks weights`: published weights by architecture, which of them are here, and fetching one."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_json, new_command
from bagoftricks.errors import UserError

if TYPE_CHECKING:
    from bagoftricks.models.published import Published

WIDE = 120
"""Columns of a terminal from which sources have room."""


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "weights", run, "list published weights by architecture, and fetch them",
        (
            "tricks weights",
            "tricks weights timm:resnet50d.ra2_in1k               # one of them, in full",
            "tricks weights timm:resnet50d.ra2_in1k --download    # into the cache where timm looks, too",
            "tricks train --data photos --model BCD --init timm:resnet50d.ra2_in1k --out trained",
        ),
    )  # fmt: skip
    command.add_argument("name", metavar="NAME", nargs="?", help="published weights; without it, all are listed")
    command.add_argument("--download", action="store_true", help="fetch the file, unless a cache holds it already")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Lists, shows or fetches.

    Raises:
        UserError: for an unknown name, or `--download` without one.
    """
    from bagoftricks.models.published import PUBLISHED, find

    if options.name is None:
        if options.download:
            raise UserError("--download needs a name: tricks weights lists them")
        rows = [_row(item) for item in PUBLISHED.values()]
        if options.json:
            print(json.dumps(rows, indent=2))
        else:
            _print_all(rows)
        return DONE
    item = find(options.name)
    if options.download:
        _fetch(item)
    row = _row(item)
    if options.json:
        print(json.dumps(row, indent=2))
    else:
        _print_one(row)
    return DONE


def _fetch(item: Published) -> None:
    from bagoftricks.models.hub import resolve
    from bagoftricks.progress import DownloadProgress

    with DownloadProgress(item.name) as progress:
        resolve(item.name, progress=progress.on_bytes)


def _row(item: Published) -> dict[str, Any]:
    """Returns what is known of published weights, with the cache and the path where they are, "" where they are not."""
    from bagoftricks.models.hub import cached

    cache, path = cached(item) or ("", "")
    return {**asdict(item), "architecture": item.architecture, "cache": cache, "path": str(path)}


def _print_all(rows: list[dict[str, Any]]) -> None:
    """Prints the table; names stay whole, to be copied, and a narrow terminal gets no sources."""
    from rich.table import Table

    from bagoftricks.terminal import output

    console = output()
    wide = console.width >= WIDE
    table = Table()
    table.add_column("Name", no_wrap=True)
    table.add_column("Trained in", overflow="fold")
    table.add_column("Top-1", justify="right")
    for title in ("Licence", "Cached in", *(("Source",) if wide else ())):
        table.add_column(title, overflow="fold")
    for row in rows:
        cells = (row["name"], row["architecture"], f"{row['top1']:.1f} at {row['size']}", row["licence"])
        table.add_row(*cells, row["cache"] or "-", *((row["source"],) if wide else ()))
    console.print(table)
    if not wide:
        console.print("tricks weights NAME says who trained them")


def _print_one(row: dict[str, Any]) -> None:
    from bagoftricks.console import say

    say(f"{row['name']}: {row['architecture']}, trained by {row['source']}")
    say(f"Licence: {row['licence']}")
    if row["top1"] is not None:
        say(f"ImageNet Top-1: {row['top1']:.2f} %, images of {row['size']} pixels")
    say(f"In the cache of {row['cache']}: {row['path']}" if row["cache"] else "Not here; --download fetches it")
