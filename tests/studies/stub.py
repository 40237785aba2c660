"""An engine's tasks without training: each does what a script says, and a journal tells what was done, and by whom.

`python -m tests.studies.stub OUT` runs the tasks of a folder as a study would, as a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

from bagoftricks.cli import _terminating_as_interrupt
from bagoftricks.errors import DeviceMemoryError, RunError
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store
from bagoftricks.studies import processes
from bagoftricks.studies.engine import Event, Task, run_all
from bagoftricks.studies.worker import Reporter

EPOCHS = 3
BATCH = 64


def make_tasks(out: Path, count: int, **recipe: Any) -> list[Task]:
    """Returns tasks named "run 0", "run 1", …, two cells a block."""
    chosen = Recipe().with_fields({"batch_size": BATCH, "epochs": EPOCHS, **recipe})
    nothing = cast(Any, None)
    return [
        Task(f"{i:016x}", f"run {i}", "AB"[i % 2], chosen, i // 2, nothing, out, nothing, False) for i in range(count)
    ]


def write_script(out: Path, script: dict[str, list[str]]) -> None:
    """Says what each attempt at a run does, by the run's name; attempts beyond go well."""
    out.mkdir(exist_ok=True)
    (out / "script.json").write_text(json.dumps(script))


def note(out: Path, *words: object) -> None:
    """Appends a line to the journal, whole, whoever else writes."""
    with (out / "journal").open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def journal(out: Path, kind: str) -> list[list[str]]:
    """Returns the words of the journal's lines of a kind."""
    path = out / "journal"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [words[1:] for words in lines if words[0] == kind]


def train(task: Task, report: Reporter) -> None:
    """Does what the script says; publishes a run as training does."""
    store = Store(task.out)
    if store.get(task.id):
        return
    with store.claim(task.id):
        if store.get(task.id):
            return
        path = task.out / "script.json"
        script = json.loads(path.read_text()) if path.exists() else {}
        attempt = len([1 for words in journal(task.out, "began") if words[0] == task.id])
        note(task.out, "began", task.id, os.getpid())
        acts = script.get(task.name, script.get("*", []))
        act = acts[attempt] if attempt < len(acts) else "well"
        token = f"{os.getpid()}-{time.time_ns()}"
        with store.writing(task.id) as writer:
            for epoch in range(EPOCHS):
                report.epoch({"epoch": epoch + 1, "images_per_s": 1.0})
                writer.epoch({"epoch": epoch + 1})
                if epoch == 1:
                    _behave(act, task, report, writer.folder)
            writer.result({"top1": 0.5, "token": token, "micro_batch": task.micro_batch or task.recipe.batch_size})
        note(task.out, "published", task.id, token)
        if act == "dies after":
            os.kill(os.getpid(), signal.SIGKILL)


def _behave(act: str, task: Task, report: Reporter, folder: Path) -> None:
    kind, _, number = act.partition(" ")
    if kind == "signal":
        os.kill(os.getpid(), int(number))
        time.sleep(60)
    elif kind == "exit":
        os._exit(int(number))
    elif kind == "hang":
        time.sleep(3600)
    elif kind == "freeze":  # in native code that lets no other thread run
        ctypes.PyDLL(None).sleep(3600)
    elif kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(task.out, "deaf", task.id)
        time.sleep(3600)
    elif kind == "slow":
        until = time.monotonic() + float(number)
        while time.monotonic() < until:
            report.alive()
            time.sleep(0.05)
    elif kind == "error":
        raise RunError("the loss became nan")
    elif kind == "bug":
        raise ZeroDivisionError("a bug\nin two lines")
    elif kind == "fits" and (task.micro_batch or task.recipe.batch_size) > int(number):
        raise DeviceMemoryError("out of memory on the device")
    elif kind == "writes":
        (folder / "predictions.npz").write_bytes(bytes(int(number)))


def main() -> int:
    """Runs the tasks of a folder; prints a line for each event. Ends as `tricks study` does."""
    flags = argparse.ArgumentParser()
    flags.add_argument("out", type=Path)
    flags.add_argument("--runs", type=int, default=2)
    flags.add_argument("--jobs", type=int, default=1)
    flags.add_argument("--stall-s", type=float, default=600.0)
    options = flags.parse_args()
    processes.PRELOAD[:] = []  # torch is not needed

    def tell(event: Event) -> None:
        print(event.kind, event.task.name, event.text, flush=True)

    try:
        with _terminating_as_interrupt():
            tasks = make_tasks(options.out, options.runs)
            run_all(tasks, options.jobs, tell, stall_s=options.stall_s, trainer=train)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
