"""Planning: the seeds that an effect needs under a study's own correction, what they cost, and what some hours find.

Effects and standard deviations are in percentage points. The sd that counts is of one effect's differences between
blocks: each block gives one number for an effect, averaged over the combinations of the other factors as
`studies.contrasts` does, and the sd is of these numbers. It is what a report's table of effects rests on, and not the
sd of a cell's results: pairing makes it smaller, averaging over combinations too, and an interaction's is larger.

Power is that of the paired t at Holm's first step, alpha / tests, which an effect that stands alone must pass; where
other effects of the family are found too, it is at least that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bagoftricks.errors import UserError
from bagoftricks.studies.contrasts import Contrast, find_contrasts, successive_contrasts
from bagoftricks.studies.design import MOST_SEEDS, Study
from bagoftricks.studies.inference import detectable, seeds_needed
from bagoftricks.studies.price import Price
from bagoftricks.studies.verdicts import FAMILIES, SEEDS_FOR_VERDICT

EFFECTS = (0.5, 1.0, 2.0)
"""Points that are planned for where nothing is asked: the verdicts' margin, and two and four times that."""
ASSUMED_SDS = (0.25, 0.5, 1.0, 2.0)
"""Points, where no sd is known."""
CONFIDENCE = 0.8
"""Of the upper limit of a pilot's sd: planned with it, four of five studies have the power at least."""
ALPHA = 0.05
POINTS = 100.0
"""The largest effect, and sd, that a metric from 0 to 1 can have."""


@dataclass(frozen=True)
class Family:
    """What a study tests together."""

    contrasts: tuple[Contrast, ...]
    declared: bool
    """False where the design allows no declared effect: then it is all its exploratory ones."""

    @property
    def tests(self) -> int:
        return len(self.contrasts)

    @property
    def correction(self) -> str:
        return "Holm" if self.declared else "Benjamini-Hochberg"


def family_of(study: Study) -> Family:
    """Returns the effects that a study's report will correct together, as if every run had finished.

    A ladder's steps; all simple effects of a one-at-a-time design; else main effects and two-way interactions.

    Raises:
        UserError: if no two cells can be compared.
    """
    if study.design == "ladder":
        found = successive_contrasts("cell", [cell.name for cell in study.cells])
    else:
        levels = {name: tuple(map(str, all_)) for name, all_ in study.factors.items() if len(all_) > 1}
        cells = [tuple(str(cell.levels[name]) for name in levels) for cell in study.cells]
        found = find_contrasts(levels, cells)[0] if levels else []
    if not found:
        raise UserError(f"study '{study.name}': no two of its cells differ in one factor alone; nothing to plan for")
    kinds = FAMILIES["all" if study.design == "one-at-a-time" else "main+two-way"]
    declared = [contrast for contrast in found if contrast.kind in kinds]
    return Family(tuple(declared or found), bool(declared))


@dataclass(frozen=True)
class Sd:
    """How much an effect differs between blocks."""

    source: str
    """stated, assumed, pilot, or "upper limit" of a pilot's."""
    points: float
    """Standard deviation of the effect's differences between blocks; above 0."""
    effect: str = ""
    """The contrast's name; "" where it stands for any one of the family."""
    blocks: int | None = None
    """That it was measured in."""


def upper_sd(sd: float, blocks: int, confidence: float = CONFIDENCE) -> float:
    """Returns the one-sided upper confidence limit of a standard deviation, from chi-square with blocks - 1 degrees.

    Source: Browne 1995, Statistics in Medicine 14: a sample planned with this limit has the power asked for with
    probability `confidence`; one planned with the pilot's sd itself has it in less than half of all cases.

    Args:
        sd: sample standard deviation, with blocks - 1; Gaussian differences.
        blocks: at least 2.
        confidence: above 0 and below 1.
    """
    from scipy import stats

    return sd * math.sqrt((blocks - 1) / float(stats.chi2.ppf(1 - confidence, blocks - 1)))


def stated_sds(points: float | None) -> tuple[Sd, ...]:
    """Returns the sd that was stated; a few to choose from where none was.

    Raises:
        UserError: if it is no standard deviation of points.
    """
    if points is None:
        return tuple(Sd("assumed", sd) for sd in ASSUMED_SDS)
    if not 0 < points <= POINTS:
        raise UserError(f"--sd {points:g}: must be above 0 and at most {POINTS:g} points")
    return (Sd("stated", points),)


def pilot_sds(family: Family, measured: Mapping[str, tuple[float | None, int]]) -> tuple[tuple[Sd, ...], list[str]]:
    """Returns each effect's sd in a pilot with its upper limit after it, and notes on those that it cannot tell.

    Args:
        family: what is planned for.
        measured: sd in points (None below two blocks) and blocks, by the contrast's name.
    """
    sds, notes = [], []
    for contrast in family.contrasts:
        sd, blocks = measured.get(contrast.name, (None, 0))
        if sd is None:
            seeds = f"{blocks} seed{'' if blocks == 1 else 's'} of the pilot, and an sd needs two"
            notes.append(f"{contrast.name}: {'measured in ' + seeds if blocks else 'not in the pilot'}")
        elif sd == 0:
            notes.append(f"{contrast.name}: the same difference in every seed of the pilot, which tells no sd")
        else:
            sds.append(Sd("pilot", sd, contrast.name, blocks))
            sds.append(Sd("upper limit", upper_sd(sd, blocks), contrast.name, blocks))
    return tuple(sds), notes


