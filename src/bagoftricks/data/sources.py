"""Finds out what a user's `--data` means: the word `digits`, a CSV manifest, a Caltech-101 folder, or any folder."""

from __future__ import annotations

from pathlib import Path

from bagoftricks.data import caltech101
from bagoftricks.data.digits import read_digits
from bagoftricks.data.folder import read_folder
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.manifest import MANIFESTS, read_manifest
from bagoftricks.errors import UserError
from bagoftricks.files import expanded


def open_data(data: str | Path | ImageIndex) -> ImageIndex:
    """Returns the index of a data set.

    Args:
        data: "digits" (a folder of that name is reached as "./digits"), a CSV manifest, a folder, or an index, which is
            returned.

    Raises:
        UserError: if there is no such folder, or it cannot be trained on.
    """
    if isinstance(data, ImageIndex):
        return data
    if data == "digits":
        return read_digits()
    if data == "":
        raise UserError("data '': the name of a folder is empty")
    root = expanded(data)
    if root.suffix.lower() in MANIFESTS:
        return read_manifest(root)
    categories = caltech101.find(root)
    return caltech101.read_caltech101(categories) if categories else read_folder(root)
