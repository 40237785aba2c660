"""A folder of images: `root/<class>/*`, or `root/{train,val|validation,test}/<class>/*`.

Images lie directly in their class's folder; what is no image (by suffix, in any letter case) is left out. Classes are
in lexical order. A `test` folder is never read: it is for after the choosing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bagoftricks.data.index import ImageIndex
from bagoftricks.errors import UserError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"))
SIDES = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


def is_image(path: Path) -> bool:
    """Whether a file counts as an image: by its suffix, hidden files apart."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def subfolders(path: Path) -> list[Path]:
    """Returns the visible folders in `path`, in lexical order."""
    return sorted((p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)


def read_folder(root: Path, *, exclude: frozenset[str] = frozenset(), name: str | None = None) -> ImageIndex:
    """Returns the index of a folder of images.

    Args:
        root: the folder; it is only ever read.
        exclude: class folders to leave out.
        name: the data set's name, by default the folder's.

    Raises:
        UserError: for a missing or empty folder, folders without images, one class only, or a class with one image.
    """
    if not root.is_dir():
        raise UserError(f"data folder {root}: no such folder")
    top = subfolders(root)
    if not top:
        raise UserError(f"data folder {root}: has no class folders; images belong in {root.name}/<class>/*")
    split = any(p.name == "train" for p in top) and any(SIDES.get(p.name) in ("val", "test") for p in top)
    groups = [(SIDES[p.name], p) for p in top if p.name in SIDES] if split else [("", root)]

    names: list[str] = []
    labels: list[str] = []
    sides: list[str] = []
    for side, folder in groups:
        if side == "test":
            continue
        for class_folder in subfolders(folder):
            if class_folder.name in exclude:
                continue
            files = sorted(p.name for p in class_folder.iterdir() if is_image(p))
            if not files:
                raise UserError(
                    f"data folder {class_folder}: no images in it ({', '.join(sorted(SUFFIXES))}); "
                    "remove it, or fill it"
                )
            names += [(class_folder / file).relative_to(root).as_posix() for file in files]
            labels += [class_folder.name] * len(files)
            sides += [side] * len(files)

    classes = tuple(sorted(set(labels)))
    number = {label: i for i, label in enumerate(classes)}
    has_val = "val" in sides
    index = ImageIndex(
        name=name or root.resolve().name,
        classes=classes,
        labels=np.array([number[label] for label in labels], dtype=np.int64),
        names=tuple(names),
        given=tuple(sides) if has_val else None,
        root=root.resolve(),
    )
    _check(index, root)
    return index


def _check(index: ImageIndex, root: Path) -> None:
    if len(index.classes) < 2:
        only = index.classes[0] if index.classes else "none"
        raise UserError(f"data folder {root}: one class only ('{only}'); at least two are needed to tell apart")
    lonely = [name for name, count in zip(index.classes, index.counts, strict=True) if count < 2]
    if lonely:
        raise UserError(
            f"data folder {root}: class '{lonely[0]}' has one image; each needs one to train on and one to validate on"
        )
    if index.given is not None:
        sides = np.array(index.given)
        for label, class_name in enumerate(index.classes):
            for side in ("train", "val"):
                if not np.any((index.labels == label) & (sides == side)):
                    raise UserError(f"data folder {root}: class '{class_name}' has no image in {side}")
