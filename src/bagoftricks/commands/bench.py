"""`tricks bench`: how fast this machine trains, and what a study will cost on it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from bagoftricks.commands import DONE, add_json, add_machine, new_command
from bagoftricks.errors import UserError

if TYPE_CHECKING:
    from bagoftricks.studies.design import Study
    from bagoftricks.training.speed import Speed

SIZES = (64, 128, 224)
IMAGES = 8_677
"""Of Caltech-101, the paper's data set."""
LEAST_S, MOST_S = 5.0, 3600.0
MOST_PIXELS = 1024
TRAIN_SHARE = 0.8
"""Of the images, the rest validates."""


def add(commands: Any) -> None:
    """Adds the command."""
    command = new_command(
        commands, "bench", run, "measure how fast this machine trains, and what a study will cost on it",
        ("tricks bench", "tricks bench --study paper --images 8677 --sizes 64 128",
         "tricks bench --precision fp32 --seconds 30 --json"),
    )  # fmt: skip
    command.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, metavar="PIXELS", help="image sizes [64 128 224]"
    )
    command.add_argument("--batch-size", type=int, default=64, help="images of a training step [64]")
    command.add_argument("--seconds", type=float, default=80.0, help="about how long it may take [80]")
    command.add_argument("--study", default="paper", help="the study whose hours are told: a preset or a file [paper]")
    command.add_argument("--images", type=int, default=IMAGES, help="images of its data set [8677, as Caltech-101]")
    add_json(command)
    add_machine(command, trains=True)


def run(options: argparse.Namespace) -> int:
    """Measures and prints."""
    from bagoftricks.console import note
    from bagoftricks.studies.study_file import load_study
    from bagoftricks.training.hardware import detect
    from bagoftricks.training.speed import measure_speed

    for size in options.sizes:
        if not 32 <= size <= MOST_PIXELS:
            raise UserError(f"--sizes {size}: must be from 32 to {MOST_PIXELS} pixels")
    if not LEAST_S <= options.seconds <= MOST_S:
        raise UserError(f"--seconds {options.seconds:g}: must be from {LEAST_S:g} to {MOST_S:g}")
    for flag, value in (("--batch-size", options.batch_size), ("--images", options.images)):
        if value < 2:
            raise UserError(f"{flag} {value}: must be at least 2")
    study = load_study(options.study)
    speed = measure_speed(
        tuple(dict.fromkeys(options.sizes)),
        detect(options.device, options.precision, deterministic=options.deterministic, kernels=options.kernels),
        batch_size=options.batch_size,
        seconds=options.seconds,
        progress=lambda what: note(f"Measuring {what} …"),
    )
    hours = {rates.size: study_hours(study, options.images, rates.train, speed) for rates in speed.rates}
    if options.json:
        print(json.dumps({**speed.to_dict(), "study": study.name, "images": options.images, "hours": hours}, indent=2))
    else:
        _print(speed, study, options.images, hours, options.kernels)
    return DONE


def study_hours(study: Study, images: int, train_rate: float, speed: Speed) -> float:
    """Returns the hours of a study's runs on `images` images, at the better of the ways to share the machine.

    All cells are taken to cost what ResNet-50-B costs at this size; A, C and D differ by some percent.
    """
    from bagoftricks.studies.cost import EVALUATION_SHARE

    per_image = TRAIN_SHARE + EVALUATION_SHARE * (1 - TRAIN_SHARE)
    epochs = sum(cell.recipe.epochs for cell in study.cells) * len(study.seeds)
    gain = max(1.0, speed.sharing.together / speed.sharing.alone) if speed.sharing else 1.0
    return epochs * images * per_image / (train_rate * gain) / 3600


def _print(speed: Speed, study: Study, images: int, hours: dict[int, float], asked: str) -> None:
    from bagoftricks.console import duration, print_table, say

    machine = speed.hardware
    threads = f", {speed.cores} cores" if machine.device == "cpu" else ""
    rate = f"matrix products at {speed.matmul_gflops:,.0f} GFLOP/s"
    say(f"Machine: {machine.device}, {machine.precision}{threads}; {rate}")
    if machine.kernels == "native":
        say("Kernels: native, this project's own")
    elif asked == "torch":
        say("Kernels: torch's")
    elif (machine.device, machine.precision) == ("cpu", "bf16"):
        from bagoftricks.training.hardware import why_not_native

        missing = why_not_native(machine.device, machine.precision)
        say(f"Kernels: torch's; none of our own, which are faster: {missing}")
    say(f"Decoding: {speed.decode:,.0f} JPEG photographs a second, once for a study")
    runs = len(study.cells) * len(study.seeds)
    heads = ("Pixels", "Training", "Evaluation", "Share of matrix rate", "Making batches", f"{study.name}: {runs} runs")
    rows = [
        (
            str(rates.size), f"{rates.train:,.1f}", f"{rates.evaluate:,.1f}", f"{rates.matmul_share:.0%}",
            f"{rates.batch_share:.1%} of the time", duration(3600 * hours[rates.size]),
        )
        for rates in speed.rates
    ]  # fmt: skip
    print_table("ResNet-50, images a second", heads, rows)
    if pair := speed.sharing:
        gain = pair.together / pair.alone - 1
        advice = f"use --jobs {pair.jobs} for a study" if gain > 0.03 else "one run at a time is as good"
        say(
            f"{pair.jobs} runs at a time, a core each: {pair.together:,.1f} images a second in all at {pair.size} "
            f"pixels, one at a time {pair.alone:,.1f} ({gain:+.0%}): {advice}"
        )
    say(f"The study's hours are for {images:,} images; `tricks study --dry-run` tells them for yours.")
