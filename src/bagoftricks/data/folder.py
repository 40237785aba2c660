"""A folder of images: `root/<class>/*`, or `root/{train,val|validation,test}/<class>/*`, sides in any letter case.

Images lie directly in their class's folder; what is no image (by suffix, in any letter case) is left out. What bears
an image's suffix is listed whatever it is, so that it is counted where it cannot be used (see `soundness`). Classes are
in lexical order. A `test` folder is locked: nothing trains or chooses on it (`tricks test` measures it, once).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bagoftricks.data.index import ImageIndex
from bagoftricks.data.names import shown
from bagoftricks.errors import UserError

FORMATS = "jpg jpeg jpe jfif png bmp gif webp tif tiff ppm pgm pbm pnm heic heif"
SUFFIXES = frozenset(f".{name}" for name in FORMATS.split())
SIDES = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
LIKE_SIDES = frozenset(("dev", "eval", "evaluation", "holdout", "testing", "training", "unseen", "validate"))
"""Names of folders that may be meant for sides, and are not taken for any."""


def side_of(name: str) -> str:
    """Returns the side that a name stands for, in any letter case: train, val or test; "" if for none."""
    return SIDES.get(name.lower(), "")


def is_image(path: Path) -> bool:
    """Whether an entry of a folder claims to be an image: by its suffix, hidden ones apart."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def subfolders(path: Path) -> list[Path]:
    """Returns the visible folders in `path`, in lexical order."""
    return [entry for entry in entries(path) if not entry.name.startswith(".") and is_folder(entry)]


def entries(path: Path) -> list[Path]:
    """Returns what lies in a folder, in lexical order.

    Raises:
        UserError: if it cannot be read, or is gone since it was found.
    """
    try:
        return sorted(path.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"data folder {shown(str(path))}: cannot be read ({error.strerror}); put that right") from error


