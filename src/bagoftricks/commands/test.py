"""`tricks test`: the locked test set, once, after choosing."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_json, add_machine, new_command
from bagoftricks.errors import UserError

if TYPE_CHECKING:
    from bagoftricks.studies.confirm import Confirmation


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "test", run, "measure a chosen model on the locked test set, once",
        (
            "tricks test trained --data photos",
            "tricks test study --cell B+c+l --data photos       # a cell whose models were kept (--keep best)",
            "tricks test study --cell best --against A+c+l --data photos   # and by how much it is better (--keep all)",
        ),
    )  # fmt: skip
    command.add_argument("folder", type=Path, help="a run's folder, or the folder of trainings or of a study")
    group = command.add_argument_group("test")
    group.add_argument("--data", required=True, help="what it was trained on, with the test images")
    group.add_argument("--cell", help="of a study: the cell that was chosen; all its seeds are measured")
    group.add_argument("--against", metavar="CELL", help="with --cell: one settled on beforehand, to compare it with")
    group.add_argument("--again", action="store_true", help="measure although the set is spent on others; is recorded")
    add_json(group)
    add_machine(command)


def run(options: argparse.Namespace) -> int:
    """Measures, or shows what was measured before."""
    from bagoftricks.console import note, print_confirmation, print_test
    from bagoftricks.training.final import measure_test
    from bagoftricks.training.hardware import detect

    hardware = detect(options.device, options.precision, deterministic=options.deterministic, kernels="torch")
    result = measure_test(
        options.folder, options.data, cell=options.cell, against=options.against, again=options.again, hardware=hardware
    )
    for card in result.cards:
        note(f"The model card was changed since training and stays as it is; {card} has the measures of the test set")
    found = _confirmed(result.looks, options.cell, options.against) if options.against else None
    if options.json:
        hidden = ("digests", "right")
        looks = [{name: value for name, value in look.items() if name not in hidden} for look in result.looks]
        sides = {"first": options.cell, "second": options.against}
        difference = {"difference": sides | found.to_dict()} if found else {}
        print(json.dumps({"fresh": result.fresh, "looks": looks, **difference}, indent=2))
    else:
        print_test(result)
        if found:
            print_confirmation(found, options.cell, options.against)
    return DONE


def _confirmed(looks: Sequence[Mapping[str, Any]], cell: str, against: str) -> Confirmation:
    """Returns by how much a cell is better than another, over the seeds that both have.

    Raises:
        UserError: if images were measured before single answers were kept.
    """
    from bagoftricks.studies.confirm import confirm

    sides = [{look["seed"]: look for look in looks if look["cell"] == name} for name in (cell, against)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    marks = [[str(side[seed].get("right", "")) for seed in seeds] for side in sides]
    if not all(re.fullmatch(f"[01]{{{len(marks[0][0])}}}", row) and len(row) > 1 for side in marks for row in side):
        raise UserError(f"cells '{cell}' and '{against}': single answers are not on record, as in earlier versions")
    first, second = ([[int(mark) for mark in row] for row in side] for side in marks)
    return confirm(first, second)
