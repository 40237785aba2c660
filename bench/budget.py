"""Seconds for a whole bench, so that it ends in time and goes on in another call. Imports nothing of the package."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Budget:
    """Seconds for a whole bench: nothing is begun that would probably not end in time."""

    seconds: float
    now: Any = time.monotonic
    began: float = -1.0
    longest: dict[str, float] = field(default_factory=dict)
    """Seconds of the longest piece so far, by kind."""

    def __post_init__(self) -> None:
        if self.began < 0:
            self.began = self.now()

    @property
    def left(self) -> float:
        return self.seconds - (self.now() - self.began)

    def allows(self, kind: str, at_least: float = 0.0) -> bool:
        """Whether there is time for another piece as long as the longest of its kind, or `at_least` seconds."""
        return self.left > max(self.longest.get(kind, 0.0), at_least)

    def took(self, kind: str, seconds: float) -> None:
        """Learns how long a piece took."""
        self.longest[kind] = max(self.longest.get(kind, 0.0), seconds)
