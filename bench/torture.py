"""Kills a training again and again, and holds what comes of it to the same training left in peace.

    python bench/torture.py --kills 20
    python bench/torture.py --kills 20 --data caltech-101 --size 64 --epochs 2 --init resnet50.safetensors

Each attempt is `tricks train` in a process of its own, killed with SIGKILL after a time drawn at random: while torch
is imported, while images are decoded, within a step, while a checkpoint is written. The next attempt continues. At the
end weights, predictions, measures and the measures of each epoch must be equal bit for bit, and nothing half-written
may lie about. Exit status 1 if they are not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench.summary import show

TIMES = ("images_per_s", "train_s", "eval_s")
START_S = (1.0, 12.0)
"""Range of seconds that an attempt needs to come to its first step, from which the shortest kills are drawn."""


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    found = argparse.ArgumentParser(prog="bench/torture.py", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--data", default="digits", help="a folder of images, or digits [digits]")
    found.add_argument("--kills", type=int, default=20, help="how often [20]")
    found.add_argument("--seed", type=int, default=0, help="of the moments of killing [0]")
    found.add_argument("--size", type=int, default=32, help="pixels [32]")
    found.add_argument("--epochs", type=int, default=4, help="epochs of the training [4]")
    found.add_argument("--batch", type=int, default=64, help="images a step [64]")
    found.add_argument("--init", default="scratch", help="initial weights [scratch]")
    found.add_argument("--depth", type=int, default=50, help="of the ResNet [50]")
    found.add_argument("--tweaks", default="B", help="of the ResNet: A, B, C, … [B]")
    found.add_argument("--checkpoint-minutes", type=float, default=0.03, help="between checkpoints [0.03]")
    found.add_argument(
        "--work", type=Path, default=Path("bench/work/torture"), help="folder, emptied [bench/work/torture]"
    )
    found.add_argument("--out", type=Path, default=Path("bench/results/torture.json"), help="JSON")
    return found


def command(options: argparse.Namespace, out: Path) -> list[str]:
    """Returns the training's command line."""
    recipe = ["--size", options.size, "--epochs", options.epochs, "--batch-size", options.batch, "--init", options.init]
    recipe += ["--model.depth", options.depth, "--model", options.tweaks, "--mixup.alpha", 0.2]
    where = ["--data", options.data, "--out", out, "--checkpoint-minutes", options.checkpoint_minutes, "--json"]
    return [sys.executable, "-m", "bagoftricks", "train", *map(str, [*where, *recipe])]


def outcome(out: Path) -> dict[str, Any]:
    """Returns all of the one run in a folder that may not depend on interruptions."""
    from safetensors.numpy import load_file

    (folder,) = (path for path in (out / "runs").iterdir() if path.suffix != ".partial")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    with np.load(folder / "predictions.npz") as arrays:
        predictions = {name: arrays[name].tobytes() for name in arrays.files}
    return {
        "weights": {name: array.tobytes() for name, array in load_file(folder / "model.safetensors").items()},
        "predictions": predictions,
        "measures": {name: value for name, value in result.items() if name != "seconds"},
        "epochs": [{name: value for name, value in row.items() if name not in TIMES} for row in rows],
    }


def attempt(options: argparse.Namespace, out: Path, seconds: float | None) -> dict[str, Any]:
    """Starts the training, and kills it after `seconds`; returns what was to be seen of it then."""
    began = time.perf_counter()
    process = subprocess.Popen(command(options, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the training ended with status {process.returncode}: {said[-500:]}")
    partial = list((out / "runs").glob("*.partial")) if (out / "runs").is_dir() else []
    checkpoint = [path.stat().st_mtime_ns for folder in partial for path in folder.glob("checkpoint/state.pt")]
    return {
        "killed": process.returncode != 0,
        "seconds": time.perf_counter() - began,
        "epochs": sum(len((folder / "metrics.jsonl").read_text().splitlines()) for folder in partial
                      if (folder / "metrics.jsonl").exists()),
        "checkpoint": max(checkpoint, default=0),
        "writing_checkpoint": any(list(folder.glob("checkpoint/.*.tmp")) for folder in partial),
        "building_cache": bool(list((out / "cache").glob(".*.tmp"))) if (out / "cache").is_dir() else False,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs the torture and prints what came of it."""
    options = parser().parse_args(arguments)
    shutil.rmtree(options.work, ignore_errors=True)
    calm, killed = options.work / "calm", options.work / "killed"
    print("… undisturbed", file=sys.stderr, flush=True)
    whole = attempt(options, calm, None)
    expected = outcome(calm)

    rng, tries = np.random.default_rng(options.seed), []
    start = float(np.clip(whole["seconds"] / 4, *START_S))
    longest = start + whole["seconds"] / options.kills  # so that the training does not end before the last kill
    while len(tries) < options.kills:
        tries.append(attempt(options, killed, float(rng.uniform(0.05, longest))))
        last = tries[-1]
        print(f"… kill {len(tries)} of {options.kills} after {last['seconds']:.1f} s, {last['epochs']} epochs complete",
              file=sys.stderr, flush=True)  # fmt: skip
        if not last["killed"]:
            tries.pop()
            break
    if list((killed / "runs").glob("*.partial")) or not (killed / "runs").is_dir():
        attempt(options, killed, None)
    found = outcome(killed)
    equal = {name: found[name] == expected[name] for name in expected}
    litter = [str(path.relative_to(killed)) for path in killed.rglob(".*.tmp")]
    written = [one["checkpoint"] for one in tries]
    figures = {
        "kills": len(tries),
        "asked": options.kills,
        "undisturbed_s": whole["seconds"],
        "killed_s": sum(one["seconds"] for one in tries),
        "while_a_checkpoint_was_written": sum(one["writing_checkpoint"] for one in tries),
        "while_the_cache_was_built": sum(one["building_cache"] for one in tries),
        "before_the_first_checkpoint": sum(when == 0 for when in written),
        "equal": equal,
        "left_half_written": litter,
    }
    asked = {name: str(value) for name, value in vars(options).items() if name not in ("work", "out")}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"settings": asked, **figures, "attempts": tries}, indent=2) + "\n")
    show("Torture", ["", ""], [[name.replace("_", " "), str(value)] for name, value in figures.items()])
    if len(tries) < options.kills:
        print(f"error: the training ended after {len(tries)} kills; give it more --epochs", file=sys.stderr)
        return 1
    return 0 if all(equal.values()) and not litter else 1


if __name__ == "__main__":
    sys.exit(main())
