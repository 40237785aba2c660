"""TOML for machines that lack tomli-w: plain values, and tables one level deep, which is all that recipes hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dumps(table: Mapping[str, Any]) -> str:
    """Returns TOML that `tomllib.loads` reads back as `table`.

    Raises:
        TypeError: for a value that is no text, number, truth value, list of them, or table of them.
    """
    plain = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{_text(name)} = {_value(value)}" for name, value in plain.items()]
    for name, part in table.items():
        if isinstance(part, Mapping):
            lines += ["", f"[{_text(name)}]", *(f"{_text(leaf)} = {_value(value)}" for leaf, value in part.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)  # inf and nan are TOML too
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"{value!r} has no place in TOML here")


def _text(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")  # TOML's basic strings escape as JSON's do, and this one too
