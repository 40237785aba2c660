"""Fetches Caltech-101 from its official record, checked, so that it is there whole or not at all.

Source: Li, Andreeto, Ranzato and Perona 2022, CaltechDATA, doi 10.22002/D1.20086, CC BY 4.0.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bagoftricks.data.archives import extract
from bagoftricks.data.caltech101 import CATEGORIES_FOLDER, find
from bagoftricks.data.download import download, quiet
from bagoftricks.errors import RunError, UserError
from bagoftricks.files import check_output, locked, remove_folder

OFFICIAL = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip?download=1"
OFFICIAL_MD5 = "3138e1922a9193bfa496528edbbc45d0"
ARCHIVE = "caltech-101.zip"
INNER = f"caltech-101/{CATEGORIES_FOLDER}.tar.gz"
"""The images, inside the archive; its annotations are not needed."""
CATEGORIES, IMAGES = 102, 9144
"""What Caltech-101 is, its clutter `BACKGROUND_Google` included."""
MOST_BYTES, MOST_FILES = 1_000_000_000, 20_000
"""Bounds on what is downloaded and unpacked: about seven and two times what Caltech-101 is."""


def fetch_caltech101(
    folder: Path,
    *,
    url: str = OFFICIAL,
    md5: str | None = OFFICIAL_MD5,
    on_bytes: Callable[[int, int | None], None] = quiet,
    on_file: Callable[[int, str], None] = quiet,
    keep_archive: bool = False,
    categories: int = CATEGORIES,
    images: int = IMAGES,
) -> Path:
    """Returns the folder `101_ObjectCategories` below `folder`, downloading it (about 137 MB) if it is not there.

    A `caltech-101.zip` with the right checksum that lies in `folder` is taken instead of the network.

    Args:
        folder: where to put it, or where it is already; created if need be.
        url: the archive's address.
        md5: the archive's checksum, hexadecimal.
        on_bytes: called while downloading with the bytes so far and the length, None if unknown.
        on_file: called while unpacking with the number of files so far and a name.
        keep_archive: whether a downloaded `caltech-101.zip` stays in `folder` afterwards; one that lay there does.
        categories: folders that must be there, clutter included.
        images: non-empty .jpg files that must be there.

    Raises:
        UserError: if an incomplete 101_ObjectCategories is there, or `folder` cannot be written to.
        RunError: if it cannot be downloaded, or is not what Caltech-101 must be.
    """
    wanted = (categories, images)
    if ready := _find_complete(folder, wanted):
        return ready
    check_output(folder)
    with locked(folder / f".{ARCHIVE}.lock") as taken:
        if not taken:
            raise RunError(f"{folder}: another process is fetching Caltech-101 into it; wait for that one")
        if ready := _find_complete(folder, wanted):  # it has, meanwhile
            return ready
        brought = (folder / ARCHIVE).exists()  # by the user, and stays
        archive = download(url, folder / ARCHIVE, md5=md5, max_bytes=MOST_BYTES, on_bytes=on_bytes)
        _unpack(archive, folder / CATEGORIES_FOLDER, wanted, on_file)
        if not (keep_archive or brought):
            archive.unlink()
    return folder / CATEGORIES_FOLDER


def count_images(folder: Path) -> tuple[int, int]:
    """Returns how many folders a folder of categories has, and how many non-empty .jpg files are in those."""
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    files = (
        file
        for category in found
        for file in category.iterdir()
        if file.suffix.lower() == ".jpg" and not file.name.startswith(".")
    )
    return len(found), sum(file.is_file() and file.stat().st_size > 0 for file in files)


def _find_complete(folder: Path, wanted: tuple[int, int]) -> Path | None:
    """Returns the folder of categories, if there is one.

    Raises:
        UserError: if it is not whole: it may be somebody's selection, so it is not replaced.
    """
    there = find(folder)
    if there is None and (folder / CATEGORIES_FOLDER).exists():
        raise UserError(f"{folder / CATEGORIES_FOLDER}: is a file; move it away and run again")
    if there is not None and (fault := _fault(there, wanted)):
        raise UserError(f"{there}: {fault}; move it away and run again, or name another folder")
    return there


def _fault(categories: Path, wanted: tuple[int, int]) -> str | None:
    """Returns in what a folder of categories differs from Caltech-101, or None."""
    found = count_images(categories)
    if found == wanted:
        return None
    return f"holds {found[0]:,} categories and {found[1]:,} images instead of {wanted[0]:,} and {wanted[1]:,}"


def _unpack(archive: Path, target: Path, wanted: tuple[int, int], on_file: Callable[[int, str], None]) -> None:
    """Makes `target` of the archive in the archive, by way of a folder beside it that is removed in any case."""
    work = target.with_name(f".{target.name}.partial")
    remove_folder(work)  # of a process that was killed; of a link the link, which would lead elsewhere
    try:
        outer = extract(archive, work / "outer", max_bytes=MOST_BYTES, max_files=MOST_FILES)
        if not (outer / INNER).is_file():
            raise RunError(f"{archive}: no {INNER} in it; it is not the official Caltech-101")
        inner = (
            extract(outer / INNER, work / "inner", max_bytes=MOST_BYTES, max_files=MOST_FILES, on_file=on_file)
            / CATEGORIES_FOLDER
        )
        if not inner.is_dir():
            raise RunError(f"{archive}: no folder {CATEGORIES_FOLDER} in its {INNER}; it is not the official one")
        if fault := _fault(inner, wanted):
            raise RunError(f"{archive}: {fault}; it is not the official Caltech-101")
        if target.exists():
            raise UserError(f"{target}: appeared while unpacking; move it away and run again")
        inner.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
