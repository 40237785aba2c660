"""`tricks train`: one recipe, once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_base, add_corrupt, add_json, add_log, add_machine, new_command
from bagoftricks.errors import DeviceMemoryError, UserError
from bagoftricks.flags import recipe_changes

if TYPE_CHECKING:
    from bagoftricks.data.index import ImageIndex
    from bagoftricks.recipe import Recipe
    from bagoftricks.training.fit import Listener
    from bagoftricks.training.hardware import Hardware
    from bagoftricks.training.train import Result


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "train", run, "train one recipe once and keep the model",
        (
            "tricks train --data photos --init resnet50.safetensors --epochs 5",
            "tricks train --data photos --recipe recipe.toml --mixup.alpha 0.2 --seed 1",
        ),
    )  # fmt: skip
    group = command.add_argument_group("training")
    group.add_argument("--data", required=True, help="a folder of images, Caltech-101, or 'digits'")
    add_base(group)
    group.add_argument("--seed", type=int, default=0, help="of split, initial weights, order and augmentation [0]")
    group.add_argument("--out", type=Path, default=Path("trained"), help="folder for the run [trained]")
    group.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=5.0,
        metavar="MINUTES",
        help="between checkpoints within an epoch, from which a run that was cut off goes on; 0 is none at all [5]",
    )
    group.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help="images at once through the network; halved by itself where the device's memory does not suffice",
    )
    add_corrupt(group)
    add_log(group)
    add_json(group)
    add_machine(command, trains=True)


def run(options: argparse.Namespace) -> int:
    """Trains once."""
    from bagoftricks.console import note, print_result, say_hashed
    from bagoftricks.data.soundness import sound
    from bagoftricks.data.sources import open_data
    from bagoftricks.files import check_output
    from bagoftricks.loggers import open_loggers
    from bagoftricks.progress import TrainProgress
    from bagoftricks.store import BusyError
    from bagoftricks.studies.memory import SMALLEST
    from bagoftricks.studies.study_file import load_recipe
    from bagoftricks.training.checks import check_fit
    from bagoftricks.training.fit import Listener
    from bagoftricks.training.hardware import cores, detect
    from bagoftricks.training.train import run_identity

    if options.checkpoint_minutes < 0:
        raise UserError(f"--checkpoint-minutes {options.checkpoint_minutes}: must be at least 0")
    if options.micro_batch is not None and options.micro_batch < SMALLEST:
        raise UserError(f"--micro-batch {options.micro_batch}: must be at least {SMALLEST}")
    recipe = load_recipe(options.recipe).with_fields(recipe_changes(options))
    hardware = detect(options.device, options.precision, deterministic=options.deterministic, kernels=options.kernels)
    index = open_data(options.data)
    check_output(options.out, index.folders)
    index, left = sound(index, workers=cores(), on_look=say_hashed, allow=options.allow_corrupt)
    if left:
        note(left.sentence())
    check_fit(recipe, index, options.seed)
    with (
        open_loggers(options.log, options.out, index.name) as logs,
        TrainProgress(recipe.epochs) as progress,
    ):
        run_id, trained = run_identity(recipe, index, options.seed, hardware), []
        name = f"{index.name} seed {options.seed}"
        logs.start(run_id, name, recipe.flat(), cell=index.name, seed=options.seed)

        def on_epoch(row: dict[str, float]) -> None:
            progress.on_epoch(row)
            logs.epoch(run_id, row)
            trained.append(row["epoch"])

        listener = Listener(
            on_image=progress.on_image,
            on_weights=progress.on_weights,
            on_teacher=progress.on_teacher,
            on_adapt=progress.on_adapt,
            on_resume=progress.on_resume,
            on_step=progress.on_step,
            on_epoch=on_epoch,
        )
        try:
            result = _train(recipe, index, options, hardware, listener, progress.say)
        except BusyError:  # it is logged by the process that trains it
            raise
        except Exception:
            logs.finish(run_id, {}, "failed")
            raise
        if trained:  # and not found
            logs.finish(run_id, result.measures, "done")
    if options.json:
        print(
            json.dumps(
                {"id": result.id, "folder": str(result.folder), **result.measures, "history": result.history}, indent=2
            )
        )
    else:
        print_result(result)
    return DONE


def _train(
    recipe: Recipe,
    index: ImageIndex,
    options: argparse.Namespace,
    hardware: Hardware,
    listener: Listener,
    say: Callable[[str], None],
) -> Result:
    """Trains, with ever smaller micro-batches where the device has too little memory."""
    from bagoftricks.studies.memory import smaller
    from bagoftricks.training.train import train as train_once

    micro_batch = options.micro_batch
    while True:
        try:
            return train_once(
                recipe,
                index,
                seed=options.seed,
                out=options.out,
                hardware=hardware,
                listener=listener,
                micro_batch=micro_batch,
                checkpoint_minutes=options.checkpoint_minutes,
            )
        except DeviceMemoryError as error:
            used = min(micro_batch or recipe.batch_size, recipe.batch_size)
            micro_batch = smaller(used)
            if micro_batch is None:
                raise
            say(f"{error}; going on with {micro_batch}")
