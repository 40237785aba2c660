"""Caltech-101: 101 categories and 8,677 images; `BACKGROUND_Google` is clutter, not a category.

Source: Li, Andreeto, Ranzato and Perona 2022, doi 10.22002/D1.20086, CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

from bagoftricks.data.folder import is_folder, read_folder
from bagoftricks.data.index import ImageIndex

CATEGORIES_FOLDER = "101_ObjectCategories"
CLUTTER = "BACKGROUND_Google"


def find(root: Path) -> Path | None:
    """Returns the folder of categories if `root` is Caltech-101 or holds it, else None."""
    for folder in (root / CATEGORIES_FOLDER, root / "caltech101" / CATEGORIES_FOLDER, root):
        if is_folder(folder / CLUTTER) or (folder.name == CATEGORIES_FOLDER and is_folder(folder)):
            return folder
    return None


def read_caltech101(categories: Path) -> ImageIndex:
    """Returns the index of Caltech-101 from its folder of categories."""
    return read_folder(categories, exclude=frozenset((CLUTTER,)), name="caltech-101")
