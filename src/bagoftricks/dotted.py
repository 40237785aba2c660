"""Dotted names of nested configs: `optimizer.lr` is the field `lr` of the table `optimizer`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

Value = str | int | float | bool
"""Of a field."""


@cache
def attribute_docs(owner: type) -> dict[str, str]:
    """Reads the string that follows each annotated attribute in a class's source."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for attribute, follower in pairwise([*body.body, ast.Pass()]):
        if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name):
            is_doc = isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant)
            docs[attribute.target.id] = " ".join(str(follower.value.value).split()) if is_doc else ""  # type: ignore[attr-defined]
    return docs


def flatten(table: Mapping[str, Any]) -> dict[str, Value]:
    """Turns nested tables, one level deep, into dotted names."""
    flat: dict[str, Value] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{leaf}": sub for leaf, sub in value.items()}
        else:
            flat[name] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turns dotted names into nested tables, plain fields first."""
    table: dict[str, Any] = {name: value for name, value in flat.items() if "." not in name}
    for name, value in flat.items():
        if "." in name:
            part, _, leaf = name.partition(".")
            table.setdefault(part, {})[leaf] = value
    return table
