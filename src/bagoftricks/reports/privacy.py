"""A study's plan as it may be shown: where files lay on the machine that ran it says nothing to a colleague."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bagoftricks.models.cardfacts import public_init
from bagoftricks.recipe import PATHS

HOME = re.compile(r"(?<![\w/\\])(?:file://)?(?:/home/|/Users/|[A-Za-z]:[/\\]+Users[/\\]+)[^/\\:'\"]+")
"""A user's own folder."""


def without_paths(plan: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Returns the plan with its `public_names` in place of paths, wherever these stand in it."""
    replaced: dict[str, Any] = _replaced(plan, names) if names else dict(plan)
    return replaced


def error_without_paths(error: str, names: Mapping[str, str]) -> str:
    """Returns a failed run's message with the plan's `public_names`, and without names of users in other paths."""
    return HOME.sub("~", str(_replaced(error, names)))


def public_names(plan: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a plan's paths are shown as, the longest first; two that end alike are told apart by a number."""
    study = plan["study"]
    parts = (study.get("recipe", {}), study.get("changes", {}))
    private = [part[name] for part in parts for name in PATHS if name in part]
    private += [level for name in PATHS for level in study.get("factors", {}).get(name, ())]
    public: dict[str, str] = {}
    for path in dict.fromkeys(map(str, private)):
        name = public_init(path)
        alike = sum(public_init(other) == name for other in public)
        public[path] = f"{name}-{alike + 1}" if alike else name
    return {path: public[path] for path in sorted(public, key=len, reverse=True) if path != public[path]}


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for path, name in names.items():
            value = value.replace(path, name)
        return value
    if isinstance(value, Mapping):
        return {_replaced(key, names): _replaced(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, names) for item in value]
    return value
