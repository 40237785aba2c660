"""What can only be known with recipe, data, weights and network together, looked at before anything is trained."""

from __future__ import annotations

import numpy as np
import torch

from bagoftricks.data.arrays import MOST_ARRAYS
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.split import Split, split
from bagoftricks.errors import UserError, first_line
from bagoftricks.models.build import build, cost
from bagoftricks.recipe import Recipe
from bagoftricks.store import RESULT, StoredRun
from bagoftricks.training.initial import SCRATCH, check_initial, initial_file
from bagoftricks.training.teacher import check_teacher
from bagoftricks.training.teacher_source import not_held_back, on_same_data
from bagoftricks.tricks.base import Trick

BESIDE = 512
"""Bytes that a run keeps of a validation image beside its logits, its name among them, with much to spare."""


def check_fit(recipe: Recipe, index: ImageIndex, seed: int) -> Split:
    """Returns the split, after checking what can only be known with recipe, data and weights together.

    Raises:
        UserError: if a batch is larger than the training set, a trick would change nothing, the backbone is none of
            timm's or does not go with the recipe, the initial weights are missing, do not fit, or have learnt from
            the validation images, or the logits of these are more than a run's file may hold.
    """
    sides = split(index, recipe.split, seed)
    _check_sizes(recipe)
    if recipe.batch_size > len(sides.train):
        raise UserError(
            f"batch_size = {recipe.batch_size}: larger than the training set of {len(sides.train)} images; lower it"
        )
    if len(sides.val) * (4 * index.num_classes + BESIDE) > MOST_ARRAYS:
        raise UserError(
            f"{len(sides.val):,} validation images of {index.num_classes:,} classes: their logits are more than the "
            f"{MOST_ARRAYS // 2**30} GiB that a run may keep; hold out fewer by a lower --split.val-fraction"
        )
    if not recipe.model.is_resnet:
        check_backbone(recipe, index.num_classes)
    check_initial(recipe, index.num_classes)
    check_held_back(recipe, index, seed)
    check_teacher(recipe, index, sides.val, seed)
    return sides


def _check_sizes(recipe: Recipe) -> None:
    """Refuses a trick of smaller images that changes none: a study would compare a recipe with itself."""
    full = recipe.input.size
    for name, trick in recipe.tricks.items():
        sizes = (trick.on_size(full, epoch, recipe.epochs) for epoch in range(recipe.epochs))
        if type(trick).on_size is not Trick.on_size and all(size == full for size in sizes):
            raise UserError(
                f"{name}: changes no images of {full} pixels; make them smaller by it, or input.size larger"
            )


def check_held_back(recipe: Recipe, index: ImageIndex, seed: int) -> str:
    """Returns why the initial weights may know the images that are to tell how good a run is; "" where they do not.

    Raises:
        UserError: if they are of a run on the same data that has learnt from them, saying how many they are.
    """
    if recipe.init == SCRATCH:
        return ""
    run = StoredRun(initial_file(recipe).path.parent)
    if not (run.folder / RESULT).is_file():
        return ""
    sides = split(index, recipe.split, seed)
    # a test set that was locked away then, too, is the same one on the same data
    judges = sides.val if run.result.get("test_images") else np.concatenate([sides.val, sides.test])
    what = "validation images" if len(judges) == len(sides.val) else "validation and test images"
    seen = not_held_back(run, index, judges)
    if not seen:
        return ""
    if on_same_data(run, index):
        raise UserError(
            f"init = {recipe.init}: was trained on {seen:,} of the {len(judges):,} {what} of seed {seed}, which would "
            "flatter the result; start from other weights, or from a run with that seed's split"
        )
    held = run.names() or []
    if 2 * len(set(held) & set(index.names)) < len(held):  # it is of other images altogether
        return ""
    return (
        f"the initial weights are of a run on other data, and {seen:,} of the {len(judges):,} {what} were not among "
        "those it was validated on: it may know them"
    )


def check_backbone(recipe: Recipe, num_classes: int) -> None:
    """Refuses a backbone that timm does not have, and tricks or sizes of images that it cannot do with.

    Raises:
        UserError: saying which.
    """
    with torch.device("meta"):
        network = build(recipe.model, num_classes)
    for name, _ in network.named_parameters():
        network.depth_of(name)
    for trick in recipe.tricks.values():
        trick.on_model(network)
    for side in recipe.sizes:
        try:
            cost(recipe.model, num_classes, side)
        except (RuntimeError, AssertionError, ValueError) as error:
            acting = [name for name, trick in recipe.tricks.items() if type(trick).on_size is not Trick.on_size]
            remedy = f"leave {' and '.join(acting)} off" if side != recipe.input.size else "pass another --size"
            raise UserError(
                f"{recipe.model.backbone} takes no images of {side} pixels ({first_line(error)[:120]}): {remedy}"
            ) from error
