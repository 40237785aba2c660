"""`tricks lr-find`: which learning rate suits a recipe on these images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bagoftricks.commands import DONE, add_base, add_corrupt, add_json, add_machine, new_command
from bagoftricks.flags import recipe_changes


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "lr-find", run, "find a learning rate: the loss against ever higher rates, drawn",
        (
            "tricks lr-find --data photos --init resnet50.safetensors",
            "tricks lr-find --data photos --opt sgd --highest 10 --out lr",
        ),
    )  # fmt: skip
    group = command.add_argument_group("search")
    group.add_argument("--data", required=True, help="a folder of images, Caltech-101, or 'digits'")
    add_base(group)
    group.add_argument("--seed", type=int, default=0, help="of split, initial weights, order and augmentation [0]")
    group.add_argument("--lowest", type=float, default=1e-6, metavar="LR", help="rate of the first step [1e-6]")
    group.add_argument("--highest", type=float, default=1.0, metavar="LR", help="rate of the last step [1]")
    group.add_argument("--steps", type=int, default=100, metavar="N", help="steps; fewer where the loss breaks [100]")
    group.add_argument("--out", type=Path, default=Path("lr-find"), help="folder for SVG, PNG and CSV [lr-find]")
    add_corrupt(group)
    add_json(group)
    add_machine(command, trains=True)


def run(options: argparse.Namespace) -> int:
    """Searches, draws and suggests."""
    from bagoftricks.console import note, print_lr
    from bagoftricks.data.soundness import sound
    from bagoftricks.data.sources import open_data
    from bagoftricks.files import check_output
    from bagoftricks.progress import TrainProgress
    from bagoftricks.reports.lr import write_lr
    from bagoftricks.studies.study_file import load_recipe
    from bagoftricks.training.fit import Listener
    from bagoftricks.training.hardware import cores, detect
    from bagoftricks.training.lr_find import find_lr

    recipe = load_recipe(options.recipe).with_fields(recipe_changes(options))
    hardware = detect(options.device, options.precision, deterministic=options.deterministic, kernels=options.kernels)
    index = open_data(options.data)
    check_output(options.out, index.folders)
    index, left = sound(index, workers=cores(), allow=options.allow_corrupt)
    if left:
        note(left.sentence())
    with TrainProgress(1, "searching") as progress:
        curve = find_lr(
            recipe,
            index,
            seed=options.seed,
            hardware=hardware,
            lowest=options.lowest,
            highest=options.highest,
            steps=options.steps,
            listener=Listener(
                on_image=progress.on_image,
                on_weights=progress.on_weights,
                on_adapt=progress.on_adapt,
                on_step=progress.on_step,
            ),
        )
    for path in write_lr(curve, options.out, recipe.optimizer.lr):
        note(f"wrote {path}")
    if options.json:
        print(json.dumps({**curve.to_dict(), "recipe_lr": recipe.optimizer.lr, "out": str(options.out)}, indent=2))
    else:
        print_lr(curve, recipe.optimizer.lr)
    return DONE
