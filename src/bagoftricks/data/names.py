"""Names that outsiders chose, as they may be shown."""

from __future__ import annotations

import unicodedata


def shown(name: str) -> str:
    r"""Returns a name that can be printed on one line.

    Bytes of a file name that are no UTF-8, line breaks, and other control and formatting characters are spelled out
    (`\n`, `\x1b`, `\u202e`). Spaces of other widths stay: names of screenshots have them.
    """
    if name.isprintable():  # lone surrogates are not
        return name
    return "".join(c if _is_plain(c) else c.encode("unicode_escape").decode("ascii") for c in name)


def _is_plain(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"
