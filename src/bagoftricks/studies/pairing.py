"""Which blocks could not stay paired, since memory ran out in the midst of them, or their images were divided anew.

Batch-norm takes its mean and variance over a micro-batch: two cells of one block that were trained with different ones
differ in more than their levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Finished = Iterable[tuple[str, int, Mapping[str, Any]]]
"""Finished runs: cell, seed and result of each."""


def unpaired_blocks(plan: Mapping[str, Any], runs: Finished) -> list[tuple[int, dict[int, list[str]]]]:
    """Returns the blocks of a study in which finished runs of one batch size have different micro-batches.

    Cells whose batch size itself differs are told apart by the study, and are not set against each other here.

    Args:
        plan: of the study.
        runs: what of it is finished, in the plan's order.

    Returns:
        For each such block its seed, and by micro-batch, in images from the largest, the names of the cells in the
        plan's order; of the batch sizes concerned only. A run of an earlier version had the whole batch.
    """
    batch = {cell["name"]: int((cell.get("recipe") or {}).get("batch_size", 0)) for cell in plan["cells"]}
    blocks: dict[int, dict[int, dict[int, list[str]]]] = {}
    for cell, seed, result in runs:
        whole = batch.get(cell, 0)
        micro = int(result.get("micro_batch") or whole)
        blocks.setdefault(seed, {}).setdefault(whole, {}).setdefault(micro, []).append(cell)
    found = []
    for seed in sorted(blocks):
        mixed = [by_micro for by_micro in blocks[seed].values() if len(by_micro) > 1]
        merged: dict[int, list[str]] = {}
        for micro, cells in (item for by_micro in mixed for item in by_micro.items()):
            merged.setdefault(micro, []).extend(cells)
        if merged:
            found.append((seed, dict(sorted(merged.items(), reverse=True))))
    return found


def split_blocks(runs: Finished) -> list[tuple[int, list[list[str]]]]:
    """Returns the blocks whose finished runs were not divided alike: each seed, and its cells by their split.

    So it is where copies of an image were found otherwise: by another version of this program, or of what decodes. A
    run of a version that did not tell is left out.
    """
    blocks: dict[int, dict[str, list[str]]] = {}
    for cell, seed, result in runs:
        if found := result.get("split"):
            blocks.setdefault(seed, {}).setdefault(found, []).append(cell)
    return [(seed, list(by_split.values())) for seed, by_split in sorted(blocks.items()) if len(by_split) > 1]


def pairing_warnings(plan: Mapping[str, Any], runs: Finished) -> list[str]:
    """Returns what the reader must know of the blocks that could not stay paired, a sentence each."""
    runs, found = list(runs), []
    for seed, by_micro in unpaired_blocks(plan, runs):
        parts = "; ".join(f"{micro} images in {', '.join(cells)}" for micro, cells in by_micro.items())
        found.append(
            f"seed {seed} could not stay paired, memory ran out in the midst of it. At once through the network, "
            f"and so in batch-norm: {parts}"
        )
    for seed, by_split in split_blocks(runs):
        parts = "; ".join(", ".join(cells) for cells in by_split)
        found.append(
            f"seed {seed} is not paired: copies of images were found otherwise by another version, so that these cells "
            f"were trained on and judged by other images than those: {parts}. Run it anew in another folder"
        )
    return found
