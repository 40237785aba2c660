"""The JSON file of a bench: rewritten after each measurement, so that a bench goes on where it was cut off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bagoftricks.errors import UserError, first_line
from bagoftricks.files import write_json


@dataclass
class Journal:
    """Measurements by key, kept on disk."""

    path: Path
    settings: Mapping[str, Any]
    """What must be equal for measurements to belong together."""
    head: Mapping[str, Any] = field(default_factory=dict)
    """What else the file says, such as the machine."""
    entries: list[dict[str, Any]] = field(default_factory=list)
    tail: dict[str, Any] = field(default_factory=dict)
    """What is made from the measurements, such as the summary."""

    @classmethod
    def open(
        cls, path: Path, settings: Mapping[str, Any], head: Mapping[str, Any] | None = None, *, fresh: bool = False
    ) -> Journal:
        """Reads an earlier journal of the same settings, or begins one.

        Raises:
            UserError: if the file holds measurements of other settings, or something else; `fresh` replaces it.
        """
        journal = cls(path, dict(settings), dict(head or {}))
        if fresh or not path.exists():
            return journal
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
            before, entries = earlier["settings"], earlier["measurements"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: no results of a bench ({first_line(error)}); choose another --out") from error
        now = json.loads(json.dumps(journal.settings))
        if before != now:
            other = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
            raise UserError(
                f"{path}: measured with other {', '.join(other)}; --fresh replaces it, or choose another --out"
            )
        journal.entries = list(entries)
        return journal

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Returns the entry that has all these values and did not fail."""
        for entry in self.entries:
            if "result" in entry and all(entry.get(name) == value for name, value in key.items()):
                return entry
        return None

    def add(self, entry: Mapping[str, Any]) -> None:
        """Keeps a measurement, in place of a failed one of the same key, and writes the file."""
        values = ("result", "error", "seconds")
        key = {name: value for name, value in entry.items() if name not in values}
        self.entries = [e for e in self.entries if {n: v for n, v in e.items() if n not in values} != key]
        self.entries.append(dict(entry))
        self.save()

    def save(self) -> None:
        """Writes the file, whole."""
        write_json(
            self.path,
            {**self.head, "settings": dict(self.settings), **self.tail, "measurements": self.entries},
        )
