"""A CSV manifest: `path,label`, and optionally `split` and `group`, for images that lie in no folder of classes.

Paths are relative to the manifest's folder, or absolute. `split` is train, val (or validation) or test, or empty
everywhere; `group` names the patient, site or video that an image comes from. Other columns are left alone.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bagoftricks.data.folder import assemble, side_of
from bagoftricks.data.index import ImageIndex
from bagoftricks.data.names import shown
from bagoftricks.errors import UserError
from bagoftricks.files import read_text

MANIFESTS = (".csv", ".tsv")
MOST_BYTES = 2**30
"""Of a manifest: room for some ten million rows."""
COLUMNS = ("path", "label", "split", "group")


def read_manifest(path: Path, *, trainable: bool = True) -> ImageIndex:
    """Returns the index of the images that a manifest lists, in its order.

    Args:
        path: .csv (commas) or .tsv (tabs), UTF-8, with a header; it and the images are only ever read.
        trainable: whether it is to be trained on; else one class, or one image, will do.

    Raises:
        UserError: for a missing column, an empty or doubled path, an unknown split, a missing file, naming the line;
            and for what `assemble` refuses.
    """
    source = f"manifest {shown(str(path))}"
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UserError(f"{source}: larger than {MOST_BYTES // 2**20} MiB")
    seen: dict[str, int] = {}
    columns: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for line, row in _rows(path, source):
        for name in ("path", "label"):
            if not row[name]:
                raise UserError(f"{source}, line {line}: no {name}")
        place, listed = os.path.normpath(path.parent / row["path"]), shown(row["path"])
        if place in seen:
            raise UserError(f"{source}, line {line}: '{listed}' stands in line {seen[place]} already")
        if not _is_file(path.parent / row["path"]):
            raise UserError(f"{source}, line {line}: '{listed}' is no file; paths are relative to {path.parent}")
        named = row.get("split") or ""
        side = side_of(named)
        if named and not side:
            raise UserError(f"{source}, line {line}: split '{shown(named)}' must be train, val, test or empty")
        seen[place] = line
        for name in ("path", "label"):
            columns[name].append(row[name])
        columns["split"].append(side)
        if "group" in row:
            if not row["group"]:
                raise UserError(f"{source}, line {line}: no group; give every image one, or leave the column out")
            columns["group"].append(row["group"])
    if not seen:
        raise UserError(f"{source}: lists no images")
    root = path.parent.resolve()
    index = assemble(
        path.stem,
        columns["path"],
        columns["label"],
        columns["split"],
        root=root,
        source=source,
        groups=columns["group"] or None,
        trainable=trainable,
    )
    return replace(index, holders=tuple(sorted({(root / name).parent for name in columns["path"]})))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, a folder that may not be entered, a null character
        return False


def _rows(path: Path, source: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line, row) with the known columns, stripped; a blank line is passed over."""
    text = read_text(path, "manifest").removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        for name in ("path", "label"):
            if name not in header:
                found = shown(", ".join(header)) if any(header) else "none"
                raise UserError(f"{source}: no column '{name}' in its first line (found: {found})")
        places = {name: header.index(name) for name in COLUMNS if name in header}
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) < len(header) or any(cells[len(header) :]):  # more: a comma that is not quoted
                raise UserError(f"{source}, line {reader.line_num}: {len(cells)} cells for {len(header)} columns")
            yield reader.line_num, {name: cells[place].strip() for name, place in places.items()}
    except csv.Error as error:
        raise UserError(f"{source}, line {reader.line_num}: is no CSV ({error})") from error
