"""Ctrl-C, SIGTERM and SIGHUP while a study runs: noted, and heeded between two steps of the engine."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SAME_S = 0.5
"""Signals this near each other are one: a closing terminal, or a shell, may send it to the process and to its group."""


class Interrupts:
    """Takes over, for a while, the signals that would raise KeyboardInterrupt wherever Python happens to be.

    Those that the program ignores (as under nohup), or handles otherwise, stay as they are.
    """

    def __init__(self, kill: Callable[[], None]) -> None:
        """Prepares.

        Args:
            kill: called at a second interrupt; ends at once what else takes its time to end.
        """
        self.kill = kill
        self.ending = False
        """Whether the first one is being heeded, so that a second must not raise."""
        self._first: float | None = None
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Heeds an interrupt.

        Raises:
            KeyboardInterrupt: if there was one.
        """
        if self._first is not None:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
                if signal.getsignal(number) is signal.default_int_handler:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elif now - self._first >= SAME_S:
            self.kill()
            if not self.ending:
                raise KeyboardInterrupt
