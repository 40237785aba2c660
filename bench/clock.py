"""A clock for steps of training: nothing counts before the warm-up is over, and a budget ends the measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


class EnoughError(Exception):
    """Raised out of a loop that has no other way to be stopped, when the clock has measured enough."""


@dataclass
class Clock:
    """Counts whole steps between the end of the warm-up and the end of a budget."""

    warmup: int
    """Steps that do not count: compilation, memory, and the batches that workers have prepared meanwhile."""
    steps: int
    """Most steps that count, from 1."""
    seconds: float
    """Seconds after which no further step is begun; one step always counts."""
    settle: Callable[[], None] = lambda: None
    """Waits until the device has done what it was told."""
    now: Callable[[], float] = time.perf_counter
    least: int = 0
    """Steps after which the warm-up may end early, where `patience` is over; 0 for never."""
    patience: float = 0.0
    """Seconds since the first step."""
    look: Callable[[], dict[str, float]] = dict
    """Taken once the measurement has ended and everything is still in memory: figures that join the result."""
    started: float | None = None
    ended: float | None = None
    first: float | None = None
    seen: dict[str, float] = field(default_factory=dict)
    done: int = 0
    """Steps that counted so far."""
    _seen: int = 0
    _left_out: float = 0.0
    _marks: list[float] = field(default_factory=list)

    def tick(self) -> bool:
        """Notes the end of a step, and returns whether enough was measured; later calls change nothing."""
        if self.ended is not None:
            return True
        self._seen += 1
        if self.first is None:
            self.settle()
            self.first = self.now()
        if self.started is None:
            if not self._warm():
                return False
            self.settle()
            self.started, self._left_out = self.now(), 0.0
            return False
        self.done += 1
        self._marks.append(self.now() - self._left_out)
        if self.done >= self.steps or self._marks[-1] - self.started >= self.seconds:
            self.settle()
            self.ended = self.now()
            self.seen = self.look()
        return self.ended is not None

    def _warm(self) -> bool:
        """Whether the warm-up is over."""
        if self._seen >= self.warmup:
            return True
        hurried = 0 < self.least <= self._seen and self.first is not None
        return hurried and self.now() - (self.first or 0.0) >= self.patience

    def leave_out(self, seconds: float) -> None:
        """Takes time off the measurement that something else took, such as an evaluation between two steps."""
        self._left_out += seconds

    @property
    def elapsed(self) -> float:
        """Seconds that counted.

        Raises:
            ValueError: if the budget is not used up: a loop that ended early has measured something else.
        """
        if self.started is None or self.ended is None:
            raise ValueError(f"the loop ended after {self._seen} steps, before its {self.warmup} + {self.steps}")
        return self.ended - self.started - self._left_out

    def result(self, batch: int, began: float | None = None) -> dict[str, float]:
        """Returns images_per_s, steps, seconds and step_s; with `began`, also prepare_s.

        prepare_s is what goes before the first step's own time: reading folders, decoding into a cache, starting
        workers, compiling.
        """
        step = self.elapsed / self.done
        found = {
            "images_per_s": batch / step,
            "steps": float(self.done),
            "seconds": self.elapsed,
            "step_s": step,
        }
        if began is not None and self.first is not None:
            found["prepare_s"] = max(0.0, self.first - began - step)
        return found | self.seen
