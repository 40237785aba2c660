"""What a seed of a study costs: every cell once. Pure arithmetic; `studies.cost` measures, a pilot has measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bagoftricks.studies.design import MOST_SEEDS


@dataclass(frozen=True)
class Price:
    """What a seed costs."""

    seconds_per_seed: float
    """Of every cell once, one run after the other."""
    longest: float
    """Seconds of the longest run."""
    cells: int
    jobs: int
    """Runs at a time."""
    source: str
    """stated, pilot, or measured now."""
    machine: str = ""
    speedup: int = 0
    """Runs that are done in the time of one; 0 for as many as `jobs`."""

    def hours(self, seeds: int) -> float:
        """Returns how long so many seeds take."""
        return max(seeds * self._seed_s, self.longest) / 3600

    @property
    def _seed_s(self) -> float:
        """Seconds of a seed, with others beside it."""
        return self.seconds_per_seed / (self.speedup or self.jobs)

    def seeds(self, hours: float) -> int:
        """Returns the most seeds that fit into some hours, at most as many as a study may have; 0 if none does."""
        if hours * 3600 < self.longest:
            return 0
        count = math.floor(min(hours * 3600 / self._seed_s, MOST_SEEDS) * (1 + 1e-12))
        return count if self.hours(max(1, count)) <= hours * (1 + 1e-9) else 0


def pilot_price(seconds: Mapping[str, Sequence[float]], cells: Sequence[str], jobs: int, machine: str) -> Price | None:
    """Returns what a seed costs by the runs of a pilot; None where it has none.

    Args:
        seconds: of each finished run, by cell; a cell that it lacks is taken to cost the mean of all.
        cells: of the study that is planned.
        jobs: runs at a time.
        machine: of the pilot.
    """
    every = [value for values in seconds.values() for value in values]
    if not every:
        return None
    mean = sum(every) / len(every)
    each = [sum(own) / len(own) if (own := seconds.get(cell)) else mean for cell in cells]
    return Price(sum(each), max(each), len(cells), jobs, "pilot", machine)
