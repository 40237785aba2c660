"""How planning, reports, data sets and memory grow: the parts of `bench/study.py`."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.usage import memory

CELLS = 4
"""Of the quickstart study, whose seeds are multiplied."""
VAL_IMAGES = 100
"""Predictions of a made-up run."""
FILES = 10_000
"""Most real files whose bytes are hashed."""


def clean(folder: Path) -> Path:
    """Returns an empty folder; only what the bench made itself stands below its work folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Returns seconds, and what the action returned."""
    began = time.perf_counter()
    value = action()
    return time.perf_counter() - began, value


def run_growth(work: Path, counts: Sequence[int], commands: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Returns seconds of planning, status and report for studies of so many runs, whose results are made up.

    plan: `plan_study`; missing: which runs are left; status and report: the commands, the interpreter's start included.
    """
    from bagoftricks.files import write_json
    from bagoftricks.studies.plan import plan_study
    from bagoftricks.studies.study_file import load_study

    rows = []
    for count in counts:
        out = clean(work / f"runs-{count}")
        study = load_study("quickstart").adapted({}, seeds=-(-count // CELLS))
        plan_s, plan = timed(lambda study=study, out=out: plan_study(study, "digits", out=out))
        write_json(out / "plan.json", plan.to_dict())
        fill(plan, out)
        missing_s, left = timed(lambda plan=plan, out=out: plan.missing(out))
        if left:
            raise RuntimeError(f"{len(left)} made-up runs are not found again")
        again_s, _ = timed(lambda study=study, out=out: plan_study(study, "digits", out=out))
        row = {"runs": len(plan.runs), "plan_s": plan_s, "plan_again_s": again_s, "missing_s": missing_s}
        for name, command in commands.items():
            row[f"{name}_s"], done = timed(
                lambda command=command, out=out: subprocess.run(
                    [*command, str(out)], capture_output=True, text=True, check=False
                )
            )
            if done.returncode:
                raise RuntimeError(f"tricks {name} {out}: {done.stderr.strip()[-300:]}")
        rows.append(row)
    return rows


def fill(plan: Any, out: Path) -> None:
    """Writes a result for every run of a plan: what a run writes, with figures drawn at random."""
    from bagoftricks.store import Store

    draw, store, classes = np.random.default_rng(0), Store(out), plan.index.num_classes
    names = [cell.name for cell in plan.study.cells]
    labels = plan.index.labels[:VAL_IMAGES]
    for run in plan.runs:
        top1 = float(np.clip(0.9 + 0.01 * names.index(run.cell.name) + 0.01 * draw.standard_normal(), 0, 1))
        measures = {"loss": 1 - top1, "top1": top1, "top5": 0.99, "mean_class_acc": top1, "macro_f1": top1}
        with store.writing(run.id) as writer:
            writer.recipe(run.cell.recipe.to_toml())
            writer.environment(vars(plan.hardware))
            for epoch in range(1, run.cell.recipe.epochs + 1):
                row = {"epoch": epoch, "lr": 1e-3, "images_per_s": 100.0, "train_s": 1.0, "eval_s": 0.1}
                row |= {f"{side}_{name}": value for side in ("train", "eval") for name, value in measures.items()}
                writer.epoch(row)
            logits = draw.standard_normal((VAL_IMAGES, classes)).astype(np.float32)
            _predictions(writer, plan, logits, labels)
            sizes = {"train_images": 1438, "val_images": VAL_IMAGES, "test_images": 0}
            about = plan.index.describe() | {"fingerprint": plan.index.fingerprint}
            writer.result({**measures, "seed": run.seed, "data": about, **sizes, "seconds": 2.0, "weights": None})


def _predictions(writer: Any, plan: Any, logits: Any, labels: Any) -> None:
    """Writes predictions as `training.train` does, in whichever version stands here."""
    from bagoftricks import store

    arrays = {"logits": logits, "labels": labels, "members": np.arange(len(labels))}
    if pack := getattr(store, "pack_names", None):
        arrays["names"] = pack(plan.index.names[: len(labels)])
    writer.predictions(**arrays)


def image_growth(work: Path, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Returns seconds of what is done for all images of a data set before the first one is decoded, and peak MB.

    Each size is measured in a process of its own, so that the peak is its own.
    """
    rows = []
    for count in counts:
        code = f"from bench.growth import one_index; import json; print(json.dumps(one_index({count}, {str(work)!r})))"
        rows.append(_child(code))
    return rows


def one_index(count: int, work: str) -> dict[str, Any]:
    """Returns the figures of one size of data set: tiny images in memory, 100 classes, no file behind them."""
    import torch  # noqa: F401  its own memory and seconds are no growth

    from bagoftricks.data.batches import Batches
    from bagoftricks.data.cache import DecodedImages
    from bagoftricks.data.index import ImageIndex
    from bagoftricks.data.split import SplitConfig, split
    from bagoftricks.recipe import Conditions, Recipe, identity
    from bagoftricks.rng import stream

    before = peak_mb(reset=True)
    index = ImageIndex(
        name="simulated",
        classes=tuple(f"class-{k:03d}" for k in range(100)),
        labels=np.arange(count, dtype=np.int64) % 100,
        names=tuple(f"class-{i % 100:03d}/{i:09d}.jpg" for i in range(count)),
        pixels=np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8),
    )
    recipe = Recipe().with_fields({"split.duplicates": "ignore", "input.size": 32})
    split_s, sides = timed(lambda: split(index, SplitConfig(duplicates="ignore"), 0))
    fingerprint_s, fingerprint = timed(lambda: index.fingerprint)
    identity_s, _ = timed(lambda: identity(recipe, Conditions(0, fingerprint)))
    order_s, _ = timed(lambda: stream(0, "order", 1).permutation(sides.train))
    images = DecodedImages(index, 48)
    batches = Batches(images, index.labels, sides.train, recipe.input, 64, 0)
    next(iter(batches.training(0)))
    first_batch_s, _ = timed(lambda: next(iter(batches.training(1))))
    row = {
        "images": count,
        "split_s": split_s,
        "fingerprint_s": fingerprint_s,
        "identity_s": identity_s,
        "epoch_order_s": order_s,
        "first_batch_s": first_batch_s,
        "added_peak_mb": peak_mb() - before,
        "fingerprint_of_files_s": None,
    }
    if count <= FILES:
        row["fingerprint_of_files_s"] = _hashed_files(count, Path(work))
    return row


def peak_mb(*, reset: bool = False) -> float:
    """Returns the peak of resident MB; on Linux since the last reset, elsewhere since the process began."""
    clear = Path("/proc/self/clear_refs")
    if reset and clear.exists():
        clear.write_text("5", encoding="ascii")
    found = memory().get("peak_rss_mb")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 if found is None else found


def _hashed_files(count: int, work: Path) -> float:
    """Returns seconds to read a folder of `count` files of 15 kB and hash their bytes."""
    from bagoftricks.data.folder import read_folder

    root = clean(work / "files")
    draw = np.random.default_rng(0)
    for i in range(count):
        target = root / f"class-{i % 10}" / f"{i:07d}.jpg"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(draw.bytes(15_000))
    seconds, _ = timed(lambda: read_folder(root).fingerprint)
    shutil.rmtree(root)
    return seconds


def copies_growth(counts: Sequence[int]) -> list[dict[str, Any]]:
    """Returns seconds to compare the hashes of all pairs of images, the part of the search that grows by the square."""
    from bagoftricks.data.duplicates import DISTANCE, hamming_pairs

    rows = []
    for count in counts:
        hashes = np.random.default_rng(0).integers(0, 2**63, count, dtype=np.uint64)
        seconds, _ = timed(lambda hashes=hashes: sum(len(i) for i, _, _ in hamming_pairs(hashes, hashes, DISTANCE)))
        rows.append({"images": count, "pairs_s": seconds})
    return rows


def memory_growth(work: Path) -> list[dict[str, Any]]:
    """Returns MB of a training over few and many images, and of few and many epochs: private ones must stay flat."""
    rows = []
    for images, epochs in ((256, 1), (256, 6), (2048, 1)):
        call = f"one_training({images}, {epochs}, {str(work)!r})"
        rows.append(_child(f"from bench.growth import one_training; import json; print(json.dumps({call}))"))
    return rows


def one_training(images: int, epochs: int, work: str) -> dict[str, Any]:
    """Trains a ResNet-18 on made photographs and returns its memory at the end of the last epoch."""
    from bagoftricks.recipe import Recipe
    from bagoftricks.training.fit import Listener
    from bagoftricks.training.train import train
    from bench.photos import make_photos

    photos = make_photos(Path(work) / f"photos-{images}", images, classes=8)
    changes = {"epochs": epochs, "batch_size": 32, "model.tweaks": "A", "model.depth": 18, "input.size": 32}
    recipe = Recipe().with_fields(changes | {"split.duplicates": "ignore"})
    seen: list[dict[str, float]] = []
    train(recipe, photos, listener=Listener(on_epoch=lambda row: seen.append(memory())))
    figures = seen[-1] or {"private_mb": 0.0, "peak_rss_mb": peak_mb()}
    return {"images": images, "epochs": epochs, **figures}


def _child(code: str) -> dict[str, Any]:
    """Runs code in a process of its own and returns the JSON of its last line.

    Raises:
        RuntimeError: if it fails.
    """
    root = Path(__file__).resolve().parent.parent
    start = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'src')!r}]; "
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-500:])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
