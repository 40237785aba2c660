"""Study files: a study from TOML or a preset's name, and into what a plan keeps (`docs/reference/study-files.md`)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import MOST_TOML, parse_toml, read_named
from bagoftricks.dotted import flatten
from bagoftricks.errors import UserError, first_line, unknown
from bagoftricks.recipe import Recipe
from bagoftricks.studies.design import MOST_SEEDS, PRESETS, ReferenceRow, ReferenceTable, Study

KEYS = (
    "name",
    "title",
    "about",
    "data",
    "design",
    "seeds",
    "metric",
    "recipe",
    "factors",
    "labels",
    "cells",
    "tables",
    "assumptions",
)


def load_study(name_or_path: str | Path) -> Study:
    """Returns a preset by name, or the study of a TOML file.

    Raises:
        UserError: if there is neither, or it is wrong.
    """
    path = Path(name_or_path)
    if str(name_or_path) in PRESETS:
        text = (files("bagoftricks.studies") / "presets" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    elif path.is_file() or path.suffix == ".toml":
        text = read_named(path, "study", MOST_TOML)
    else:
        raise unknown("preset", str(name_or_path), PRESETS)
    return parse_study(text, default_name=path.stem)


def load_recipe(name_or_path: str | None) -> Recipe:
    """Returns the recipe of a preset by its name, what all its cells share; or of a TOML file; or the default.

    Raises:
        UserError: if there is no such file, or it is wrong.
    """
    if name_or_path is None:
        return Recipe()
    return load_study(name_or_path).recipe if name_or_path in PRESETS else Recipe.load(Path(name_or_path))


def parse_study(text: str, default_name: str = "study") -> Study:
    """Returns the study that TOML describes; see `docs/reference/study-files.md`."""
    try:
        table = parse_toml(text)
    except ValueError as error:
        raise UserError(f"study '{default_name}' is no valid TOML: {shown(first_line(error))[:300]}") from error
    for key in table:
        if key not in KEYS:
            raise unknown("key in a study file", key, KEYS)
    return study_from_dict({"name": default_name, **table})


def study_from_dict(table: Mapping[str, Any]) -> Study:
    """Returns the study of a parsed TOML file, or of what `study_to_dict` wrote."""
    for key, kind in (
        ("name", str),
        ("title", str),
        ("about", str),
        ("data", str | None),
        ("design", str),
        ("metric", str),
    ):
        if key in table and not isinstance(table[key], kind):
            raise UserError(f"study '{table['name']}': {key} = {table[key]!r} must be text")
    try:
        return Study(
            name=str(table["name"]),
            title=table.get("title", ""),
            about=table.get("about", ""),
            data=table.get("data"),
            design=table.get("design", "full"),
            seeds=_seeds(table.get("seeds", 1)),
            metric=table.get("metric", "top1"),
            recipe=Recipe().with_fields(flatten(table.get("recipe", {}))),
            factors=flatten(table.get("factors", {})),  # type: ignore[arg-type]
            labels={name: dict(texts) for name, texts in _nested_labels(table.get("labels", {})).items()},
            listed=tuple(flatten(cell) for cell in table.get("cells", ())),
            tables=tuple(
                ReferenceTable(t["title"], t.get("source", ""), tuple(ReferenceRow(**row) for row in t["rows"]))
                for t in table.get("tables", ())
            ),
            assumptions=tuple(table.get("assumptions", ())),
            changes=table.get("changes", {}),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"study '{table['name']}': malformed ({error})") from error


def _seeds(value: Any) -> tuple[int, ...]:
    """A number of seeds, or a list of them."""
    given = list(range(value)) if type(value) is int and value <= MOST_SEEDS else value
    if not isinstance(given, list) or len(given) > MOST_SEEDS or not all(type(seed) is int for seed in given):
        raise UserError(
            f"seeds = {repr(value)[:80]}: must be a whole number up to {MOST_SEEDS}, or a list of as many whole numbers"
        )
    return tuple(given)


def _nested_labels(table: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Labels by factor, whether the factor's name is written whole ("mixup.alpha") or as tables (mixup, then alpha)."""
    labels: dict[str, Mapping[str, str]] = {}
    for name, texts in table.items():
        if all(isinstance(text, str) for text in texts.values()):
            labels[name] = texts
        else:
            labels |= {f"{name}.{leaf}": sub for leaf, sub in texts.items()}
    return labels


def study_to_dict(study: Study) -> dict[str, Any]:
    """Returns what `study_from_dict` reads."""
    return {
        "name": study.name,
        "title": study.title,
        "about": study.about,
        "data": study.data,
        "design": study.design,
        "seeds": list(study.seeds),
        "metric": study.metric,
        "recipe": study.recipe.flat(),
        "factors": {name: list(levels) for name, levels in study.factors.items()},
        "labels": study.labels,
        "cells": list(study.listed),
        "tables": [{"title": t.title, "source": t.source, "rows": [vars(row) for row in t.rows]} for t in study.tables],
        "assumptions": list(study.assumptions),
        "changes": dict(study.changes),
    }
