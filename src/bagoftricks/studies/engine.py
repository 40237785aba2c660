"""The local engine: each run a process of its own, started from a server that has already imported torch.

A process that dies, or shows no life for long, costs its run an attempt; several engines may share one folder: a run
that another one holds is left to it, and looked at again until it is there or free.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import StorageError
from bagoftricks.files import is_locked
from bagoftricks.recipe import Recipe
from bagoftricks.store import Store
from bagoftricks.studies import memory, processes
from bagoftricks.studies.interrupts import Interrupts
from bagoftricks.studies.processes import Worker
from bagoftricks.studies.worker import Trainer, train_task

if TYPE_CHECKING:
    from bagoftricks.training.hardware import Hardware

POLL_S = 1.0
"""Between two looks at what other processes do, at the longest."""
RETRIES, STALL_S = 2, 600.0


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
    micro_batch: int | None = None
    """Images at once where the device has no memory for a batch; set by the engine."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a task."""

    kind: str
    """started (once), weights, epoch (each number once), done, failed; busy (once): another process is training the
    same run; found: it has finished it; retrying: an attempt died; memory: it runs again with fewer images at once."""
    task: Task
    row: dict[str, float] = field(default_factory=dict)
    """The epoch's measures, of kind "epoch"."""
    text: str = ""
    """What became of the initial weights, of kind "weights"; why, in one line, of "failed", "retrying", "memory"."""
    seconds: float = 0.0
    """Since the start of the task's process."""


def run_all(
    tasks: Iterable[Task],
    jobs: int,
    on_event: Callable[[Event], None],
    *,
    retries: int = RETRIES,
    stall_s: float = STALL_S,
    trainer: Trainer | None = None,
) -> None:
    """Runs every task that its folder does not hold, `jobs` at a time; one that fails does not stop the others.

    Why it failed is recorded in the folder; what another process records there from now on counts as failed, too.

    Args:
        tasks: what to do, in order.
        jobs: processes at a time.
        on_event: called with what happens.
        retries: how often a run is tried again whose process died, or was killed as it hung. What fails with an error
            would fail again, and is not.
        stall_s: seconds without a step, an image or an epoch after which a process counts as hung.
        trainer: what a process does with its task; by default it trains.

    Raises:
        KeyboardInterrupt: after ending the processes at work; what is finished is kept.
        StorageError: likewise, if the folder has gone or the disk is full; no run has failed then.
    """
    _Engine(list(tasks), jobs, on_event, retries, stall_s, trainer or train_task).run()


