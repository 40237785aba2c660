"""Seconds and images from given weights to a target accuracy: ours by default, timm's and fastai's defaults.

    python bench/time_to_accuracy.py --data caltech-101 --weights resnet50.safetensors --size 128

All train on the same split (ours, of --seed 0) from the same file of weights. Seconds count training and data, from the
call on: ours builds its cache in them, fastai trains its frozen epoch in them. Evaluations, one an epoch, are counted
beside. A peer is run with several lengths of schedule, since the length decides when it arrives; its best one counts.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.contenders.job import Job
from bench.driver import Setting, prepare, run_job
from bench.journal import Journal
from bench.machine import describe, installed, load, same
from bench.summary import show

Entry = Mapping[str, Any]
RUNS: dict[str, dict[str, Any]] = {
    "ours": {"needs": (), "epochs": (10,), "flags": {}},
    "timm": {"needs": ("timm",), "epochs": (5, 10), "flags": {"amp": "bfloat16", "channels_last": True}},
    "fastai": {"needs": ("fastai",), "epochs": (1, 3, 5), "flags": {}},
    "fastai-tuned": {"needs": ("fastai",), "epochs": (1, 3, 5), "flags": {"amp": "bfloat16", "channels_last": True}},
}
"""What is needed, the lengths of schedule in epochs, and flags. Ours: 10 is what `tricks train` does by default."""


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    found = argparse.ArgumentParser(prog="bench/time_to_accuracy.py", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--data", type=Path, required=True, help="a folder of class folders")
    found.add_argument("--weights", type=Path, required=True, help="ImageNet weights, with torchvision's keys")
    found.add_argument("--target", type=float, default=0.93, help="validation Top-1 [0.93]")
    found.add_argument("--size", type=int, default=128, help="pixels [128]")
    found.add_argument("--repeats", type=int, default=1, help="rounds in turn [1]")
    found.add_argument("--max-minutes", type=float, default=60.0, help="for one contender's training [60]")
    found.add_argument("--only", nargs="+", choices=tuple(RUNS), help="these contenders alone")
    found.add_argument(
        "--epochs",
        nargs="+",
        default=[],
        metavar="NAME=N,N",
        help="lengths of schedule of a contender, e.g. fastai=1,3",
    )
    found.add_argument("--workers", type=int, help="loader workers of the peers [all cores]")
    found.add_argument("--device", default="auto", help="auto, cpu, cuda or mps [auto]")
    found.add_argument("--threads", type=int, help="of every contender [all cores, or OMP_NUM_THREADS]")
    found.add_argument("--python", default=sys.executable, help="interpreter of the contenders [this one]")
    found.add_argument("--work", type=Path, default=Path("bench/work"), help="folder for files and caches [bench/work]")
    found.add_argument("--out", type=Path, default=Path("bench/results/time_to_accuracy.json"), help="JSON")
    found.add_argument("--fresh", action="store_true", help="replace what --out holds of other settings")
    return found


def schedules(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns the lengths of schedule by contender, e.g. of ["fastai=1,3"].

    Raises:
        ValueError: for a contender or a length that is none.
    """
    found = {name: tuple(run["epochs"]) for name, run in RUNS.items()}
    for text in given:
        name, _, lengths = text.partition("=")
        if name not in RUNS:
            raise ValueError(f"--epochs {text}: choose from {', '.join(RUNS)}")
        numbers = tuple(int(part) for part in lengths.split(",") if part.isdigit())
        if not numbers or min(numbers) < 1 or len(numbers) != len(lengths.split(",")):
            raise ValueError(f"--epochs {text}: whole numbers from 1, as in {name}=1,3")
        found[name] = numbers
    return found


def job(options: argparse.Namespace, setting: Setting, name: str, epochs: int, device: str, threads: int) -> Job:
    """Returns what to ask one contender's process."""
    flags = {
        **RUNS[name]["flags"],
        "weights": str(options.weights.resolve()),
        "target": options.target,
        "epochs": epochs,
        "workers": options.workers if options.workers is not None else threads,
        "train_images": setting.images["train"],
    }
    return Job(
        task="accuracy",
        contender=name,
        size=options.size,
        batch=64,
        tree=str(setting.tree),
        data=str(setting.data),
        work=str(setting.work),
        classes=setting.classes,
        device=device,
        threads=threads,
        warmup=0,
        steps=0,
        seconds=60 * options.max_minutes,
        side="val",
        images=setting.images["val"],
        options=flags,
    )


def best(entries: Sequence[Entry], contender: str) -> dict[str, Any] | None:
    """Returns a contender's fastest length of schedule: its epochs, and medians over repeats; None where none arrived.

    A length counts only if every repeat of it arrived.
    """
    rows = [e for e in entries if e["contender"] == contender and "result" in e]
    found = []
    for epochs in sorted({e["epochs"] for e in rows}):
        results = [e["result"] for e in rows if e["epochs"] == epochs]
        if all(result["reached"] for result in results):
            figures = {f: statistics.median(r[f] for r in results) for f in ("train_s", "eval_s", "images")}
            found.append({"schedule": epochs, "n": len(results), **figures})
    return min(found, key=lambda row: row["train_s"]) if found else None


