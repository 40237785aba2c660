"""The worst mistakes of a study's best cell, as a report shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
"""What may follow in a data address."""


@dataclass(frozen=True)
class Mistake:
    """An image that the models of a cell get wrong, all seeds that held it out taken together."""

    image: str
    """A small JPEG, as a data address."""
    name: str
    """The file's name below the data set's folder."""
    true: str
    guessed: str
    probability: float
    """Of the guess: the mean over the runs that held the image out, from 0 to 1."""
    runs: int
    """Runs that got it wrong."""
    of: int
    """Runs that held it out."""


def notes_on_mistakes(kept: Mapping[str, Any] | None, cell: str) -> list[str]:
    """Returns what a report says beside them, of the cell that it describes; nothing where none were kept."""
    if kept is None or not kept["mistakes"]:
        return []
    whose = "" if kept["cell"] == cell else f" They are of {kept['cell']}, the best cell when they were written."
    each = (
        ""
        if kept["runs"] == 1
        else f", by the mean probability over the runs that held an image out (of {kept['runs']})"
    )
    return [
        f"The images are the {len(kept['mistakes'])} surest of {kept['wrong']:,} mistakes on {kept['images']:,} images"
        f"{each}.{whose}"
    ]


def mistakes(kept: Mapping[str, Any] | None) -> tuple[Mistake, ...]:
    """Returns what `study_folder.read_mistakes` gave, as it can be shown."""
    return tuple(
        Mistake(
            f"data:image/jpeg;base64,{one['jpeg']}", one["name"], one["true"], one["guessed"], one["probability"],
            one["wrong"], one["of"],
        )
        for one in (kept or {}).get("mistakes", ())
        if BASE64.fullmatch(one["jpeg"])
    )  # fmt: skip
