"""`tricks show`: the method card of one trick."""

from __future__ import annotations

import argparse
import json
from typing import Any

from bagoftricks.commands import DONE, add_json, new_command


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "show", run, "show a trick's method card", ("tricks show mixup", "tricks show ema --json")
    )
    command.add_argument("trick", metavar="TRICK", help="a name that `tricks list` lists")
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Shows what a trick does, its fields with their defaults, its cost, what it interacts with, and its source."""
    from bagoftricks.catalogue import card
    from bagoftricks.console import print_card

    found = card(options.trick)
    if options.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print_card(found)
    return DONE