def summary(entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns each contender's best, and how many times longer than ours each peer takes.

    Of a peer that never arrived only a lower limit is known: its longest try.
    """
    ours, rows = best(entries, "ours"), {}
    for name in dict.fromkeys(e["contender"] for e in entries):
        row = best(entries, name)
        tries = [e["result"]["train_s"] for e in entries if e["contender"] == name and "result" in e]
        rows[name] = {
            "best": row,
            "longer_than_s": None if row or not tries else max(tries),
            "times_ours": row["train_s"] / ours["train_s"] if row and ours else None,
            "times_images": row["images"] / ours["images"] if row and ours else None,
        }
    return rows


def row_of(entry: Entry) -> list[str]:
    """Returns one run's row of the table."""
    name, epochs = entry["contender"], entry["epochs"]
    if "error" in entry:
        return [name, str(epochs), f"failed: {entry['error']}", "", "", "", ""]
    result = entry["result"]
    mark = "" if result["reached"] else "> "
    return [
        name,
        str(epochs),
        f"{mark}{result['train_s']:,.0f}",
        f"{result['eval_s']:,.0f}",
        f"{mark}{result['images']:,.0f}",
        f"{result['best_top1']:.4f}",
        "" if result["reached"] else ("stopped by the clock" if result["out_of_time"] else "never met it"),
    ]


def report(journal: Journal, absent: Sequence[str]) -> None:
    """Prints every run, and the ratios."""
    rows = [row_of(entry) for entry in journal.entries] + [[n, "", "not installed", *[""] * 4] for n in absent]
    target, size = journal.settings["target"], journal.settings["size"]
    headings = ["", "epochs", "training s", "evaluation s", "images", "best Top-1", ""]
    show(f"To {target:g} validation Top-1 at {size} px", headings, rows)
    found = summary(journal.entries)
    ratios = []
    for name, row in found.items():
        if name == "ours":
            continue
        if row["best"] and row["times_ours"]:
            texts = [f"{row['times_ours']:.2f} x", f"{row['times_images']:.2f} x"]
            ratios.append([name, str(row["best"]["schedule"]), *texts])
        elif row["longer_than_s"]:
            ratios.append([name, "", f"did not arrive in {row['longer_than_s']:,.0f} s", ""])
    if ratios:
        show("Peers against ours (above 1: ours is faster)", ["", "best schedule", "seconds", "images"], ratios)
    journal.tail["summary"] = found
    journal.tail["not_installed"] = list(absent)
    journal.save()


def main(arguments: list[str] | None = None) -> int:
    """Runs the bench and prints its tables."""
    options = parser().parse_args(arguments)
    from bagoftricks.errors import RunError, UserError
    from bagoftricks.training.hardware import detect

    try:
        lengths = schedules(options.epochs)
        if not options.weights.is_file():
            raise UserError(f"--weights {options.weights}: no such file")
        hardware = detect(options.device, "auto", options.threads)
        chosen = [name for name in RUNS if not options.only or name in options.only]
        absent = [name for name in chosen if not all(map(installed, RUNS[name]["needs"]))]
        setting = prepare(options.data, options.work, batch=64, python=options.python)
        machine = describe(hardware.threads, hardware.device)
        settings = {
            "data": setting.data.name,
            "images": dict(setting.images),
            "weights": options.weights.name,
            **{name: getattr(options, name) for name in ("target", "size", "max_minutes", "workers")},
            "device": hardware.device,
            "threads": hardware.threads,
            "machine": same(machine),
        }
        head = {"what": "time to accuracy", "machine": machine}
        journal = Journal.open(options.out, settings, head, fresh=options.fresh)
        for repeat in range(options.repeats):
            for name in (n for n in chosen if n not in absent):
                for epochs in lengths[name]:
                    asked = job(options, setting, name, epochs, hardware.device, hardware.threads)
                    measure(journal, setting, asked, epochs, repeat)
    except (UserError, RunError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2
    report(journal, absent)
    return 0


def measure(journal: Journal, setting: Setting, asked: Job, epochs: int, repeat: int) -> None:
    """Runs one training, if the journal lacks it."""
    key = {"contender": asked.contender, "epochs": epochs, "repeat": repeat}
    if journal.find(**key):
        return
    shutil.rmtree(setting.work / "cache", ignore_errors=True)  # ours pays for looking at its images, every time
    print(f"… {asked.contender}, {epochs} epochs, round {repeat + 1}", file=sys.stderr, flush=True)
    before = load()
    answer = run_job(asked, setting, f"accuracy-{asked.contender}-{epochs}-{repeat}")
    if "result" in answer:
        answer["result"]["load_before"] = before
    journal.add({**key, **answer})


if __name__ == "__main__":
    sys.exit(main())
