"""`tricks adapt`: weights made to fit another architecture."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bagoftricks.commands import DONE, add_corrupt, add_json, add_machine, new_command


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "adapt", run, "make weights that were trained in one architecture fit another",
        (
            "tricks adapt --from resnet50.safetensors --to BCD --data photos --out resnet50d.safetensors",
            "tricks train --data photos --model A --init adapt:resnet50.safetensors    # the same, within a recipe",
        ),
    )  # fmt: skip
    group = command.add_argument_group("adapting")
    about = "weights to start from: a file, or a name of `tricks weights`"
    group.add_argument("--from", dest="source", required=True, metavar="WEIGHTS", help=about)
    about = "architecture to fit: A, or letters of B to F, as in BCD; the depth stays"
    group.add_argument("--to", required=True, metavar="TWEAKS", help=about)
    about = "a folder of images; its training side teaches, and its labels are not looked at"
    group.add_argument("--data", required=True, help=about)
    group.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors to write")
    group.add_argument("--size", type=int, default=224, help="pixels at which it will be trained [224]")
    group.add_argument("--seed", type=int, default=0, help="of the split and the order of images [0]")
    about = "batches on which the changed parts learn, each by itself"
    group.add_argument("--part-steps", type=int, metavar="N", help=about)
    group.add_argument("--whole-steps", type=int, metavar="N", help="batches on which the whole network learns then")
    add_corrupt(group)
    add_json(group)
    add_machine(command, trains=True)


def run(options: argparse.Namespace) -> int:
    """Adapts, and shows how close each stage comes."""
    from bagoftricks.console import note, print_adaptation, say_hashed
    from bagoftricks.progress import AdaptProgress
    from bagoftricks.training.hardware import detect
    from bagoftricks.training.initial import adapt_weights

    steps = {name: getattr(options, name) for name in ("part_steps", "whole_steps")}
    with AdaptProgress() as progress:
        result = adapt_weights(
            options.source,
            options.to,
            options.data,
            options.out,
            size=options.size,
            seed=options.seed,
            allow_corrupt=options.allow_corrupt,
            hardware=detect(
                options.device, options.precision, deterministic=options.deterministic, kernels=options.kernels
            ),
            on_look=say_hashed,
            on_image=progress.on_image,
            on_step=progress.on_adapt,
            **{name: value for name, value in steps.items() if value is not None},
        )
    if options.json:
        print(json.dumps({"file": str(options.out), **asdict(result)}, indent=2))
    else:
        print_adaptation(result)
        note(f"wrote {options.out}; train with --model {result.target} --init {options.out}")
    return DONE
