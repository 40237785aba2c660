"""Images per second of training a ResNet-50, from image files to updated weights: ours and others, in turn.

    python bench/throughput.py --data caltech-101 --out bench/results/throughput.json
    python bench/throughput.py --synthetic-photos --size 128        # no data needed

Every measurement is a process of its own, one at a time; contenders take turns, so that a drift of the machine meets
all of them. A bench that is cut off goes on where it stopped, with the same --out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.budget import Budget
from bench.contenders.job import Contender, Job, contenders
from bench.driver import PATIENCE_S, Setting, prepare, run_job
from bench.journal import Journal
from bench.machine import describe, installed, load, same
from bench.throughput_tables import report

PROBE_STEPS, PROBE_SECONDS = 4, 20.0
MATRIX = {"cpu": 4096, "cuda": 8192, "mps": 4096}


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    found = argparse.ArgumentParser(prog="bench/throughput.py", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--data", type=Path, help="a folder of class folders")
    found.add_argument("--synthetic-photos", type=int, nargs="?", const=2048, metavar="N", help="make N JPEGs [2048]")
    found.add_argument("--size", type=int, nargs="+", default=[224, 128], help="pixels [224 128]")
    found.add_argument("--batch", type=int, default=64, help="images a step [64]")
    found.add_argument("--repeats", type=int, default=3, help="rounds in turn [3]")
    found.add_argument("--steps", type=int, default=30, help="most steps of one measurement [30]")
    found.add_argument("--seconds", type=float, default=25.0, help="most seconds of one measurement [25]")
    found.add_argument("--warmup", type=int, default=3, help="least steps before the clock starts [3]")
    found.add_argument("--only", nargs="+", metavar="NAME", help="these contenders alone")
    found.add_argument("--tasks", nargs="+", choices=("train", "data", "eval"), default=["train", "data", "eval"])
    found.add_argument("--no-tune", action="store_true", help="take each flag's first value; try nothing")
    found.add_argument("--eval-images", type=int, default=2048, help="most images to evaluate on [2048]")
    found.add_argument("--matrix", type=int, help="side of the matrices multiplied [4096; on a GPU 8192]")
    found.add_argument("--device", default="auto", help="auto, cpu, cuda or mps [auto]")
    found.add_argument("--threads", type=int, help="of every contender [all cores, or OMP_NUM_THREADS]")
    found.add_argument("--python", default=sys.executable, help="interpreter of the contenders [this one]")
    found.add_argument("--work", type=Path, default=Path("bench/work"), help="folder for files and caches [bench/work]")
    found.add_argument("--out", type=Path, default=Path("bench/results/throughput.json"), help="JSON")
    found.add_argument("--fresh", action="store_true", help="replace what --out holds of other settings")
    found.add_argument("--max-minutes", type=float, default=1e6, help="begin nothing that would not end by then")
    found.add_argument("--json", action="store_true", help="print the JSON on standard output too")
    return found


class Bench:
    """Measures what the journal lacks."""

    def __init__(self, options: argparse.Namespace, device: str, threads: int) -> None:
        self.options, self.device, self.threads = options, device, threads
        self.all = contenders(threads, device)
        if unknown := set(options.only or ()) - set(self.all):
            raise SystemExit(f"--only {' '.join(sorted(unknown))}: choose from {', '.join(self.all)}")
        chosen = [c for c in self.all.values() if not options.only or c.name in options.only]
        self.absent = {c.name: c.missing(installed) for c in chosen if c.missing(installed)}
        self.chosen = [c for c in chosen if c.name not in self.absent]
        self.budget = Budget(60 * options.max_minutes)
        self.setting: Setting = prepare(
            options.data,
            options.work,
            batch=options.batch,
            photos=options.synthetic_photos or 0,
            eval_images=options.eval_images,
            python=options.python,
        )
        machine = describe(threads, device)
        settings = {
            "data": self.setting.data.name,
            "images": dict(self.setting.images),
            "classes": self.setting.classes,
            **{name: getattr(options, name) for name in ("batch", "steps", "seconds", "warmup")},
            "device": device,
            "threads": threads,
            "machine": same(machine),
        }
        head = {"what": "throughput", "machine": machine}
        self.journal = Journal.open(options.out, settings, head, fresh=options.fresh)
        for entry in self.journal.entries:  # of an earlier call
            self.budget.took(f"{entry['task']}:{entry['contender']}:{entry['kind']}", entry.get("seconds", 0.0))
        self.cut_off = False

    def job(self, task: str, contender: str, size: int, flags: dict[str, Any], *, probe: bool = False) -> Job:
        """Returns what to ask a contender's process."""
        side = "eval-small" if probe else "eval"
        return Job(
            task, contender, size, self.options.batch, str(self.setting.tree), str(self.setting.data),
            str(self.setting.work), self.setting.classes, self.device, self.threads, self.options.warmup,
            min(PROBE_STEPS, self.options.steps) if probe else self.options.steps,
            min(PROBE_SECONDS, self.options.seconds) if probe else self.options.seconds,
            side, self.setting.members[side], self.setting.images[side], flags,
        )  # fmt: skip

    def measure(self, job: Job, *, repeat: int, kind: str) -> dict[str, Any] | None:
        """Returns an entry of the journal, measured now where it is lacking; None where there is no time left."""
        flags = dict(job.options)
        key = {"task": job.task, "contender": job.contender, "size": job.size, "repeat": repeat, "kind": kind}
        key["flags"] = flags
        if found := self.journal.find(**key):
            return found
        budgeted = f"{job.task}:{job.contender}:{kind}"
        if not self.budget.allows(budgeted, 30.0):
            self.cut_off = True
            return None
        before = load()
        shown = f"{kind} {job.task} {job.contender} {job.size} px, round {repeat + 1} {flags or ''}"
        print(f"… {shown}", file=sys.stderr, flush=True)
        patience = min(PATIENCE_S, max(1.0, self.budget.left - job.seconds))
        answer = run_job(job, self.setting, f"{job.task}-{job.contender}-{job.size}-{kind}-{repeat}", patience)
        self.budget.took(budgeted, answer["seconds"])
        if "result" in answer:
            answer["result"]["load_before"] = before
            rate = answer["result"].get("images_per_s")
            print(f"  {rate:,.1f} img/s" if rate else f"  {answer['result']}", file=sys.stderr, flush=True)
        else:
            print(f"  failed: {answer['error']}", file=sys.stderr, flush=True)
            if patience < PATIENCE_S and self.budget.left < 1:  # it had less time than it may need
                self.cut_off = True
                return None
        self.journal.add({**key, **answer})
        return self.journal.entries[-1]

    def tuned(self, contender: Contender, task: str) -> dict[str, Any]:
        """Returns a contender's fastest flags: each flag's values are tried in turn, and the best one kept.

        They are tried at the first of the sizes, and hold for all; evaluation has training's, and tries its own beside.
        """
        size = self.options.size[0]
        if task == "eval":
            axes = contender.evaluation
            flags = self.tuned(contender, "train") | {name: values[0] for name, values in axes.items()}
        else:
            axes = contender.axes
            flags = dict(contender.fixed) | {name: values[0] for name, values in axes.items()}
        if self.options.no_tune or all(len(values) < 2 for values in axes.values()):
            return flags

        def rate(tried: dict[str, Any]) -> float:
            entry = self.measure(self.job(task, contender.name, size, tried, probe=True), repeat=0, kind="probe")
            return float((entry or {}).get("result", {}).get("images_per_s", 0.0))

        best = rate(flags)
        for name, values in axes.items():
            for value in values[1:]:
                if (found := rate(flags | {name: value})) > best:
                    best, flags = found, flags | {name: value}
        return flags

    def run(self) -> None:
        """Tries flags, then measures in rounds."""
        for size in self.options.size:
            for task in self.options.tasks:
                flags = {
                    c.name: self.tuned(c, "eval" if task == "eval" else "train") for c in self.chosen if task in c.tasks
                }
                for repeat in range(self.options.repeats):
                    turns: list[tuple[str, str]] = [(task, name) for name in flags]
                    if task == "train" and "ours" in flags:
                        turns += [("step", "ours"), ("loop", "ours"), ("matmul", "bfloat16"), ("matmul", "float32")]
                    # every other round backwards, so that a steady drift favours nobody
                    for what, name in turns if repeat % 2 == 0 else reversed(turns):
                        own = {"dtype": name, "size": self._matrix()} if what == "matmul" else flags[name]
                        self.measure(self.job(what, name, size, own), repeat=repeat, kind="round")

    def _matrix(self) -> int:
        return int(self.options.matrix or MATRIX.get(self.device, 4096))


def main(arguments: list[str] | None = None) -> int:
    """Runs the bench and prints its tables."""
    options = parser().parse_args(arguments)
    if (options.data is None) == (options.synthetic_photos is None):
        parser().error("pass --data with a folder of class folders, or --synthetic-photos")
    from bagoftricks.errors import RunError, UserError
    from bagoftricks.training.hardware import detect

    try:
        hardware = detect(options.device, "auto", options.threads)
        bench = Bench(options, hardware.device, hardware.threads)
        bench.run()
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    bench.journal.tail["complete"] = not bench.cut_off
    report(bench.journal, bench.chosen, bench.absent, options.size, as_json=options.json)
    if bench.cut_off:
        print("Out of time: the same command goes on where this one stopped.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
