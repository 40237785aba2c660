"""Text of a model card that others have a say in: escaped for Markdown and YAML; and what licences mean for a copy."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence

from bagoftricks.data.names import shown

_IDENTIFIERS = (
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc cc0-1.0 "
    "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 "
    "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 ecl-2.0 epl-1.0 "
    "epl-2.0 eupl-1.1 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa odbl odc-by "
    "openrail osl-3.0 pddl postgresql unlicense wtfpl zlib unknown"
)
HUB_LICENCES = frozenset(_IDENTIFIERS.split())
"""What the HF hub takes for `license`, of what weights are published under; all else is "other" with a name."""
KEEP_NOTICE = re.compile(r"apache|bsd|mit|isc|zlib|ncsa|cc-by")
SAME_LICENCE = re.compile(r"-sa|gpl|^(eupl|mpl|osl|epl)")
UNREAD = (
    "Read it before you pass these weights on, and put its text beside this file: the card does not know its terms."
)
FREE = ("cc0-1.0", "unlicense", "wtfpl", "pddl")


def markdown(text: str) -> str:
    """Returns a text that Markdown shows as it is, on one line, in a table too: no markup, HTML, link or formula."""
    return re.sub(r"([\\`*_\[\]()|~$:@!.])", r"\\\1", html.escape(shown(text), quote=False))


def yaml(text: str) -> str:
    """Returns a text in YAML's double quotes; JSON's strings are such, once control characters are spelled out."""
    return json.dumps(shown(text), ensure_ascii=False)


def fenced(text: str, language: str) -> str:
    """Returns a text as a block of code that it cannot end; control characters are spelled as in TOML's strings."""
    lines = text.rstrip("\n").split("\n")
    text = "\n".join("".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in line) for line in lines)
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text}\n{ticks}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; what is in its cells is Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _identifier(licence: str) -> str:
    return licence.strip().lower().removesuffix("-only").removesuffix("-or-later")


def hub_fields(licence: str) -> dict[str, str]:
    """Returns the front matter's `license`, and `license_name` where the hub has no identifier; nothing for none."""
    name = _identifier(licence)
    if not name:
        return {}
    if name in HUB_LICENCES:
        return {"license": name}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name).strip("-.")[:60] or "unnamed"}


def consequence(licence: str) -> str:
    """Returns what a licence of the initial weights means for whoever passes on weights that were trained from them."""
    name = _identifier(licence)
    if name not in HUB_LICENCES:
        return UNREAD
    if name in FREE:
        return "It asks for nothing; naming the source is still good manners."
    terms = []
    if "-nc" in name:
        terms.append("It excludes commercial use, of these weights too.")
    if "-nd" in name:
        terms.append(
            "It does not allow changed versions, which these weights are, to be passed on: keep them to yourself."
        )
    if SAME_LICENCE.search(name):
        terms.append(
            "It asks that changed versions carry the same licence: pass these weights on under it, or not at all."
        )
    if KEEP_NOTICE.match(name):
        terms.append("It asks that its notice and the name of its source go with every copy: keep this section.")
    return " ".join(terms) or UNREAD
