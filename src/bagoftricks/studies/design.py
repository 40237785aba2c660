"""Study: factors, levels and a design, expanded to cells, and with seeds to runs.

| design          | cells                                                                              |
|-----------------|------------------------------------------------------------------------------------|
| full            | every combination of levels                                                        |
| one-at-a-time   | all factors at their first level, then each other level alone                      |
| ladder          | all factors at their first level, then level after level, factor after factor, kept |
| cells           | those listed under `[[cells]]`; a factor not named there is at its first level     |
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from bagoftricks.errors import UserError, unknown
from bagoftricks.recipe import Recipe, Value, flatten

DESIGNS = ("full", "one-at-a-time", "ladder", "cells")
PRESETS = ("he2019", "paper", "quickstart")
KEYS = (
    "name",
    "title",
    "about",
    "data",
    "design",
    "seeds",
    "recipe",
    "factors",
    "labels",
    "cells",
    "tables",
    "assumptions",
)


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


@dataclass(frozen=True)
class ReferenceTable:
    """A published table that the report sets beside ours."""

    title: str
    source: str
    rows: tuple[ReferenceRow, ...]


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

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise unknown("design", self.design, DESIGNS)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds = {list(self.seeds)}: at least one, each once")
        for name, levels in self.factors.items():
            if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
                raise UserError(f"factors.{name}: must be a list of levels")
            for level in levels:
                self.recipe.with_fields({name: level})
            if len(set(levels)) < len(levels):
                raise UserError(f"factors.{name}: a level stands in it twice")
        names = [cell.name for cell in self.cells]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"study '{self.name}': two cells are named '{twice}'; give them names or labels")

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

    def adapted(self, changes: Mapping[str, Value], seeds: int | None = None) -> Study:
        """Returns the study with shared fields changed and, where given, seeds 0 to `seeds - 1`.

        Raises:
            UserError: if a changed field is a factor, or a value is wrong.
        """
        for name in changes:
            if name in self.factors:
                raise UserError(
                    f"{name} is a factor of study '{self.name}' and cannot be fixed; edit its levels instead"
                )
        if seeds is not None and not 1 <= seeds <= 10_000:
            raise UserError(f"--seeds {seeds}: must be between 1 and 10000")
        chosen = self.seeds if seeds is None else tuple(range(seeds))
        return replace(self, recipe=self.recipe.with_fields(changes), seeds=chosen)


def load_study(name_or_path: str | Path) -> Study:
    """Returns a preset by name, or the study of a TOML file.

    Raises:
        UserError: if there is neither, or it is wrong.
    """
    path = Path(name_or_path)
    if str(name_or_path) in PRESETS:
        text = (files("bagoftricks.studies") / "presets" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
    elif path.suffix == ".toml":
        raise UserError(f"study {path}: no such file")
    else:
        raise unknown("preset", str(name_or_path), PRESETS)
    return parse_study(text, default_name=path.stem)


def parse_study(text: str, default_name: str = "study") -> Study:
    """Returns the study that TOML describes; see `docs/reference/study-files.md`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"study '{default_name}' is no valid TOML: {error}") from error
    for key in table:
        if key not in KEYS:
            raise unknown("key in a study file", key, KEYS)
    return study_from_dict({"name": default_name, **table})


def study_from_dict(table: Mapping[str, Any]) -> Study:
    """Returns the study of a parsed TOML file or of a stored plan."""
    seeds = table.get("seeds", 1)
    try:
        return Study(
            name=str(table["name"]),
            title=table.get("title", ""),
            about=table.get("about", ""),
            data=table.get("data"),
            design=table.get("design", "full"),
            seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds),
            recipe=Recipe().with_fields(flatten(table.get("recipe", {}))),
            factors=flatten(table.get("factors", {})),  # type: ignore[arg-type]
            labels=table.get("labels", {}),
            listed=tuple(flatten(cell) for cell in table.get("cells", ())),
            tables=tuple(
                ReferenceTable(t["title"], t.get("source", ""), tuple(ReferenceRow(**row) for row in t["rows"]))
                for t in table.get("tables", ())
            ),
            assumptions=tuple(table.get("assumptions", ())),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"study '{table['name']}': malformed ({error})") from error


def study_to_dict(study: Study) -> dict[str, Any]:
    """Returns what `study_from_dict` reads."""
    return {
        "name": study.name,
        "title": study.title,
        "about": study.about,
        "data": study.data,
        "design": study.design,
        "seeds": list(study.seeds),
        "recipe": study.recipe.flat(),
        "factors": {name: list(levels) for name, levels in study.factors.items()},
        "labels": study.labels,
        "cells": list(study.listed),
        "tables": [{"title": t.title, "source": t.source, "rows": [vars(row) for row in t.rows]} for t in study.tables],
        "assumptions": list(study.assumptions),
    }
