"""`tricks test`: the locked test set, once, after choosing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bagoftricks.commands import DONE, add_json, add_machine, new_command


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "test", run, "measure a chosen model on the locked test set, once",
        (
            "tricks test trained --data photos",
            "tricks test study --cell B+c+l --data photos       # a cell whose models were kept (--keep best)",
        ),
    )  # fmt: skip
    command.add_argument("folder", type=Path, help="a run's folder, or the folder of trainings or of a study")
    group = command.add_argument_group("test")
    group.add_argument("--data", required=True, help="what it was trained on, with the test images")
    group.add_argument("--cell", help="of a study: the cell that was chosen; all its seeds are measured")
    group.add_argument("--again", action="store_true", help="measure although the set is spent on others; is recorded")
    add_json(group)
    add_machine(command)


def run(options: argparse.Namespace) -> int:
    """Measures, or shows what was measured before."""
    from bagoftricks.console import print_test
    from bagoftricks.training.final import measure_test
    from bagoftricks.training.hardware import detect

    hardware = detect(options.device, options.precision, deterministic=options.deterministic, kernels="torch")
    result = measure_test(options.folder, options.data, cell=options.cell, again=options.again, hardware=hardware)
    if options.json:
        looks = [{name: value for name, value in look.items() if name != "digests"} for look in result.looks]
        print(json.dumps({"fresh": result.fresh, "looks": looks}, indent=2))
    else:
        print_test(result)
    return DONE
