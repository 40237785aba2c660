"""The local engine: each run a process of its own, started from a server that has already imported torch."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import RunError, UserError, first_line
from bagoftricks.recipe import Recipe
from bagoftricks.store import BusyError

if TYPE_CHECKING:
    from bagoftricks.training.hardware import Hardware


@dataclass(frozen=True)
class Task:
    """One training to do; picklable."""

    id: str
    name: str
    cell: str
    recipe: Recipe
    seed: int
    index: ImageIndex
    out: Path
    hardware: Hardware
    keep_model: bool


@dataclass(frozen=True)
class Event:
    """Something that happened to a task."""

    kind: str
    """started, weights, epoch, done, failed, or busy: another process is training the same run."""
    task: Task
    row: dict[str, float] = field(default_factory=dict)
    """The epoch's measures, of kind "epoch"."""
    text: str = ""
    """What became of the initial weights, of kind "weights"; the error in one line, of kind "failed"."""
    seconds: float = 0.0
    """Since the task's start."""


@dataclass
class _Worker:
    task: Task
    process: BaseProcess
    connection: Connection
    started: float
    outcome: tuple[str, str] | None = None


def run_all(tasks: Iterable[Task], jobs: int, on_event: Callable[[Event], None]) -> None:
    """Runs every task, `jobs` at a time; one that fails does not stop the others.

    Raises:
        KeyboardInterrupt: after ending the processes at work; what is finished is kept.
    """
    context: Any = mp.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload(["bagoftricks.training.train", "torch._dynamo"])  # optimisers import the second
    waiting = list(tasks)[::-1]
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                task = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(task, theirs), name=f"tricks {task.name}")
                process.start()
                theirs.close()
                workers.append(_Worker(task, process, ours, time.perf_counter()))
                on_event(Event("started", task))
            ready = wait([worker.connection for worker in workers])
            for worker in [w for w in workers if w.connection in ready]:
                _receive(worker, on_event)
                if worker.connection.closed:
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _receive(worker: _Worker, on_event: Callable[[Event], None]) -> None:
    """Takes one message; at the end of them, the process has ended too."""
    seconds = time.perf_counter() - worker.started
    try:
        kind, content = worker.connection.recv()
    except (EOFError, OSError):  # the second where it died in the middle of a message
        worker.connection.close()
        worker.process.join()
        code = worker.process.exitcode
        kind, text = worker.outcome or ("failed", f"the process ended with status {code}")
        if worker.outcome is None and code is not None and code < 0:
            text = f"the process was killed by {signal.Signals(-code).name}"
        on_event(Event(kind, worker.task, text=text, seconds=seconds))
        return
    if kind == "epoch":
        on_event(Event("epoch", worker.task, row=content, seconds=seconds))
    elif kind == "weights":
        on_event(Event("weights", worker.task, text=content, seconds=seconds))
    else:
        worker.outcome = (kind, content)


def _end_with_parent() -> None:
    """Ends this process when the one that wants its result is gone."""
    parent = mp.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(task: Task, connection: Connection) -> None:
    """Runs one task in a process of its own, and sends what happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from bagoftricks.training.fit import Listener
    from bagoftricks.training.train import train

    try:
        train(
            task.recipe,
            task.index,
            seed=task.seed,
            out=task.out,
            hardware=task.hardware,
            keep_model=task.keep_model,
            listener=Listener(
                on_epoch=lambda row: connection.send(("epoch", row)),
                on_weights=lambda summary, warning: connection.send(("weights", f"{summary}. {warning}".strip())),
            ),
        )
        connection.send(("done", ""))
    except BusyError:
        connection.send(("busy", ""))
    except (RunError, UserError) as error:
        connection.send(("failed", str(error)))
    except Exception as error:  # a bug must cost this run only; its place is said
        import traceback

        last = traceback.extract_tb(error.__traceback__)[-1]
        connection.send(
            ("failed", f"{type(error).__name__}: {first_line(error)} ({Path(last.filename).name}:{last.lineno})")
        )
