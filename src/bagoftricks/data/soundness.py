"""Leaves out the images that cannot be used: says which, how many and why, and stops where they are too many.

What is left is as if the bad files had been deleted: the same fingerprint, splits and runs. Every image is looked at
once, for this, for the search for copies and for the data check together (see `hashes`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bagoftricks.data.folder import check_trainable
from bagoftricks.data.hashes import Hashes, hash_images, keep_hashes
from bagoftricks.data.index import ImageIndex, subset
from bagoftricks.data.names import shown
from bagoftricks.data.reading import CHANGED, MOMENTARY
from bagoftricks.errors import RunError, UserError
from bagoftricks.files import cache_folder

ALLOWED = 0.1
"""Largest share of images that is left out unasked."""
LISTED, NAMED = 20, 3
"""Most images that a record lists, and that an error names."""
PAUSES_S = (0.5, 2.0)
"""Before what could not be read for the moment is looked at again, in seconds."""


class LeftOutImage(NamedTuple):
    """An image that cannot be used."""

    name: str
    """As in the index; not escaped."""
    label: int
    side: str
    """train, val, test or pool."""
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """The images of a data set that cannot be used."""

    images: tuple[LeftOutImage, ...]
    of: int
    """Images of the data set, these among them."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def reasons(self) -> dict[str, int]:
        """Images by reason, without its details, most first."""
        counts = Counter(image.reason.partition(" (")[0] for image in self.images)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all are counted, the first 20 listed, names escaped."""
        listed = [{"name": shown(one.name), "reason": one.reason} for one in self.images[:LISTED]]
        return {"images": len(self), "of": self.of, "reasons": self.reasons, "listed": listed}

    def sentence(self) -> str:
        """One line for a terminal; "" where none was left out."""
        if not self.images:
            return ""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        named = ", ".join(shown(one.name) for one in self.images[:NAMED])
        more = ", …" if len(self) > NAMED else ""
        return f"{len(self):,} of {self.of:,} images cannot be used and are left out: {reasons} ({named}{more})"


def sound(
    index: ImageIndex,
    *,
    workers: int = 1,
    on_look: Callable[[int], None] | None = None,
    allow: float = ALLOWED,
    cache: Path | None = None,
) -> tuple[ImageIndex, LeftOut]:
    """Returns a data set without the images that cannot be used, and what was left out, a given test set included.

    Args:
        index: the data set; one that comes from here is returned as it is.
        workers: threads that decode.
        on_look: called with the number of images looked at so far; never where all looks are kept already.
        allow: largest share of bad images, from 0 to 1.
        cache: folder where looks are kept; by default the user's.

    Raises:
        UserError: if more images than that are bad, or a class cannot be trained on any more.
        RunError: if some cannot be read for now, as on a network drive that is away.
    """
    if index.left_out is not None:
        return index, index.left_out
    if not 0 <= allow <= 1:
        raise UserError(f"--allow-corrupt {allow:g}: must be a share, from 0 to 1")
    if index.pixels is not None:
        nothing = LeftOut((), len(index))
        return _with(index, nothing), nothing
    cache = cache or cache_folder() / "hashes"
    index, looks = _settled(index, workers, on_look, cache)
    sides = index.given or ("pool",) * len(index)
    bad = [i for i, error in enumerate(looks.errors) if error]
    images = (LeftOutImage(index.names[i], int(index.labels[i]), sides[i], looks.errors[i]) for i in bad)
    left = LeftOut(tuple(images), len(index))
    if len(left) > allow * len(index):
        enough = math.ceil(100 * len(left) / len(index)) / 100
        raise UserError(
            f"data set {shown(index.name)}: {left.sentence()}; more than {100 * allow:g} %. Repair or remove them; "
            f"--allow-corrupt {enough:g} accepts it"
        )
    good = np.setdiff1d(np.arange(len(index)), bad, assume_unique=True)
    kept = _with(subset(index, good.tolist()) if bad else index, left)
    if bad:
        check_trainable(kept, f"data set {shown(index.name)}, {len(left):,} bad images left out")
        keep_hashes(kept, looks.at(good), cache)
    if len(kept.open_images) < len(kept):  # copies are looked for without a given test set
        keep_hashes(kept.open_part, looks.at(good[kept.open_images]), cache)
    return kept, left


def _settled(
    index: ImageIndex, workers: int, on_look: Callable[[int], None] | None, cache: Path
) -> tuple[ImageIndex, Hashes]:
    """Looks at every image, and again where only the moment was bad: what is left out is part of a data set's identity.

    Returns the index with what is known of its contents, and the looks.

    Raises:
        RunError: if some cannot be read for now.
    """
    for pause_s in (*PAUSES_S, None):
        looks = hash_images(index, workers=workers, progress=on_look, cache=cache)
        # what could not be read when it was hashed is another file ever since
        away = [i for i in looks.passing if looks.errors[i] in MOMENTARY or _came_back(index, i, looks)]
        if not away or pause_s is None:
            break
        time.sleep(pause_s)
        index = replace(index)  # without what is known of its contents
    if away:
        more = f", and {len(away) - 1:,} more" if len(away) > 1 else ""
        raise RunError(
            f"data set {shown(index.name)}: {shown(index.names[away[0]])} cannot be read now "
            f"({looks.errors[away[0]]}){more}; give the same command again, or remove what stays so"
        )
    return index, looks


def _came_back(index: ImageIndex, i: int, looks: Hashes) -> bool:
    return not index.contents[i] and looks.errors[i] == CHANGED


def _with(index: ImageIndex, left: LeftOut) -> ImageIndex:
    """Returns the index with the record, and with what is known of its contents; sides as in a folder without them."""
    alone = index.given is not None and set(index.given) == {"pool"}
    marked = replace(index, left_out=left, given=None if alone else index.given)
    if (known := index.__dict__.get("contents")) is not None:
        marked.__dict__["contents"] = known
    return marked
