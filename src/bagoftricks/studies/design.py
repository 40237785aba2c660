"""Study: factors, levels and a design, expanded to cells, and with seeds to runs.

| design          | cells                                                                              |
|-----------------|------------------------------------------------------------------------------------|
| full            | every combination of levels                                                        |
| one-at-a-time   | all factors at their first level, then each other level alone                      |
| ladder          | all factors at their first level, then level after level, factor after factor, kept |
| cells           | those listed under `[[cells]]`; a factor not named there is at its first level     |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from bagoftricks.dotted import Value
from bagoftricks.errors import UserError, unknown
from bagoftricks.recipe import Recipe, field_types

DESIGNS = ("full", "one-at-a-time", "ladder", "cells")
PRESETS = ("best", "he2019", "paper", "quickstart", "strikes-back", "weights")
METRICS = ("top1", "mean_class_acc", "macro_f1")
"""What a study may be decided by, on the validation set: plain accuracy, or one that counts every class alike."""
OPEN = ("imagenet", "adapt:imagenet")
"""Initial weights for which the command has to name the file."""
MOST_SEEDS = 10_000
MOST_CELLS = 5_000
MOST_RUNS = 200_000
"""Of a study, cells times seeds: years of training, and a plan of 20 million bytes."""
MOST_EFFECTS = 1_000
"""Of single factors: levels beside the first of each. With their interactions more, these are not looked for."""


@dataclass(frozen=True)
class Cell:
    """One combination of levels."""

    name: str
    levels: Mapping[str, Value]
    """Level of every factor, by the field's dotted name."""
    recipe: Recipe


@dataclass(frozen=True)
class ReferenceRow:
    """A published figure for a cell, in [0, 1]."""

    cell: str
    top1: float | None = None
    top5: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("top1", self.top1), ("top5", self.top5)):
            if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
                raise UserError(f"[[tables]], row '{self.cell}': {name} = {value!r} must be a number from 0 to 1")


