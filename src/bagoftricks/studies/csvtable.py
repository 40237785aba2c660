"""Results that were made elsewhere: a CSV file with a row for each run, and which of its columns may be factors."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bagoftricks.data.names import shown
from bagoftricks.data.untrusted import read_named
from bagoftricks.errors import UserError, first_line

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 64 * 2**20
MOST_ROWS = 1_000_000
MOST_COLUMNS = 1_000
MOST_FIELDS = 20_000_000
"""Rows times columns: a field takes 16 bytes of memory at least, however short it is."""


def read_table(path: Path) -> pd.DataFrame:
    """Returns a CSV file as text columns; a byte order mark and blank lines are passed over.

    Control and formatting characters are spelled out, as these names and levels come to be printed.

    Raises:
        UserError: if it is not there, too large, no UTF-8, or no table.
    """
    import pandas as pd

    lines = csv.reader(
        io.StringIO(read_named(path, "table", MOST_BYTES).removeprefix("\ufeff"), newline=""), strict=True
    )
    rows: list[list[str]] = []
    try:
        header = [shown(name.strip()) for name in next(lines, [])]
        if len(header) > MOST_COLUMNS:
            raise UserError(f"table {path}: has {len(header):,} columns, more than {MOST_COLUMNS:,}")
        for row in lines:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"table {path}, line {lines.line_num}: {len(row)} fields where the head has {len(header)}"
                )
            rows.append([shown(field.strip()) for field in row])
            if len(rows) > MOST_ROWS or len(rows) * len(header) > MOST_FIELDS:
                bounds = f"{MOST_ROWS:,} rows or {MOST_FIELDS:,} fields"
                raise UserError(f"table {path}: more than {bounds}; keep a row for each run only")
    except csv.Error as error:
        raise UserError(f"table {path}, line {lines.line_num}: is no CSV ({first_line(error)})") from error
    double = next((name for i, name in enumerate(header) if name in header[:i]), None)
    if double is not None:
        raise UserError(f"table {path}: two columns are named '{double}'")
    if not rows:
        raise UserError(f"table {path}: has no rows; it needs a head and a row for each run")
    return pd.DataFrame(rows, columns=header, dtype=object)


def choose_factors(frame: pd.DataFrame, block: str, others: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the columns that may be factors, and why each of the rest is none.

    A factor's levels recur: in every block, and no block has fewer rows than it has levels.

    Args:
        frame: a row for each run.
        block: the column of seeds.
        others: further columns that are no factors.
    """
    most_rows, blocks = int(frame[block].value_counts().max()), frame[block].nunique()
    factors, left_out = [], {}
    for name in map(str, frame.columns):
        if name == block or name in others:
            continue
        seen_in = frame.groupby(name)[block].nunique()
        if len(seen_in) == 1:
            left_out[name] = "the same in every row"
        elif len(seen_in) == len(frame):
            left_out[name] = "different in every row"
        elif len(seen_in) > most_rows:
            left_out[name] = f"more values than any {block} has rows"
        elif blocks > 1 and (seen_in == 1).mean() > 0.5:
            left_out[name] = f"most values stand in one {block} only, as results do"
        else:
            factors.append(name)
    return factors, left_out
