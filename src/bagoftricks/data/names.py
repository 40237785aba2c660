"""Names that outsiders chose, as they may be shown."""

from __future__ import annotations


def shown(name: str) -> str:
    r"""Returns a name that can be printed on one line.

    Bytes of a file name that are no UTF-8, line breaks, and other control and formatting characters are spelled out
    (`\n`, `\x1b`, `\u202e`).
    """
    if name.isprintable():  # lone surrogates are not
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