class _Engine:
    def __init__(
        self,
        tasks: list[Task],
        jobs: int,
        on_event: Callable[[Event], None],
        retries: int,
        stall_s: float,
        trainer: Trainer,
    ) -> None:
        self.jobs, self.on_event, self.retries, self.stall_s, self.trainer = jobs, on_event, retries, stall_s, trainer
        self.waiting, self.workers = deque(tasks), list[Worker]()
        self.said: set[tuple[str, str]] = set()
        self.crashes: Counter[str] = Counter()
        self.epochs: dict[str, float] = {}
        """The last epoch told of each task."""
        self.failures = {task.id: _stamp(task) for task in tasks}
        plans = {task.out: Store(task.out).plan for task in tasks}
        self.there = [plan if plan.exists() else out for out, plan in plans.items() if out.exists()]
        """What is there as long as the folders are: a folder that has gone may be created again by a process at work,
        but without its plan."""

    def run(self) -> None:
        with Interrupts(lambda: processes.kill(self.workers)) as interrupts:
            try:
                clock = time.monotonic()
                while self.waiting or self.workers:
                    interrupts.check()
                    self._check_there()
                    self._fill()
                    self._listen()
                    # where this process itself stood still (Ctrl-Z, a slow logger), so may have its workers
                    now = time.monotonic()
                    self._end_silent(min(now - clock, 2 * POLL_S))
                    clock = now
                interrupts.check()
            finally:
                interrupts.ending = True
                processes.end(self.workers)

    def _say(self, kind: str, task: Task, **more: Any) -> None:
        self.on_event(Event(kind, task, **more))

    def _say_once(self, kind: str, task: Task) -> None:
        if (kind, task.id) not in self.said:
            self.said.add((kind, task.id))
            self._say(kind, task)

    def _check_there(self) -> None:
        for path in self.there:
            if not path.exists():
                folder = path.parent if path.name == "plan.json" else path
                raise StorageError(
                    f"{folder}: the folder has gone; put it back, or choose another, and give the same command again"
                )

    def _fill(self) -> None:
        while len(self.workers) < self.jobs and (task := self._next()):
            if not self._start(task):
                break

    def _next(self) -> Task | None:
        """Takes the first waiting task that is still to do and not held by another process."""
        for task in list(self.waiting):
            store = Store(task.out)
            # looked at first: who lets go of a run between the two looks has published it by the second
            held = sys.platform != "win32" and is_locked(store.locks / task.id)  # there, a lock may outlive its owner
            if store.get(task.id):
                self._say("found", self._take(task))
            elif _stamp(task) not in (None, self.failures[task.id]):
                try:
                    text = store.failure(task.id)
                except FileNotFoundError:  # removed this moment: the run has succeeded
                    continue
                self._say("failed", self._take(task), text=text or "")
            elif held:
                self._say_once("busy", task)
            else:
                return self._take(task)
        return None

    def _take(self, task: Task) -> Task:
        self.waiting = deque(other for other in self.waiting if other is not task)
        return task

    def _start(self, task: Task) -> bool:
        limit = memory.read_limit(task.out)
        task = replace(task, micro_batch=limit if limit and limit < task.recipe.batch_size else None)
        worker, theirs = processes.prepare(task, self.trainer)
        self.workers.append(worker)
        try:
            processes.start(worker, theirs)
        except (OSError, EOFError) as error:
            self.workers.remove(worker)
            worker.connection.close()
            self._attempt_lost(task, f"its process could not be started ({error or type(error).__name__})", 0.0)
            return False
        self._say_once("started", task)
        return True

    def _listen(self) -> None:
        ready = wait([worker.connection for worker in self.workers], POLL_S)
        for worker in [w for w in self.workers if w.connection in ready]:
            try:
                kind, content = worker.connection.recv()
            except (EOFError, OSError):  # the second where it died in the middle of a message
                self._settle(worker)
                continue
            worker.silent = 0.0
            self._hear(worker, kind, content)

    def _hear(self, worker: Worker, kind: str, content: Any) -> None:
        task, seconds = worker.task, worker.seconds
        if kind == "epoch":
            if content["epoch"] > self.epochs.get(task.id, 0):  # a later attempt tells of earlier ones again
                self.epochs[task.id] = content["epoch"]
                self._say("epoch", task, row=content, seconds=seconds)
        elif kind == "weights":
            self._say("weights", task, text=content, seconds=seconds)
        elif kind != "alive":
            worker.outcome = (kind, content)

    def _end_silent(self, seconds: float) -> None:
        for worker in self.workers:
            worker.silent += seconds
            if worker.silent > self.stall_s and not worker.cause:
                worker.cause = f"it did nothing for {self.stall_s / 60:g} min"
                worker.process.kill()

    def _settle(self, worker: Worker) -> None:
        """Draws the consequence of how a process ended."""
        kind, text = processes.settle(worker)
        self.workers.remove(worker)
        task, seconds = worker.task, worker.seconds
        if kind == "storage":
            raise StorageError(text)
        if kind == "done" or Store(task.out).get(task.id):  # it is there, whatever happened afterwards
            self._say("done", task, seconds=seconds)
        elif kind == "busy":
            self._say_once("busy", task)
            self.waiting.append(task)
        elif kind == "memory":
            self._fewer_at_once(task, text, seconds)
        elif kind == "died":
            self._attempt_lost(task, text, seconds)
        else:
            self._failed(task, text, seconds)

    def _attempt_lost(self, task: Task, text: str, seconds: float) -> None:
        self.crashes[task.id] += 1
        lost = self.crashes[task.id]
        if lost > self.retries:
            self._failed(task, f"{text}, at the last of {lost} attempts" if lost > 1 else text, seconds)
            return
        self.waiting.append(task)
        self._say("retrying", task, text=f"{text}; it is tried again ({lost} of {self.retries})", seconds=seconds)

    def _fewer_at_once(self, task: Task, text: str, seconds: float) -> None:
        used = task.micro_batch or task.recipe.batch_size
        limit = memory.halve(task.out, used, f"{task.name}: {text}")
        if limit is None:
            self._failed(task, f"{text}; fewer than {memory.SMALLEST} images at once are of no use", seconds)
            return
        self.epochs.pop(task.id, None)  # they were of whole batches
        self.waiting.appendleft(task)  # so that its block stays together
        how = f"the device has no memory for {used} images at once; from now on runs start with at most {limit}"
        self._say("memory", task, text=how, seconds=seconds)

    def _failed(self, task: Task, text: str, seconds: float) -> None:
        self._check_there()  # else that is why
        Store(task.out).record_failure(task.id, task.name, text)
        self.failures[task.id] = _stamp(task)
        self._say("failed", task, text=text, seconds=seconds)


def _stamp(task: Task) -> int | None:
    """Returns what tells one record of a task's failure from another; None where there is none."""
    try:
        return (Store(task.out).failures / f"{task.id}.json").stat().st_mtime_ns
    except OSError:
        return None
