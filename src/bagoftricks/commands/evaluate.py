"""`tricks evaluate`: how well a saved model does on a folder of labelled images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_json, add_machine, new_command

if TYPE_CHECKING:
    from bagoftricks.serving.classifier import Classifier
    from bagoftricks.serving.evaluation import OnFolder

MOST_PAIRS = 20
"""Pairs of classes that are listed as confused."""
MOST_LISTED = 100
"""Bad images that are named."""


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "evaluate", run, "measure a trained model on a folder of labelled images",
        (
            "tricks evaluate trained --data more-photos",
            "tricks evaluate trained --data photos --side val --tta flip",
            "tricks evaluate trained --data more-photos --strict --json",
        ),
    )  # fmt: skip
    about = "a run's folder, or that of trainings which kept one model"
    command.add_argument("folder", type=Path, metavar="MODEL", help=about)
    group = command.add_argument_group("evaluate")
    about = "a folder of class folders, named as in training; or of train, val and test with these; or a CSV manifest"
    group.add_argument("--data", required=True, metavar="DIR", help=about)
    about = "all, train, val or test: the folder's own, or those of the model's training if these are its data [all]"
    group.add_argument("--side", default="all", metavar="SIDE", help=about)
    group.add_argument("--strict", action="store_true", help="refuse data whose class names are not just the model's")
    group.add_argument("--tta", help="flip: average with the mirror image, at twice the time; or none [as measured]")
    group.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at once [64]")
    add_json(group)
    add_machine(command)


def run(options: argparse.Namespace) -> int:
    """Measures and prints."""
    from bagoftricks.commands.predict import counting
    from bagoftricks.serving.classifier import load_model
    from bagoftricks.serving.evaluation import evaluate_folder

    model = load_model(
        options.folder, device=options.device, precision=options.precision, deterministic=options.deterministic
    )
    with counting("evaluating") as count:
        found = evaluate_folder(
            model,
            options.data,
            side=options.side,
            strict=options.strict,
            tta=options.tta,
            batch_size=options.batch_size,
            on_image=count,
        )
    _warn(found)
    if options.json:
        print(json.dumps(summary(model, found, options.tta or model.tta), indent=2))
    else:
        _print(model, found, options.tta or model.tta)
    return DONE


def _warn(found: OnFolder) -> None:
    """Says on standard error what must be known about the figures."""
    from bagoftricks.console import note
    from bagoftricks.serving.evaluation import listed

    if found.strangers:
        images = sum(found.strangers.values())
        note(f"Unknown to the model, {images:,} images left out: {listed(list(found.strangers))}")
    if found.lacking:
        note(f"Classes of the model without a folder here: {listed(found.lacking)}")
    if found.bad:
        note(f"{len(found.bad):,} images could not be read and are left out:")
        for name, reason in found.bad[:MOST_LISTED]:
            note(f"  {name}: {reason}")
        if len(found.bad) > MOST_LISTED:
            note(f"  and {len(found.bad) - MOST_LISTED:,} more; --json has them all")
    if trained := (found.own or {}).get("train", 0):
        note(
            f"Warning: the model was trained on {trained:,} of these {len(found.names):,} images, which flatters it; "
            "--side val measures on those it was chosen by"
        )
    if locked := (found.own or {}).get("test", 0):
        note(f"Warning: {locked:,} images are of the locked test set; tricks test measures on it and records that")


def summary(model: Classifier, found: OnFolder, tta: str) -> dict[str, Any]:
    """Returns every measure, for JSON."""
    from bagoftricks.intervals import wilson
    from bagoftricks.studies.classwise import confused_pairs, confusion, per_class

    measures, images, names = found.measures(), len(found.label_N), model.classes
    counts_KK = confusion(found.label_N, found.logits_NK.argmax(axis=1), len(names))
    figures = per_class(counts_KK)
    return {
        "model": str(model.folder),
        "data": found.data,
        "side": found.side,
        "tta": tta,
        "images": images,
        **measures,
        "top1_interval": list(wilson(round(measures["top1"] * images), images)),
        "calibration": _calibration(model, found),
        "per_class": [
            {
                "class": names[k],
                "precision": float(figures.precision[k]),
                "recall": float(figures.recall[k]),
                "f1": float(figures.f1[k]),
                "support": int(figures.support[k]),
            }
            for k in figures.support.nonzero()[0].tolist()
        ],
        "confused": [
            {
                "first": names[pair.first],
                "second": names[pair.second],
                "first_for_second": pair.first_for_second,
                "second_for_first": pair.second_for_first,
                "share": pair.share,
            }
            for pair in confused_pairs(counts_KK, MOST_PAIRS)
        ],
        "unknown_classes": found.strangers,
        "lacking_classes": list(found.lacking),
        "bad_images": [{"filename": name, "error": reason} for name, reason in found.bad],
        "of_own_training": found.own,
    }


def _calibration(model: Classifier, found: OnFolder) -> dict[str, Any]:
    """Returns calibration errors and likelihoods before and after the model's temperature; null where it has none."""
    from bagoftricks.studies.classwise import chance_error, nll
    from bagoftricks.training.calibration import expected_calibration_error, softmax

    logits_NK, label_N = found.logits_NK, found.label_N
    plain_NK, scaled_NK = softmax(logits_NK), softmax(logits_NK, model.temperature)
    after = (expected_calibration_error(scaled_NK, label_N), nll(logits_NK, label_N, model.temperature))
    ece_after, nll_after = after if model.calibrated else (None, None)
    return {
        "temperature": model.temperature if model.calibrated else None,
        "ece_before": expected_calibration_error(plain_NK, label_N),
        "ece_after": ece_after,
        "ece_by_chance": chance_error(scaled_NK.max(axis=1)),
        "nll_before": nll(logits_NK, label_N),
        "nll_after": nll_after,
    }


def _print(model: Classifier, found: OnFolder, tta: str) -> None:
    from bagoftricks.console import measures, print_table, say
    from bagoftricks.reports.classes import pairs_table, per_class_table
    from bagoftricks.studies.classwise import confused_pairs, confusion

    row = summary(model, found, tta)
    low, high = row["top1_interval"]
    where = "" if found.side == "all" else f", {found.side}"
    flipped = ", averaged with mirror images" if tta == "flip" else ""
    say(f"{found.data}{where}: {row['images']:,} images in {len(row['per_class']):,} classes{flipped}")
    say(measures(row))
    say(f"Top-1, 95 % interval: {low:.3f} to {high:.3f}")
    fit = row["calibration"]
    after = (
        f", {fit['ece_after']:.3f} with its temperature of {fit['temperature']:.2f}"
        if model.calibrated
        else "; the model has no temperature"
    )
    say(f"Calibration error: {fit['ece_before']:.3f} as trained{after} (exact: {fit['ece_by_chance']:.3f}, by chance)")
    counts_KK = confusion(found.label_N, found.logits_NK.argmax(axis=1), len(model.classes))
    tables = [per_class_table(counts_KK[None], model.classes)]
    if pairs := confused_pairs(counts_KK, MOST_PAIRS):
        tables.append(pairs_table(pairs, counts_KK, model.classes))
    for table in tables:
        print_table(table.title, table.columns, [[entry.text for entry in cells] for cells in table.rows])
