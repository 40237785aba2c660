"""The locked test set: measured once, after choosing, and recorded as spent.

A result that was chosen on the validation set is too good by as much as the choosing found luck. The test set tells how
good it is, as long as nobody chooses by it: so the store keeps who looked and when, and refuses a second model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bagoftricks.data.batches import Batches
from bagoftricks.data.cache import DecodedImages, cached_side
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.data.soundness import sound
from bagoftricks.data.sources import open_data
from bagoftricks.data.split import split
from bagoftricks.errors import UserError
from bagoftricks.intervals import wilson
from bagoftricks.models.cardfacts import Scores, scores
from bagoftricks.models.folder import load_model
from bagoftricks.recipe import Recipe
from bagoftricks.store import RECIPE, RESULT, Store, StoredRun
from bagoftricks.study_folder import read_plan, spending
from bagoftricks.training.evaluate import evaluate
from bagoftricks.training.hardware import Hardware, cores, detect
from bagoftricks.training.keeping import add_test_to_card


@dataclass(frozen=True)
class TestResult:
    """What was measured on the test set."""

    __test__ = False  # no test of pytest's

    looks: Sequence[dict[str, Any]]
    """For each run: run, cell, seed, when, images, loss, top1, top1_interval, top5, mean_class_acc, macro_f1, and
    right: a 1 for each image whose surest guess is right and a 0 for each other, in the order of the test set."""
    fresh: bool
    """Whether it was measured now, rather than found."""
    cards: Sequence[Path] = ()
    """Model cards with the measures that were written beside those which somebody has changed."""


def measure_test(
    folder: str | Path,
    data: str | Path | ImageIndex,
    *,
    cell: str | None = None,
    against: str | None = None,
    again: bool = False,
    hardware: Hardware | None = None,
) -> TestResult:
    """Measures kept models on the locked test set of the data they were trained on, once.

    Args:
        folder: a run's folder, or the folder of a study or of trainings.
        data: what they were trained on, with its `test` folder, or the images that split.test_fraction locked away.
        cell: of a study, the cell that was chosen; all its runs are measured.
        against: of a study, a cell that was settled on beforehand, to compare the chosen one with, in the same look.
        again: measure although the set is spent on others; that is recorded too.
        hardware: where to compute.

    Raises:
        UserError: if there is no test set, the data are others, no model was kept or several could be meant, or the set
            was spent on others.
    """
    if against is not None and (cell is None or cell == against):
        raise UserError(f"--against {against}: needs --cell with another cell, the one that was chosen")
    root, runs = _chosen(Path(folder), cell)
    if against is not None:
        opposite = _chosen(Path(folder), against)[1]
        if not {run.result["seed"] for run in runs} & {run.result["seed"] for run in opposite}:
            raise UserError(f"cells '{cell}' and '{against}': have no seed in common")
        runs += opposite
    index, _ = sound(open_data(data), workers=cores(), allow=1.0)  # whether they are the same images is asked below
    hardware = hardware or detect(kernels="torch")
    recipe = Recipe.load(runs[0].folder / RECIPE)
    members = split(index, recipe.split, int(runs[0].result["seed"])).test
    if not len(members):
        raise UserError(
            f"data {index.name}: has no test set; put one into a folder 'test', or train with --test-fraction"
        )
    if any(run.result["data"]["fingerprint"] != index.fingerprint for run in runs):
        raise UserError(f"data {index.name}: not what {folder} was trained on; --data must be the same images")
    if len({Recipe.load(run.folder / RECIPE).split for run in runs}) > 1:
        raise UserError(
            f"{folder}: the runs split the data differently, so that one may have trained on the others' test set"
        )
    test, cards = subset(index, members.tolist()), list[Path]()
    own, names = set(test.digests()), _cells(root)
    asked = {names.get(run.id, run.id) for run in runs}
    with spending(root) as (looks, record):
        touching = [look for look in looks if own & set(look["digests"])]
        known = {look["run"]: look for look in touching if set(look["digests"]) == own}
        found = {run: look for run, look in known.items() if against is None or "right" in look}
        if all(run.id in found for run in runs):
            return TestResult([found[run.id] | {"cell": names.get(run.id, "")} for run in runs], fresh=False)
        seen = {names.get(look["run"], look["cell"] or look["run"]) for look in touching}
        if touching and asked - seen and not again:
            raise UserError(
                f"test set of {index.name}: spent on {', '.join(sorted(seen))} ({touching[0]['when']}); a second "
                "choice on it is no test any more. --again measures all the same and records it"
            )
        new = {run.id: _look(run, test, sorted(own), hardware) for run in runs if run.id not in found}
        record([look for look, _ in new.values()])  # all at once, and before anybody can read them in a card
        found |= {run_id: look for run_id, (look, _) in new.items()}
        for run in runs:
            if run.id in new and (card := add_test_to_card(run, new[run.id][1])):
                cards.append(card)
    return TestResult([found[run.id] | {"cell": names.get(run.id, "")} for run in runs], fresh=True, cards=cards)


def _chosen(folder: Path, cell: str | None) -> tuple[Path, list[StoredRun]]:
    """Returns the store's root, and the runs that are meant."""
    if (folder / RESULT).is_file():
        root = folder.resolve().parent.parent
        candidates = [run for run in Store(root).models() if run.id == folder.resolve().name]
    else:
        root, candidates = folder, Store(folder).models()
    names = _cells(root)
    if not candidates:
        raise UserError(f"{folder}: holds no run with its model; studies keep them with --keep best")
    if cell is not None:
        if lacking := sorted(run_id for run_id, name in names.items() if name == cell and _lacks_model(root, run_id)):
            raise UserError(
                f"{folder}: of cell '{cell}' {len(lacking)} runs did not keep their models, and a part would spend the "
                "test set; name one run's folder, or run the study with --keep all into another --out"
            )
        candidates = [run for run in candidates if names.get(run.id) == cell]
        if not candidates:
            raise UserError(f"{folder}: no kept model of cell '{cell}'")
    kinds = sorted({names.get(run.id, run.id) for run in candidates})
    if len(kinds) > 1:
        kind = "--cell" if names else "a run's folder"
        raise UserError(f"{folder}: several could be meant ({', '.join(kinds)}); choose one by {kind}")
    return root, candidates