@dataclass(frozen=True)
class ReferenceTable:
    """A published table that the report sets beside ours."""

    title: str
    source: str
    rows: tuple[ReferenceRow, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise UserError(f"[[tables]] '{self.title}': has no rows")


@dataclass(frozen=True)
class Study:
    """What is varied, over what, how often."""

    name: str
    recipe: Recipe = Recipe()
    """Fields that every cell shares."""
    factors: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    """Levels by the field's dotted name; the first is the reference."""
    design: str = "full"
    seeds: tuple[int, ...] = (0,)
    title: str = ""
    about: str = ""
    data: str | None = None
    """What to train on where the command does not say."""
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Short names of levels, by factor and by the level as text, from which cells are named: "" leaves one out."""
    listed: tuple[Mapping[str, Value], ...] = ()
    """Cells of design "cells": levels by field, and a "name" where it should not be made from labels."""
    tables: tuple[ReferenceTable, ...] = ()
    assumptions: tuple[Mapping[str, str], ...] = ()
    """What the source leaves open and how it was settled: "what", "assumed", "why"."""
    metric: str = "top1"
    """The primary metric, for which verdicts are given: top1, mean_class_acc or macro_f1."""
    changes: Mapping[str, Value] = field(default_factory=dict)
    """Shared fields that the request set otherwise than the study file."""

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise unknown("design", self.design, DESIGNS)
        if self.metric not in METRICS:
            raise unknown("metric", self.metric, METRICS)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds = {list(self.seeds)}: at least one, each once")
        for name, levels in self.factors.items():
            if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
                raise UserError(f"factors.{name}: must be a list of levels")
            if name not in field_types():
                raise unknown("recipe field", name, field_types())
            if name.startswith("split."):
                raise UserError(
                    f"factors.{name}: all cells of a seed share one split, as otherwise they are judged by other "
                    "images; vary it in studies of their own"
                )
            if len(set(levels)) < len(levels):
                raise UserError(f"factors.{name}: a level stands in it twice")
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise UserError(f"study name '{self.name}': letters, digits, and . + - _ only")
        if self.listed and self.design != "cells":
            raise UserError(f"study '{self.name}': [[cells]] are for design 'cells', not '{self.design}'")
        for name in self.labels:
            if name not in self.factors:
                raise unknown("factor in [labels]", name, self.factors)
            if other := sorted(set(self.labels[name]) - set(map(str, self.factors[name]))):
                raise unknown(f"level in [labels] of {name}", other[0], map(str, self.factors[name]))
        self._check_size()
        self._check_cells()

    def _check_size(self) -> None:
        """Refuses more than anybody can run, before it is expanded."""
        counts = [len(levels) for levels in self.factors.values()]
        cells = {"full": math.prod(counts), "cells": len(self.listed)}.get(self.design, sum(counts) + 1)
        if cells > MOST_CELLS or cells * len(self.seeds) > MOST_RUNS:
            raise UserError(
                f"study '{self.name}': {min(cells, 10**15):,} cells over {len(self.seeds):,} seeds are too many "
                f"(at most {MOST_CELLS:,} cells, {MOST_RUNS:,} runs); vary less at a time"
            )
        if self.design != "ladder" and (steps := sum(counts) - len(counts)) > MOST_EFFECTS:
            raise UserError(f"study '{self.name}': {steps:,} effects of single factors; at most {MOST_EFFECTS:,}")

    def _check_cells(self) -> None:
        cells = self.cells
        names: set[str] = set()
        recipes: dict[tuple[tuple[str, Value], ...], str] = {}
        for cell in cells:
            if cell.name in names:
                raise UserError(f"study '{self.name}': two cells are named '{cell.name}'; give them names or labels")
            names.add(cell.name)
            same = recipes.setdefault(tuple(sorted(cell.recipe.canonical().items())), cell.name)
            if same != cell.name:
                raise UserError(f"study '{self.name}': cells '{same}' and '{cell.name}' are the same recipe")
        for row in (row for table in self.tables for row in table.rows):
            if row.cell not in names:
                raise unknown("cell in [[tables]]", row.cell, names)

    @property
    def cells(self) -> list[Cell]:
        """The design, expanded."""
        return [self._cell(levels) for levels in self._combinations()]

    def _combinations(self) -> list[dict[str, Value]]:
        first = {name: levels[0] for name, levels in self.factors.items()}
        if self.design == "full":
            return [dict(zip(self.factors, levels, strict=True)) for levels in product(*self.factors.values())]
        if self.design == "cells":
            if not self.listed:
                raise UserError(f"study '{self.name}': design 'cells' needs [[cells]]")
            return [first | dict(levels) for levels in self.listed]
        rows, current = [first], dict(first)
        for name, levels in self.factors.items():
            for level in levels[1:]:
                current = (current if self.design == "ladder" else first) | {name: level}
                rows.append(current)
        return rows

    def _cell(self, levels: dict[str, Value]) -> Cell:
        given = levels.pop("name", None)
        for name, level in levels.items():
            if name not in self.factors:
                raise unknown("factor in [[cells]]", name, self.factors)
            if level not in self.factors[name]:
                options = ", ".join(map(str, self.factors[name]))
                raise UserError(f"study '{self.name}': {name} has no level {level}: choose from {options}")
            levels[name] = next(own for own in self.factors[name] if own == level)  # 0 may stand for 0.0
        return Cell(str(given) if given else self._name(levels), levels, self.recipe.with_fields(levels))

    def _name(self, levels: Mapping[str, Value]) -> str:
        """Joins what is not at its first level, or has a label: "B+c+l", "mixup.alpha=0.2", "baseline"."""
        parts = []
        for name, level in levels.items():
            label = self.labels.get(name, {}).get(str(level))
            if label is None and level != self.factors[name][0]:
                label = f"{name}={level}"
            if label:
                parts.append(label)
        return "+".join(parts) or "baseline"

    def adapted(self, changes: Mapping[str, Value], seeds: int | None = None, metric: str | None = None) -> Study:
        """Returns the study with shared fields changed and, where given, seeds 0 to `seeds - 1` and another metric.

        Where the initial weights are a factor, `init` says what stands for "imagenet" in its levels.

        Raises:
            UserError: if a changed field is a factor, or a value is wrong.
        """
        open_weights = "init" in changes and any(level in OPEN for level in self.factors.get("init", ()))
        given = self._with_weights(str(changes["init"])) if open_weights else self
        for name in changes:
            if name in self.factors and not (name == "init" and open_weights):
                raise UserError(
                    f"{name} is a factor of study '{self.name}' and cannot be fixed; edit its levels instead"
                )
        if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
            raise UserError(f"--seeds {seeds}: must be between 1 and {MOST_SEEDS}")
        chosen = self.seeds if seeds is None else tuple(range(seeds))
        recipe = self.recipe.with_fields(changes)
        before, after = self.recipe.flat(), recipe.flat()
        changed = {name: after[name] for name in changes if after[name] != before[name]}
        return replace(
            given, recipe=recipe, seeds=chosen, metric=metric or self.metric, changes={**self.changes, **changed}
        )

    def _with_weights(self, init: str) -> Study:
        """Returns the study with `init` in place of "imagenet" in the levels of the initial weights."""

        def given(level: Any) -> Any:
            return str(level).replace("imagenet", init) if level in OPEN else level

        factors = {**self.factors, "init": [given(level) for level in self.factors["init"]]}
        labels = dict(self.labels)
        if "init" in labels:
            labels["init"] = {given(level): text for level, text in labels["init"].items()}
        listed = tuple(
            {name: given(value) if name == "init" else value for name, value in c.items()} for c in self.listed
        )
        return replace(self, factors=factors, labels=labels, listed=listed)