def is_folder(path: Path) -> bool:
    """Whether there is a folder, as far as one may look."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # it may not be looked at; a null character in the name
        return False


def read_folder(root: Path, *, exclude: frozenset[str] = frozenset(), name: str | None = None) -> ImageIndex:
    """Returns the index of a folder of images.

    Args:
        root: the folder; it is only ever read.
        exclude: class folders to leave out.
        name: the data set's name, by default the folder's.

    Raises:
        UserError: for a missing or empty folder, folders without images, one class only, or a class with one image.
    """
    place = shown(str(root))
    if not is_folder(root):
        raise UserError(f"data folder {place}: no such folder")
    top = subfolders(root)
    if not top:
        raise UserError(f"data folder {place}: has no class folders; images belong in {shown(root.name)}/<class>/*")
    sided = [(side, folder) for folder in top if (side := side_of(folder.name))]
    split = {"train"} < {side for side, _ in sided}
    if split and (others := [p for p in top if p.name.lower() in LIKE_SIDES and subfolders(p)]):
        raise UserError(
            f"data folder {place}: '{shown(others[0].name)}' beside train is none of {', '.join(sorted(SIDES))}; "
            "rename it to what it is, or move it away"
        )
    groups = sided if split else [("", root)]

    names: list[str] = []
    labels: list[str] = []
    sides: list[str] = []
    for side, folder in groups:
        for class_folder in subfolders(folder):
            if class_folder.name in exclude:
                continue
            files = [entry.name for entry in entries(class_folder) if is_image(entry)]
            if not files and not split and subfolders(class_folder):
                raise UserError(
                    f"data folder {shown(str(class_folder))}: holds folders, where the images of a class belong; a "
                    f"data set that is divided already has train beside val or test ({place}/train/<class>/*)"
                )
            if not files:
                raise UserError(
                    f"data folder {shown(str(class_folder))}: no images in it ({', '.join(sorted(SUFFIXES))}); "
                    "remove it, or fill it"
                )
            names += [(class_folder / file).relative_to(root).as_posix() for file in files]
            labels += [class_folder.name] * len(files)
            sides += [side] * len(files)

    return assemble(
        name or root.resolve().name, names, labels, sides, root=root.resolve(), source=f"data folder {place}"
    )


def assemble(
    name: str,
    names: Sequence[str],
    labels: Sequence[str],
    sides: Sequence[str],
    *,
    root: Path,
    source: str,
    groups: Sequence[str] | None = None,
    trainable: bool = True,
) -> ImageIndex:
    """Returns the index of images that are listed with their class, and checks that it can be trained on.

    Args:
        name: the data set's.
        names: paths below `root`.
        labels: class of each image.
        sides: side of each image: train, val, test, or "" where nothing is given. Without any val, train is a pool to
            divide by seed.
        root: where the paths begin.
        source: for errors, e.g. "data folder photos".
        groups: group of each image.
        trainable: whether it is to be trained on; else one class, or one image, will do.

    Raises:
        UserError: for one class only, a class that cannot be on both sides, or a group on two sides.
    """
    if "val" in sides and "" in sides:
        raise UserError(f"{source}: some images are in train or val and others in neither; give each a side, or none")
    given = tuple(sides) if "val" in sides else tuple("test" if side == "test" else "pool" for side in sides)
    learnt = {label for label, side in zip(labels, given, strict=True) if side != "test" or not trainable}
    classes = tuple(sorted(learnt))
    number = {label: i for i, label in enumerate(classes)}
    if strangers := sorted(set(labels) - set(classes)):
        raise UserError(f"{source}: class '{shown(strangers[0])}' is in test only; nothing could learn it")
    index = ImageIndex(
        name=name,
        classes=classes,
        labels=np.array([number[label] for label in labels], dtype=np.int64),
        names=tuple(names),
        given=None if set(given) == {"pool"} else given,
        groups=None if groups is None else tuple(groups),
        root=root,
    )
    if trainable:
        check_trainable(index, source)
    return index


def check_trainable(index: ImageIndex, source: str) -> None:
    """Refuses a data set of which some class cannot be trained on and validated on.

    Raises:
        UserError: for one class only, a class that cannot be on both sides, or a group on two sides.
    """
    if len(index.classes) < 2:
        only = index.classes[0] if index.classes else "none"
        raise UserError(f"{source}: one class only ('{shown(only)}'); at least two are needed to tell apart")
    lonely = [(name, count) for name, count in zip(index.classes, index.counts, strict=True) if count < 2]
    if lonely:
        name, count = lonely[0]
        raise UserError(
            f"{source}: class '{shown(name)}' has {'one' if count else 'no'} image; each needs one to train on and one "
            "to validate on"
        )
    if index.given is not None and "val" in index.given:
        sides = np.array(index.given)
        for label, class_name in enumerate(index.classes):
            for side in ("train", "val"):
                if not np.any((index.labels == label) & (sides == side)):
                    raise UserError(f"{source}: class '{shown(class_name)}' has no image in {side}")
    if index.groups is not None:
        _check_groups(index, source)


def _check_groups(index: ImageIndex, source: str) -> None:
    assert index.groups is not None
    groups, sides = np.array(index.groups), np.array(index.given or ("pool",) * len(index))
    for label, class_name in enumerate(index.classes):
        own = set(groups[(index.labels == label) & (sides != "test")])
        if len(own) == 1:
            raise UserError(
                f"{source}: class '{shown(class_name)}' lies within one group ('{shown(own.pop())}'), which stays on "
                "one side; each class needs groups to train on and to validate on"
            )
    sides_of: dict[str, set[str]] = {}
    for group, side in zip(index.groups, sides.tolist(), strict=True):
        sides_of.setdefault(group, set()).add(side)
    for group, met in sorted(sides_of.items()):
        if len(met) > 1:
            raise UserError(
                f"{source}: group '{shown(group)}' is on two sides ({', '.join(sorted(met))}); keep it on one"
            )
