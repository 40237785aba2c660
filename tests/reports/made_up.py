"""A study folder of any size, with hostile names, for the report to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bagoftricks.files import write_json
from bagoftricks.store import Store
from bagoftricks.studies.design import Study
from bagoftricks.studies.study_file import study_to_dict

EVIL = "<script>alert(1)</script>"
FACTORS: dict[str, list[Any]] = {
    "model.tweaks": ["A", "B", "C", "D", "BCD"],
    "schedule.decay": ["constant", "cosine"],
    "label_smoothing.amount": [0.0, 0.1],
    "optimizer.lr": [0.001, 0.003, 0.01, 0.03, 0.1],
}


def make_many(root: Path, factors: dict[str, list[Any]], seeds: int, epochs: int, lost: str = "") -> Path:
    """Writes a study folder with made-up runs: 100 cells of all four factors; runs of the cell `lost` failed."""
    study, store = Study("many", factors=factors, seeds=tuple(range(seeds))), Store(root)
    draw = np.random.default_rng(0)
    names = [EVIL, '"><img src=x onerror=alert(2)>', *(f"class {k}" for k in range(6))]
    labels, runs = draw.integers(0, len(names), 60), []
    for seed in study.seeds:
        for number, cell in enumerate(study.cells):
            run_id = f"{number:04d}-{seed}"
            runs.append({"id": run_id, "cell": cell.name, "seed": seed})
            if cell.name == lost:
                store.record_failure(run_id, cell.name, f"broke: {EVIL}")
                continue
            top1 = 0.7 + 0.03 * (cell.levels.get("schedule.decay") == "cosine") + 0.006 * draw.normal()
            measures = {"loss": 2 - top1, "top1": top1, "top5": top1 + 0.1, "mean_class_acc": top1, "macro_f1": top1}
            logits = draw.normal(size=(60, len(names))).astype(np.float32)
            logits[np.arange(60), labels] += 2
            with store.writing(run_id) as writer:
                for epoch in range(1, epochs + 1):
                    so_far = {name: value * epoch / epochs for name, value in measures.items()}
                    row = {f"{side}_{name}": value for side in ("train", "eval") for name, value in so_far.items()}
                    writer.epoch({"epoch": epoch, "lr": 0.1, **row, "images_per_s": 100 + draw.normal()})
                writer.environment({"python": "3.11", "cpu": "AVX2", "gpu": ""})
                writer.predictions(logits=logits, labels=labels, members=np.arange(60))
                writer.result(
                    {**measures, "seed": seed, "train_images": 240, "val_images": 60, "seconds": 60.0, "weights": None}
                )
    plan = {
        "schema": 1,
        "study": study_to_dict(study),
        "data": {"name": EVIL, "images": 300, "classes": len(names), "fingerprint": "ab" * 32, "class_names": names},
        "hardware": {"device": "cpu", "precision": "fp32", "threads": 1},
        "cells": [{"name": cell.name, "levels": dict(cell.levels)} for cell in study.cells],
        "runs": runs,
    }
    write_json(store.plan, plan)
    return root
