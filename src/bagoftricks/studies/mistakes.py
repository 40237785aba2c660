"""The worst mistakes of a study's best cell, kept as small pictures: a report reads the study folder and no data.

`data/mistakes.json` holds "cell", "runs" (looked at), "images" (held out by any), "wrong" (of them, by the mean
probability) and "mistakes": for each its name, true and guessed class, the guess's probability, how many runs got it
`wrong`, `of` how many that held it out, and a JPEG in base64.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bagoftricks.data.check import shown
from bagoftricks.data.index import ImageIndex, Pixels
from bagoftricks.errors import RunError
from bagoftricks.files import write_json
from bagoftricks.store import Store
from bagoftricks.studies.best import HeldOut, best_cell, metric_of, read_held_out
from bagoftricks.study_folder import read_plan
from bagoftricks.training.calibration import softmax

MOST_MISTAKES = 24
SIDE, SMALL = 160, 64
"""Pixels of a thumbnail's longer side at most, and below which an image is enlarged, without smoothing."""


@dataclass(frozen=True)
class Wrong:
    """An image whose most probable class is not its own, by the mean probability over the runs that held it out."""

    run: int
    """Number of a run that held it out, and its row there."""
    row: int
    label: int
    guess: int
    probability: float
    """Of the guess."""
    wrong: int
    """Runs that got it wrong."""
    of: int
    """Runs that held it out."""


def wrong_images(runs: Sequence[HeldOut]) -> tuple[list[Wrong], int]:
    """Returns the images that runs get wrong together, the surest first, and how many images they held out.

    An image is the same in two runs by its name, or by its index where a run lacks names.
    """
    named = all(run.names for run in runs)
    numbers: dict[Hashable, int] = {}
    places: list[tuple[int, int]] = []
    image_RN = []
    for r, run in enumerate(runs):
        keys: Sequence[Hashable] = run.names if named and run.names else run.member_N.tolist()
        for row, key in enumerate(keys):
            if key not in numbers:
                numbers[key] = len(places)
                places.append((r, row))
        image_RN.append(np.array([numbers[key] for key in keys]))
    p_IK = np.zeros((len(places), runs[0].logits_NK.shape[1]), dtype=np.float32)
    of_I, wrong_I = np.zeros(len(places), dtype=np.int64), np.zeros(len(places), dtype=np.int64)
    for run, image_N in zip(runs, image_RN, strict=True):
        p_NK = softmax(run.logits_NK)
        np.add.at(p_IK, image_N, p_NK)
        np.add.at(of_I, image_N, 1)
        np.add.at(wrong_I, image_N, p_NK.argmax(axis=1) != run.label_N)
    p_IK /= of_I[:, None]
    found = []
    for i, ((r, row), guess) in enumerate(zip(places, p_IK.argmax(axis=1).tolist(), strict=True)):
        label = int(runs[r].label_N[row])
        if guess != label:
            found.append(Wrong(r, row, label, guess, float(p_IK[i, guess]), int(wrong_I[i]), int(of_I[i])))
    return sorted(found, key=lambda one: (-one.probability, one.run, one.row)), len(places)


def write_mistakes(store: Store, index: ImageIndex) -> None:
    """Writes the worst mistakes of the best cell, by its finished runs; nothing where none has predictions.

    At most 24, the surest wrong guesses first. Broken files are passed over. Locked test images never appear: no run
    predicts them before `tricks test`, which keeps no predictions.
    """
    plan = read_plan(store.root)
    done = {(run["cell"], run["seed"]): found for run in plan["runs"] if (found := store.get(run["id"]))}
    if not done:
        return
    metric = metric_of((run.result for run in done.values()), plan["study"].get("metric", "top1"))
    cell = best_cell({key: float(run.result[metric]) for key, run in done.items()})
    runs = read_held_out(store, [(run.id, seed) for (name, seed), run in done.items() if name == cell])
    if not runs:
        return
    wrong, images = wrong_images(runs)
    shots = _pictured(wrong, runs, index)
    kept = [shot for shot, _ in zip(shots, range(MOST_MISTAKES), strict=False)]
    write_json(
        store.mistakes,
        {"cell": cell, "runs": len(runs), "images": images, "wrong": len(wrong), "mistakes": kept},
    )


def _pictured(wrong: Sequence[Wrong], runs: Sequence[HeldOut], index: ImageIndex) -> Iterator[dict[str, Any]]:
    """Yields mistakes with their pictures; what the data set does not hold any more, or cannot be read, is left out."""
    numbers = {name: i for i, name in enumerate(index.names)}
    may_be_seen = set(index.open_images.tolist())
    for one in wrong:
        run = runs[one.run]
        i = numbers.get(run.names[one.row], -1) if run.names else int(run.member_N[one.row])
        if i not in may_be_seen or int(index.labels[i]) != one.label:
            continue
        try:
            picture = thumbnail(index.read(i, SIDE))
        except (RunError, OSError):
            continue
        yield {
            "name": shown(index.names[i]),
            "true": shown(index.classes[one.label]),
            "guessed": shown(index.classes[one.guess]),
            "probability": one.probability,
            "wrong": one.wrong,
            "of": one.of,
            "jpeg": b64encode(picture).decode(),
        }


def thumbnail(pixels_HWC: Pixels) -> bytes:
    """Returns a JPEG of an image, its longer side at most 160 pixels; a tiny one is enlarged, pixel by pixel."""
    from PIL import Image

    image = Image.fromarray(pixels_HWC)
    longer = max(image.size)
    if longer < SMALL:
        factor = SIDE // longer
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    else:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85, optimize=True)
    return out.getvalue()
