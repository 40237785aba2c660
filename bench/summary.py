"""From measurements to a table: medians, spreads, ratios, and which bars are met. Pure; no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MOST_OUTSIDE = 3.0
"""Percent of a training epoch that may pass outside the model's step."""


@dataclass(frozen=True)
class Spread:
    """A figure over repeats."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns median and range.

        Raises:
            ValueError: for no values.
        """
        if not values:
            raise ValueError("no values to take a median of")
        return cls(statistics.median(values), min(values), max(values), len(values))

    def text(self, digits: int = 1) -> str:
        """For people: "12.3 (12.0 to 12.9)"; the range only where there is one."""
        shown = f"{self.median:,.{digits}f}"
        return shown if self.n < 2 else f"{shown} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """Returns ours over theirs, of figures by repeat; None where no repeat has both.

    The median is that of the repeats' own ratios: contenders of one repeat ran within minutes of each other, so what
    slowed the machine then slowed both.
    """
    both = [ours[r] / theirs[r] for r in sorted(ours.keys() & theirs.keys()) if theirs[r] > 0]
    return Spread.of(both) if both else None


@dataclass(frozen=True)
class Bar:
    """Something that was promised, and whether it holds."""

    name: str
    target: str
    measured: str
    met: bool | None
    """None where it was not measured."""
    everywhere: bool | None = None
    """Whether it holds in every repeat too."""


def at_least(name: str, found: Spread | None, target: float, against: str = "") -> Bar:
    """Returns the bar that a ratio be at least `target`."""
    shown = "not measured" if found is None else found.text(2) + (f" against {against}" if against else "")
    if found is None:
        return Bar(name, f"at least {target:g}", shown, None)
    return Bar(name, f"at least {target:g}", shown, found.median >= target, found.low >= target)


def at_most(name: str, found: Spread | None, target: float, unit: str = "") -> Bar:
    """Returns the bar that a figure be at most `target`."""
    if found is None:
        return Bar(name, f"at most {target:g}{unit}", "not measured", None)
    return Bar(name, f"at most {target:g}{unit}", found.text(2) + unit, found.median <= target, found.high <= target)


def by_repeat(
    measurements: Sequence[Mapping[str, Any]], task: str, contender: str, size: int, figure: str = "images_per_s"
) -> dict[int, float]:
    """Returns a figure of one contender at one size, by repeat; failed measurements are left out."""
    return {
        int(m["repeat"]): float(m["result"][figure])
        for m in measurements
        if (m["task"], m["contender"], m["size"]) == (task, contender, size) and figure in (m.get("result") or {})
    }


def best_peer(
    measurements: Sequence[Mapping[str, Any]], task: str, peers: Sequence[str], size: int
) -> tuple[str, dict[int, float]]:
    """Returns the peer with the highest median rate and its rates by repeat; ("", {}) where none was measured."""
    rates = {peer: by_repeat(measurements, task, peer, size) for peer in peers}
    rates = {peer: found for peer, found in rates.items() if found}
    if not rates:
        return "", {}
    best = max(rates, key=lambda peer: statistics.median(rates[peer].values()))
    return best, rates[best]


def outside_step(measurements: Sequence[Mapping[str, Any]], size: int) -> Spread | None:
    """Returns the percent of a training epoch that is not the model's step; the first epoch is left out.

    On a CPU it is timed within the training; elsewhere it is 1 - rate of training / rate of the step by itself.
    """
    if inside := by_repeat(measurements, "train", "ours", size, "outside_share"):
        return Spread.of([100 * share for share in inside.values()])
    found = ratio(by_repeat(measurements, "train", "ours", size), by_repeat(measurements, "step", "ours", size))
    if found is None:
        return None
    return Spread(100 * (1 - found.median), 100 * (1 - found.high), 100 * (1 - found.low), found.n)


def bars(measurements: Sequence[Mapping[str, Any]], peers: Sequence[str], sizes: Sequence[int]) -> list[Bar]:
    """Returns the bars of the throughput bench, met, missed or not measured."""
    stock = "torch-fp32"
    found = [
        at_least(
            "training at 224 px, over the stock fp32 recipe",
            ratio(by_repeat(measurements, "train", "ours", 224), by_repeat(measurements, "train", stock, 224)),
            4.0,
            stock,
        )
    ]
    for size in sizes:
        for task, words in (("train", "training"), ("eval", "evaluation")):
            peer, theirs = best_peer(measurements, task, peers, size)
            ours = by_repeat(measurements, task, "ours", size)
            found.append(at_least(f"{words} at {size} px, over the best peer", ratio(ours, theirs), 1.25, peer))
        share, name = outside_step(measurements, size), f"share of an epoch at {size} px outside the model's step"
        found.append(at_most(name, share, MOST_OUTSIDE, " %"))
        if share and share.low < -MOST_OUTSIDE:  # a step alone cannot be slower than a training that contains it
            found[-1] = Bar(name, found[-1].target, f"{share.text(2)} %: the machine was not quiet", None)
    return found


def first_epoch_rate(images: int, rate: float, prepare_s: float) -> float:
    """Returns images per second over the whole first epoch, which waits for what is prepared once.

    Args:
        images: in an epoch.
        rate: images per second once it runs.
        prepare_s: seconds before its first step.
    """
    return images / (prepare_s + images / rate)


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Prints a table on standard error: by rich where it is installed, plainly where not."""
    import sys

    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        widths = [max(len(str(row[i])) for row in (headings, *rows)) for i in range(len(headings))]
        lines = [
            title,
            *("  ".join(str(c).ljust(w) for c, w in zip(r, widths, strict=True)) for r in (headings, *rows)),
        ]
        print("\n".join([*lines, *notes]), file=sys.stderr)
        return
    table = Table(title=Text(title), title_justify="left")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 150)
    console.print(table)
    for note in notes:
        console.print(Text(note))


def show_bars(found: Sequence[Bar]) -> None:
    """Prints which bars are met."""
    words = {True: "met", False: "MISSED", None: "—"}
    rows = [
        [
            bar.name,
            bar.target,
            bar.measured,
            words[bar.met] + (", not in every repeat" if bar.met and bar.everywhere is False else ""),
        ]
        for bar in found
    ]
    show("Bars", ["bar", "target", "measured: median (range over repeats)", ""], rows)


def bars_to_list(found: Sequence[Bar]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(bar) for bar in found]
