"""What a study folder holds beside its runs: plan, data check, layers, worst mistakes, looks at the test set.

The whole layout is in `store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bagoftricks.data import untrusted
from bagoftricks.errors import RunError, UserError, first_line
from bagoftricks.files import locked, write_json
from bagoftricks.store import BusyError, Store, read_object

TEST = "test.json"


def read_plan(root: Path) -> dict[str, Any]:
    """Returns the plan of a study folder.

    Raises:
        UserError: if there is none, or it is of a later version.
    """
    path = Store(root).plan
    if not path.is_file():
        raise UserError(f"study folder {root}: no {path.name} in it; is it the folder given as --out?")
    plan = read_object(path)
    schema = plan.get("schema", 0)
    if isinstance(schema, int) and schema > Store.SCHEMA:
        raise UserError(f"study folder {root}: written by a later version; upgrade bagoftricks")
    if missing := {"study", "data", "hardware", "cells", "runs"} - set(plan):
        raise UserError(f"{path}: damaged, lacks {', '.join(sorted(missing))}")
    try:
        for run in untrusted.conform(plan["runs"], [{"id": str, "cell": str, "seed": int}], "runs"):
            untrusted.check_id(run["id"])
    except ValueError as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); remove it, and run the study again") from error
    return plan


def read_data_check(root: Path) -> dict[str, Any] | None:
    """Returns what the data check found when the study ran; None for a study of an earlier version."""
    path = Store(root).data_check
    return read_object(path) if path.is_file() else None


def read_mistakes(root: Path) -> dict[str, Any] | None:
    """Returns the worst mistakes of a study's best cell; None where none were kept. See `studies.mistakes`."""
    path = Store(root).mistakes
    return read_object(path) if path.is_file() else None


def read_test(root: Path) -> list[dict[str, Any]]:
    """Returns every measurement on a locked test set, oldest first; see `spending`."""
    path = root / TEST
    return list(read_object(path).get("looks", [])) if path.is_file() else []


@contextmanager
def spending(root: Path) -> Iterator[tuple[list[dict[str, Any]], Callable[[list[dict[str, Any]]], None]]]:
    """Yields the measurements on test images so far, and what keeps further ones: at once, whatever happens next.

    Raises:
        BusyError: if another process is measuring.
    """
    with locked(Store(root).locks / "test") as taken:
        if not taken:
            raise BusyError(f"{root}: another process is measuring on the test set")
        looks = read_test(root)

        def record(new: list[dict[str, Any]]) -> None:
            write_json(root / TEST, {"looks": looks + new})

        yield looks, record


def read_structures(root: Path) -> list[dict[str, Any]]:
    """Returns the layers of each architecture of a study, by name."""
    return [read_object(path) for path in sorted(Store(root).structures.glob("*.json"))]