@dataclass(frozen=True)
class Need:
    """The seeds that find an effect; None where a study cannot have so many."""

    points: float
    """Size of the effect."""
    effect: str
    """Contrast; "" for any one of the family, or for every effect of the pilot."""
    source: str
    """Of the sd."""
    sd: float | None
    """None where several effects with an sd each are meant."""
    seeds: int | None
    alone: int | None
    """Were it the only test."""
    runs: int | None = None
    hours: float | None = None


def check_request(effects: Sequence[float], power: float) -> None:
    """Refuses effects and a power that cannot be planned for.

    Raises:
        UserError: if one is out of range.
    """
    for points in effects:
        if not 0 < abs(points) <= POINTS:
            raise UserError(f"--effect {points:g}: must be other than 0, and at most {POINTS:g} points")
    if not ALPHA < power < 1:
        raise UserError(f"--power {power:g}: must be above {ALPHA:g} and below 1")


def needs(
    sds: Sequence[Sd], effects: Sequence[float], family: Family, cells: int, *, power: float, price: Price | None
) -> tuple[Need, ...]:
    """Returns the seeds for each size of effect at each sd: never fewer than a verdict needs.

    Args:
        sds: see `stated_sds` and `pilot_sds`.
        effects: sizes in points; signs do not matter.
        family: what is corrected for.
        cells: runs of a seed.
        power: chance of finding an effect of that size.
        price: what a seed costs, if known.
    """
    check_request(effects, power)
    found = []
    for points in map(abs, effects):
        for sd in sds:
            seeds = _seeds(points, sd.points, power, family.tests)
            alone = _seeds(points, sd.points, power, 1)
            found.append(_priced(Need(points, sd.effect, sd.source, sd.points, seeds, alone), cells, price))
    return tuple(found)


def for_all(found: Sequence[Need], cells: int, price: Price | None) -> tuple[Need, ...]:
    """Returns the seeds that are enough for each of a pilot's effects at once, by size of effect and source of sd."""
    kinds = dict.fromkeys((need.points, need.source) for need in found)
    totals = []
    for points, source in kinds:
        own = [need for need in found if (need.points, need.source) == (points, source)]
        most, alone = (_most([getattr(need, name) for need in own]) for name in ("seeds", "alone"))
        totals.append(_priced(Need(points, "", source, None, most, alone), cells, price))
    return tuple(totals)


def _seeds(points: float, sd: float, power: float, tests: int) -> int | None:
    try:
        seeds = seeds_needed(points, sd, power=power, tests=tests, alpha=ALPHA)
    except UserError:  # the request was checked: more seeds than are looked for
        return None
    return max(SEEDS_FOR_VERDICT, seeds) if seeds <= MOST_SEEDS else None


def _most(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return max(known) if known and len(known) == len(counts) else None


def _priced(need: Need, cells: int, price: Price | None) -> Need:
    if need.seeds is None:
        return need
    hours = price.hours(need.seeds) if price else None
    return replace(need, runs=need.seeds * cells, hours=hours)


@dataclass(frozen=True)
class Find:
    """The smallest effect that some seeds find, in points."""

    effect: str
    source: str
    sd: float
    corrected: float
    """At Holm's first step over the family."""
    alone: float
    """Were it the only test."""


@dataclass(frozen=True)
class Within:
    """What can be learned in some hours."""

    allowed: float
    """Hours."""
    seeds: int
    """The most that fit."""
    runs: int
    hours: float
    """That they take."""
    verdict: bool
    """Whether they are enough for one."""
    hours_for_verdict: float
    """Of the fewest seeds that a verdict needs."""
    finds: tuple[Find, ...]
    """Empty below two seeds."""


def within(sds: Sequence[Sd], family: Family, price: Price, hours: float, *, power: float) -> Within:
    """Returns the most seeds that fit into some hours, and the smallest effect that they find at each sd.

    Raises:
        UserError: if the hours are no time.
    """
    if not 0 < hours < math.inf:
        raise UserError(f"--hours {hours:g}: must be above 0")
    seeds = price.seeds(hours)
    finds = []
    for sd in sds if seeds > 1 else ():
        corrected, alone = (
            detectable(seeds, sd.points, power=power, tests=tests, alpha=ALPHA) for tests in (family.tests, 1)
        )
        finds.append(Find(sd.effect, sd.source, sd.points, corrected, alone))
    spent = price.hours(seeds) if seeds else 0.0
    least = price.hours(SEEDS_FOR_VERDICT)
    return Within(hours, seeds, seeds * price.cells, spent, seeds >= SEEDS_FOR_VERDICT, least, tuple(finds))


@dataclass(frozen=True)
class Planned:
    """A plan: what was asked, and what it takes."""

    study: Study
    family: Family
    power: float
    sds: tuple[Sd, ...]
    price: Price | None
    needs: tuple[Need, ...]
    for_all: tuple[Need, ...]
    """Of a pilot: what is enough for each of its effects at once."""
    within: Within | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: effects and sds in points, a run in seconds, the rest in hours."""
        family = self.family
        return {
            "study": self.study.name,
            "design": self.study.design,
            "metric": self.study.metric,
            "cells": len(self.study.cells),
            "family": {
                "correction": family.correction,
                "tests": family.tests,
                "declared": family.declared,
                "effects": [contrast.name for contrast in family.contrasts],
            },
            "power": self.power,
            "alpha": ALPHA,
            "sds": [asdict(sd) for sd in self.sds],
            "cost": asdict(self.price) if self.price else None,
            "needs": [asdict(need) for need in self.needs],
            "for_all": [asdict(need) for need in self.for_all],
            "within": asdict(self.within) if self.within else None,
            "notes": list(self.notes),
        }
