"""`tricks list`: the tricks in the bag."""

from __future__ import annotations

import argparse
import json
from typing import Any

from bagoftricks.commands import DONE, add_json, new_command


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "list", run, "list the tricks, with what each does and costs", ("tricks list", "tricks list --json")
    )
    add_json(command)


def run(options: argparse.Namespace) -> int:
    """Lists every trick; the JSON has all of each card."""
    from bagoftricks.catalogue import cards
    from bagoftricks.console import print_tricks

    found = list(cards().values())
    if options.json:
        print(json.dumps({"tricks": [card.to_dict() for card in found]}, indent=2))
    else:
        print_tricks(found)
    return DONE
