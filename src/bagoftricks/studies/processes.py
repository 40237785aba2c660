"""The processes of the local engine: started from a server that has already imported torch, and surely ended."""

from __future__ import annotations

import multiprocessing as mp
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from bagoftricks.studies.worker import Trainer, work

if TYPE_CHECKING:
    from bagoftricks.studies.engine import Task

PRELOAD = ["bagoftricks.training.train", "torch._dynamo"]
"""What the server imports; optimisers import the second."""
END_S = 5.0
"""A process has this long to end after SIGTERM; then it is killed."""


@dataclass
class Worker:
    """A task and the process that trains it."""

    task: Task
    process: BaseProcess
    connection: Connection
    """Where its messages come in; at their end, the process has ended too."""
    started: float
    silent: float = 0.0
    """Seconds, watched, since its last message."""
    outcome: tuple[str, str] | None = None
    """Its last message: how it ended."""
    cause: str = ""
    """Why it was killed by us."""

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.perf_counter() - self.started


def prepare(task: Task, trainer: Trainer) -> tuple[Worker, Connection]:
    """Returns a worker that is yet to be started, and the end of its connection that is to be closed then."""
    context: Any = mp.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, theirs, trainer), name=f"tricks {task.name}")
    return Worker(task, process, ours, time.perf_counter()), theirs


def start(worker: Worker, theirs: Connection) -> None:
    """Starts a worker's process.

    Raises:
        OSError: if the system has no room for another process.
        EOFError: if the server was killed; it is started again the next time.
    """
    try:
        if sys.platform != "win32":
            from multiprocessing import forkserver

            # Ctrl-C reaches the server as well, which would die of it while it still imports
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                forkserver.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        worker.process.start()
    finally:
        theirs.close()


def settle(worker: Worker) -> tuple[str, str]:
    """Waits for a process that says nothing more, and returns how it ended, or ("died", why)."""
    worker.connection.close()
    worker.process.join(END_S)  # it may hang at its very end, when all is done
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join(END_S)
    return worker.outcome or ("died", worker.cause or cause(worker.process.exitcode))


def kill(workers: Iterable[Worker]) -> None:
    """Ends processes at once."""
    for worker in workers:
        if worker.process.pid:
            worker.process.kill()


def end(workers: Iterable[Worker]) -> None:
    """Ends processes within seconds, and waits until they have."""
    started = [worker for worker in workers if worker.process.pid]
    for worker in started:
        worker.process.terminate()
    deadline = time.monotonic() + END_S
    for worker in started:
        worker.process.join(max(0.0, deadline - time.monotonic()))
    kill(started)
    for worker in started:
        worker.process.join(END_S)
        worker.connection.close()


def cause(code: int | None) -> str:
    """Returns what an exit status says of a process that did not say how it ended."""
    if code is None or code >= 0:
        return f"the process ended with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"the process was killed by {name}{hint}"
