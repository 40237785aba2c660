"""What a run's own process does: it trains one task, says at least now and then that it lives, and how it ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagoftricks.errors import DeviceMemoryError, RunError, StorageError, UserError, first_line
from bagoftricks.files import storage_errors
from bagoftricks.store import BusyError

if TYPE_CHECKING:
    from bagoftricks.studies.engine import Task

SIGN_S = 1.0
"""Between two signs of life at least."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Reporter:
    """Tells the process that wants the result what happens."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self._last = connection, 0.0

    def send(self, kind: str, content: Any = "") -> None:
        """Sends a message; ends this process where nobody is left to read it."""
        try:
            self.connection.send((kind, content))
        except OSError:
            os._exit(1)
        self._last = time.monotonic()

    def alive(self, *_: Any) -> None:
        """Gives a sign of life, at most one a second: there was a step, or an image."""
        if time.monotonic() - self._last >= SIGN_S:
            self.send("alive")

    def epoch(self, row: Mapping[str, float]) -> None:
        self.send("epoch", dict(row))

    def weights(self, summary: str, warning: str) -> None:
        self.send("weights", f"{summary}. {warning}".strip())


Trainer = Callable[["Task", Reporter], object]
"""What a process does with its task; importable by name."""


def train_task(task: Task, report: Reporter) -> None:
    """Trains a task into its folder."""
    from bagoftricks.training.fit import Listener
    from bagoftricks.training.train import train

    train(
        task.recipe,
        task.index,
        seed=task.seed,
        out=task.out,
        hardware=task.hardware,
        keep_model=task.keep_model,
        micro_batch=task.micro_batch,
        listener=Listener(
            on_image=report.alive,
            on_adapt=report.alive,
            on_step=report.alive,
            on_alive=report.alive,
            on_epoch=report.epoch,
            on_weights=report.weights,
        ),
    )


def work(task: Task, connection: Connection, trainer: Trainer) -> None:
    """Runs one task in a process of its own, and sends what happens; the last message says how it ended.

    Of these: "done", "busy" (another process trains it), "failed" (it would fail again), "memory" (the device has too
    little), "storage" (no run of the study can go on); the last three with the reason in one line.
    """
    for name in ("SIGINT", "SIGHUP"):  # the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _end_with_parent()
    report = Reporter(connection)
    try:
        with storage_errors(task.out):
            trainer(task, report)
        outcome = ("done", "")
    except BusyError:
        outcome = ("busy", "")
    except StorageError as error:
        outcome = ("storage", str(error))
    except DeviceMemoryError as error:
        outcome = ("memory", str(error))
    except (RunError, UserError) as error:
        outcome = ("failed", str(error))
    except Exception as error:  # a bug must cost this run only; its place is said
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        outcome = ("failed", f"{type(error).__name__}: {first_line(error)} ({place})")
    report.send(*outcome)


def _end_with_parent() -> None:
    """Ends this process when the one that wants its result is gone, however it went."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        _die_with_server()


def _die_with_server() -> None:
    """Has the system kill this process when the server that forked it ends, which it does with the parent.

    A thread cannot see to it where native code hangs and lets no other run. The server lives as long as anybody holds
    the other end of its pipe, and hands it to each process it forks, for children of their own; runs have none.
    """
    import ctypes
    from multiprocessing import forkserver

    server = getattr(forkserver, "_forkserver", None)
    pipe = getattr(server, "_forkserver_alive_fd", None)
    if not isinstance(pipe, int):
        return
    with suppress(OSError, AttributeError):
        os.close(pipe)
        server._forkserver_alive_fd = None  # type: ignore[union-attr]
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