def _lacks_model(root: Path, run_id: str) -> bool:
    """Whether a run is done and its model was not kept."""
    return Store(root).get(run_id) is not None and all(run.id != run_id for run in Store(root).models())


def _cells(root: Path) -> dict[str, str]:
    """Returns the cell of each run of a study; nothing where there is no study."""
    if not Store(root).plan.is_file():
        return {}
    return {run["id"]: run["cell"] for run in read_plan(root)["runs"]}


def _look(run: StoredRun, test: ImageIndex, digests: list[str], hardware: Hardware) -> tuple[dict[str, Any], Scores]:
    """Returns one model's measures on the test images, for the record and for its card."""
    import numpy as np
    import torch

    recipe, model = Recipe.load(run.folder / RECIPE), load_model(run.folder)
    if model.classes != test.classes:
        raise UserError(f"{run.folder}: knows other classes than the data")
    hardware.prepare()
    images = DecodedImages(test, cached_side(recipe.input.size), hardware.threads)
    members = np.arange(len(test))
    batches = Batches(images, test.labels, members, recipe.input, recipe.batch_size, 0, hardware.device)
    network = model.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = evaluate(network, batches, test.num_classes, hardware, tricks=recipe.tricks.values())
    measures = found.measures
    look = {
        "run": run.id,
        "cell": _cells(run.folder.parent.parent).get(run.id, ""),
        "seed": run.result["seed"],
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "images": len(test),
        "top1_interval": list(wilson(round(measures["top1"] * len(test)), len(test))),
        **measures,
        "right": "".join(map(str, (found.logits_NK.argmax(1) == found.label_N).astype(int).tolist())),
        "digests": digests,
    }
    return look, scores(measures, found.logits_NK, found.label_N)
