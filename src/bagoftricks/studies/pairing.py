"""Which blocks could not stay paired, since memory ran out in the midst of them.

Batch-norm takes its mean and variance over a micro-batch: two cells of one block that were trained with different ones
differ in more than their levels.
"""

from __future__ import annotations

from pathlib import Path

from bagoftricks.store import Store
from bagoftricks.study_folder import read_plan


def unpaired_blocks(out: Path) -> list[tuple[int, dict[int, list[str]]]]:
    """Returns the blocks of a study in which finished runs of one batch size have different micro-batches.

    Cells whose batch size itself differs are told apart by the study, and are not set against each other here.

    Args:
        out: the study folder.

    Returns:
        For each such block its seed, and by micro-batch, in images from the largest, the names of the cells in the
        plan's order; of the batch sizes concerned only. A run of an earlier version had the whole batch.

    Raises:
        UserError: if `out` is no study folder.
    """
    plan, store = read_plan(out), Store(out)
    batch = {cell["name"]: int((cell.get("recipe") or {}).get("batch_size", 0)) for cell in plan["cells"]}
    blocks: dict[int, dict[int, dict[int, list[str]]]] = {}
    for run in plan["runs"]:
        if stored := store.get(run["id"]):
            whole = batch.get(run["cell"], 0)
            micro = int(stored.result.get("micro_batch") or whole)
            blocks.setdefault(run["seed"], {}).setdefault(whole, {}).setdefault(micro, []).append(run["cell"])
    found = []
    for seed in sorted(blocks):
        mixed = [by_micro for by_micro in blocks[seed].values() if len(by_micro) > 1]
        merged: dict[int, list[str]] = {}
        for micro, cells in (item for by_micro in mixed for item in by_micro.items()):
            merged.setdefault(micro, []).extend(cells)
        if merged:
            found.append((seed, dict(sorted(merged.items(), reverse=True))))
    return found


def pairing_warnings(out: Path) -> list[str]:
    """Returns what the reader must know of the blocks that could not stay paired, a sentence each."""
    found = []
    for seed, by_micro in unpaired_blocks(out):
        parts = "; ".join(f"{micro} images in {', '.join(cells)}" for micro, cells in by_micro.items())
        found.append(
            f"seed {seed} could not stay paired, memory ran out in the midst of it. At once through the network, "
            f"and so in batch-norm: {parts}"
        )
    return found
