"""What a study folder must be before a report is made of it: somebody else may have written it.

No file is a link, a pipe or a giant; run ids are names of one folder; tables have the kinds of values that are read;
texts have no control characters, which a terminal obeys, and which end the program that draws charts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bagoftricks.data.arrays import MOST_ARRAYS
from bagoftricks.data.untrusted import MOST_JSON, RefusedError, check_id, check_tree, conform, open_plain, spelled_out
from bagoftricks.errors import RunError, first_line
from bagoftricks.studies.design import MOST_CELLS, MOST_RUNS

MOST = {
    ".json": MOST_JSON, ".jsonl": 2**24, ".toml": 2**18, ".npz": MOST_ARRAYS, ".jpg": 2**24, "": 2**20,
}  # fmt: skip
"""Bytes of a file in a study folder, by its suffix: of metrics, 50,000 epochs; without one, a lock."""
FILES = ("plan.json", "test.json")
READ = ("data", "models", "failures", "locks", "runs")
"""Folders of a study that are read; its images' cache and its report are not."""
PLAIN = (str, int, float, bool)
ROW = {"cell": str, "top1?": (float, type(None)), "top5?": (float, type(None))}
STUDY = {
    "name": str, "title?": (str, type(None)), "about?": (str, type(None)), "design?": str, "seeds?": [int],
    "metric?": str, "recipe?": {"*": PLAIN}, "factors?": {"*": [PLAIN]}, "labels?": {"*": {"*": str}},
    "cells?": [{"*": PLAIN}], "tables?": [{"title": str, "source?": str, "rows": [ROW]}],
    "assumptions?": [{"*": str}], "changes?": {"*": PLAIN},
    "earlier?": [{"metric": str, "design": str}],
}  # fmt: skip
PLAN = {
    "study": STUDY,
    "data": {"name": str, "images?": int, "classes?": int, "class_names?": [str], "leaks?": {"*": int}},
    "hardware": {"device?": str, "precision?": str, "threads?": int, "kernels?": str},
    "cells": [{"name": str, "levels?": {"*": PLAIN}, "recipe?": {"*": PLAIN}}],
    "runs": [{"id": str, "cell": str, "seed": int}],
}
RESULT = {
    "top1": float, "top5?": float, "mean_class_acc?": float, "macro_f1?": float, "loss?": float, "seconds": float,
    "train_images": int, "val_images": int, "split?": str, "micro_batch?": (int, type(None)),
    "weights?": (dict, type(None)),
    "teacher?": {"run": str, "architecture": str, "sha256": str, "licence": str, "warning": str},
}  # fmt: skip
CHECK = {"name?": str, "findings?": [str], "counts": {"*": int}}
MISTAKE = {
    "jpeg": str, "name": str, "true": str, "guessed": str, "probability": float, "wrong": int, "of": int,
}  # fmt: skip
MISTAKES = {"cell": str, "runs": int, "images": int, "wrong": int, "mistakes": [MISTAKE]}
LOOK = {"run": str, "cell": (str, type(None)), "when": str, "images": int, "top1": float}
LAYER = {
    "name": str, "kind": str, "kernel": (int, type(None)), "stride": (int, type(None)), "inputs": int, "outputs": int,
    "height": int, "width": int, "parameters": int, "multiply_adds": int, "changed": [str],
}  # fmt: skip
PART = {"layers": [LAYER], "parameters": int, "multiply_adds": int}
LAYERS = {
    "name": str, "tweaks": str, "depth": int, "num_classes": int, "size": int, "parameters": int, "multiply_adds": int,
    "stem": PART, "head": PART,
    "stages": [{"blocks": [{"main": [LAYER], "shortcut": [LAYER], "join": [LAYER]}], "parameters": int}],
}  # fmt: skip
MOST_LAYERS = 10_000


def check_folder(root: Path) -> None:
    """Refuses a study folder in which something is a link, a pipe, a device or a giant, before any of it is read.

    The folder itself may be a link. One of its folders may not: what it leads to is another's, or belongs in its place.

    Raises:
        RunError: naming what is there.
    """
    try:
        for name in READ:
            if (root / name).is_symlink():
                raise RefusedError(f"{name} is a link; replace it with what it leads to")
            check_tree(root / name, MOST)
        for name in FILES:
            if (root / name).exists() or (root / name).is_symlink():
                open_plain(root / name, MOST_JSON).close()
    except (RefusedError, OSError) as error:
        raise RunError(f"study folder {root}: not read, {first_line(error)}") from error


def check_shape(value: Any, shape: Any, path: Path) -> Any:
    """Returns what a file held, if it is built as `shape` says; control characters of its texts are spelled out.

    Raises:
        RunError: if it is not.
    """
    try:
        return spelled_out(conform(value, shape))
    except RefusedError as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); remove it, and run the study again") from error


def check_plan(plan: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns a plan that may be followed: ids lead nowhere else, runs are of cells, cells have all factors' levels.

    Raises:
        RunError: if it is not such a plan, or of more cells and runs than a study may have.
    """
    checked: dict[str, Any] = check_shape(plan, PLAN, path)
    names = [cell["name"] for cell in checked["cells"]]
    try:
        runs = len(checked["runs"])
        if len(names) > 2 * MOST_CELLS or runs > 2 * MOST_RUNS:  # later versions of a study may have joined
            raise RefusedError(f"{len(names):,} cells and {runs:,} runs are too many")
        for run in plan["runs"]:
            check_id(run["id"])
        known = set(names)
        if len(known) < len(names) or any(run["cell"] not in known for run in checked["runs"]):
            raise RefusedError("two cells have one name, or a run is of none")
        factors = set(checked["study"].get("factors", {}))
        if any(not factors <= set(cell.get("levels", {})) for cell in checked["cells"]):
            raise RefusedError("a cell lacks the level of a factor")
    except RefusedError as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); remove it, and run the study again") from error
    for name in ("about", "assumptions"):  # prose, which has lines, and is shown by the page alone
        if name in plan["study"]:
            checked["study"][name] = plan["study"][name]
    return checked


def check_layers(structure: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns an architecture's layers, if they can be drawn.

    Raises:
        RunError: if they cannot, or are more than 10,000.
    """
    checked: dict[str, Any] = check_shape(structure, LAYERS, path)
    blocks = [block for stage in checked["stages"] for block in stage["blocks"]]
    parts = [checked["stem"]["layers"], checked["head"]["layers"], *(block["main"] for block in blocks)]
    count = sum(map(len, parts)) + sum(len(block["shortcut"]) + len(block["join"]) for block in blocks)
    if not blocks or not all(parts) or count > MOST_LAYERS:
        raise RunError(f"{path}: damaged ({count:,} layers); remove it, and run the study again")
    return checked


def is_jpeg(content: bytes) -> bool:
    """Whether a file begins as a JPEG does; a browser reads the rest."""
    return content.startswith(b"\xff\xd8\xff")
