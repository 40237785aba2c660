"""What a study learnt about the device's memory: the largest micro-batch that runs may start with.

`memory.json` of the study folder holds "micro_batch" and "why"; every process at work on the folder follows it, and so
does every later one. It only ever falls.
"""

from __future__ import annotations

from pathlib import Path

from bagoftricks.data.untrusted import read_object
from bagoftricks.errors import RunError
from bagoftricks.files import waiting_for, write_json
from bagoftricks.store import Store

NAME = "memory.json"
SMALLEST = 2
"""Images: batch-norm has no variance over one."""


def read_limit(out: Path) -> int | None:
    """Returns the largest micro-batch that runs may start with, in images; None where whole batches have fitted.

    Raises:
        RunError: if the file is damaged.
    """
    path = out / NAME
    try:
        limit = read_object(path)["micro_batch"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        limit = None
    if type(limit) is not int or limit < SMALLEST:
        raise RunError(f"{path}: damaged; remove it, and run the study again")
    return limit


def smaller(used: int) -> int | None:
    """Returns the micro-batch to try after one of `used` images was too large; None where there is none of use."""
    return None if used <= SMALLEST else max(SMALLEST, used // 2)


def halve(out: Path, used: int, why: str) -> int | None:
    """Returns the limit from now on, after a run with a micro-batch of `used` images was too large for the device.

    It is half of `used`, unless another run has led to a lower one meanwhile; None where `used` is the smallest.

    Args:
        out: the study folder.
        used: images, from 1 up.
        why: one line, for people.
    """
    with waiting_for(Store(out).locks / "memory"):
        now = read_limit(out)
        if now is not None and now < used:
            return now
        limit = smaller(used)
        if limit is None:
            return None
        write_json(out / NAME, {"micro_batch": limit, "why": why})
        return limit
