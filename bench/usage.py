"""Memory of a process and its children, read from Linux's /proc; empty elsewhere.

Private pages are the process's own. A memory-mapped cache is counted apart: its pages belong to the system's page
cache, are shared with every other run, and are given back under pressure.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
KIB = 1024


def memory(pid: int | None = None) -> dict[str, float]:
    """Returns MB: private, mapped_cache, peak_rss of one process, and tree_pss of it and its children.

    tree_pss adds up proportional shares, so that pages which loader workers share with their parent count once.
    """
    pid = pid or os.getpid()
    if not (PROC / str(pid) / "smaps_rollup").exists():
        return {}
    rollup, status = _fields(PROC / str(pid) / "smaps_rollup"), _fields(PROC / str(pid) / "status")
    found = {
        "private_mb": (rollup.get("Private_Clean", 0) + rollup.get("Private_Dirty", 0)) * KIB / 1e6,
        "mapped_cache_mb": mapped(pid, ".u8") * KIB / 1e6,
        "peak_rss_mb": status.get("VmHWM", 0) * KIB / 1e6,
    }
    # a cache that one process alone maps is private to it in the kernel's count
    found["private_mb"] = max(0.0, found["private_mb"] - found["mapped_cache_mb"])
    shares = [_fields(PROC / str(member) / "smaps_rollup").get("Pss", 0) for member in (pid, *children(pid))]
    found["tree_pss_mb"] = sum(shares) * KIB / 1e6
    return found


def mapped(pid: int, suffix: str) -> int:
    """Returns KiB in memory of the files mapped by a process whose names end in `suffix`."""
    total, inside = 0, False
    try:
        lines = (PROC / str(pid) / "smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    for line in lines:
        first = line.split(" ", 1)[0]
        if not first.endswith(":"):
            inside = line.endswith(suffix)
        elif inside and first == "Rss:":
            total += int(line.split()[1])
    return total


def children(pid: int) -> list[int]:
    """Returns the processes below one, at any depth."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:  # it has ended
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _fields(path: Path) -> dict[str, int]:
    """Reads lines of `Name:  123 kB`."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.split() for line in text.splitlines())
    return {p[0].rstrip(":"): int(p[1]) for p in pairs if len(p) == 3 and p[2] == "kB" and p[1].isdigit()}
