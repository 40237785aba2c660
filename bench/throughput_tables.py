"""The tables of the throughput bench, and its summary for JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.contenders.job import Contender
from bench.journal import Journal
from bench.summary import (
    Spread,
    bars,
    bars_to_list,
    best_peer,
    by_repeat,
    first_epoch_rate,
    outside_step,
    ratio,
    show,
    show_bars,
)

TASKS = {"train": "training", "data": "data path alone", "eval": "evaluation"}
Entries = Sequence[Mapping[str, Any]]


def rounds(journal: Journal) -> list[dict[str, Any]]:
    """Returns the measurements of the rounds; trials of flags are not results."""
    return [entry for entry in journal.entries if entry.get("kind") == "round"]


def report(
    journal: Journal,
    chosen: Sequence[Contender],
    absent: Mapping[str, Sequence[str]],
    sizes: Sequence[int],
    *,
    as_json: bool,
) -> None:
    """Prints the tables, and completes and writes the JSON."""
    found = rounds(journal)
    peers = [contender.name for contender in chosen if contender.name != "ours"]
    for size in sizes:
        for task, words in TASKS.items():
            rows = [_row(found, contender, task, size, journal) for contender in chosen if task in contender.tasks]
            rows += [[name, "not installed", *[""] * 5] for name in absent]
            if any(row[1] != "—" for row in rows):
                headings = ["", "img/s: median (range)", "ours over it", "first epoch", "private MB", "all MB", "flags"]
                show(f"ResNet-50, {words}, {size} px, batch {journal.settings['batch']}", headings, rows)
        taken_apart(journal, found, size)
    judged = bars(found, peers, sizes)
    show_bars(judged)
    if failed := [f"{e['contender']} ({e['task']}, {e['size']} px): {e['error']}" for e in found if "error" in e]:
        show("Failed", ["measurement"], [[line] for line in dict.fromkeys(failed)])
    journal.tail["summary"] = summary(journal, chosen, sizes)
    journal.tail["bars"] = bars_to_list(judged)
    journal.tail["not_installed"] = {name: list(missing) for name, missing in absent.items()}
    journal.save()
    if as_json:
        print(json.dumps({**journal.head, "settings": dict(journal.settings), **journal.tail}, indent=2))


def _row(found: Entries, contender: Contender, task: str, size: int, journal: Journal) -> list[str]:
    mine = by_repeat(found, task, contender.name, size)
    errors = [
        e for e in found if (e["task"], e["contender"], e["size"]) == (task, contender.name, size) and "error" in e
    ]
    if not mine:
        return [contender.name, "failed" if errors else "—", *[""] * 5]
    ours = by_repeat(found, task, "ours", size)
    over = ratio(ours, mine) if contender.name != "ours" else None
    first = first_epoch(found, contender.name, size, journal) if task == "train" else None
    flags = next(
        (e["flags"] for e in found if (e["task"], e["contender"], e["size"]) == (task, contender.name, size)), {}
    )
    return [
        contender.name,
        Spread.of(list(mine.values())).text(),
        over.text(2) if over else "",
        f"{first:,.1f}" if first else "",
        *(_megabytes(found, task, contender.name, size, name) for name in ("private_mb", "tree_pss_mb")),
        " ".join(f"{k}={v}" for k, v in flags.items() if v not in ("", False)),
    ]


def _megabytes(found: Entries, task: str, name: str, size: int, figure: str) -> str:
    values = by_repeat(found, task, name, size, figure).values()
    return f"{max(values):,.0f}" if values else ""


def first_epoch(found: Entries, name: str, size: int, journal: Journal) -> float | None:
    """Returns images per second of the first epoch: with the longest preparation met, which is the cold one."""
    rates, waits = by_repeat(found, "train", name, size), by_repeat(found, "train", name, size, "prepare_s")
    cold = by_repeat(found, "train", name, size, "cold").values()
    if not rates or not waits or (cold and not any(cold)):  # ours may have found its cache each time
        return None
    return first_epoch_rate(journal.settings["images"]["train"], statistics.median(rates.values()), max(waits.values()))


def taken_apart(journal: Journal, found: Entries, size: int) -> None:
    """Prints where the time of our training goes."""
    figures = parts(journal, found, size)
    if figures:
        rows = [[name, text] for name, text in figures.items()]
        show(f"bagoftricks taken apart, {size} px", ["", "median (range over rounds)"], rows)


def parts(journal: Journal, found: Entries, size: int) -> dict[str, str]:
    """Returns the parts of our training, as text by name; empty where it was not measured."""
    rates = by_repeat(found, "train", "ours", size)
    if not rates:
        return {}
    step, loop = by_repeat(found, "step", "ours", size), by_repeat(found, "loop", "ours", size)
    texts = {"training, from the second epoch on, img/s": Spread.of(list(rates.values())).text()}
    first = first_epoch(found, "ours", size, journal)
    prepare = by_repeat(found, "train", "ours", size, "prepare_s")
    decode = by_repeat(found, "train", "ours", size, "decode_s")
    texts["first epoch, img/s"] = f"{first:,.1f}" if first else ""
    texts["before its first step, cold: s"] = f"{max(prepare.values()):,.1f}" if first else ""
    texts["of that, decoding into the cache: s"] = f"{max(decode.values()):,.1f}" if first and decode else ""
    for name, values in (("model's step alone, img/s", step), ("loop without data, img/s", loop)):
        if values:
            texts[name] = Spread.of(list(values.values())).text()
    if share := outside_step(found, size):
        texts["share of an epoch outside the model's step, %"] = share.text(2)
    waiting = by_repeat(found, "train", "ours", size, "waiting_share")
    texts["of it, waiting for batches (measured inside), %"] = Spread.of([100 * v for v in waiting.values()]).text(2)
    flops = journal.tail.setdefault("flops", {})
    if str(size) not in flops:
        from bench.machine import training_flops

        flops[str(size)] = training_flops(size, journal.settings["classes"])
    achieved = {r: v * flops[str(size)] / 1e9 for r, v in rates.items()}
    texts["training, GFLOP/s"] = Spread.of(list(achieved.values())).text(0)
    for dtype in ("bfloat16", "float32"):
        limit = by_repeat(found, "matmul", dtype, size, "gflops")
        if limit:
            texts[f"matrix products in {dtype}, GFLOP/s"] = Spread.of(list(limit.values())).text(0)
            if dtype == dtype_of(found, size) and (share := ratio(achieved, limit)):
                texts[f"share of {dtype} that training reaches, %"] = Spread(
                    100 * share.median, 100 * share.low, 100 * share.high, share.n
                ).text()
    cache = by_repeat(found, "train", "ours", size, "mapped_cache_mb")
    texts["cache in memory, shared and reclaimable: MB"] = f"{max(cache.values()):,.0f}" if cache else ""
    return {name: text for name, text in texts.items() if text}


def dtype_of(found: Entries, size: int) -> str:
    """Returns the dtype in which ours trained."""
    used = {
        e["result"].get("precision")
        for e in found
        if (e["task"], e["contender"], e["size"]) == ("train", "ours", size) and "result" in e
    }
    return "bfloat16" if used == {"bf16"} else "float32"


def summary(journal: Journal, chosen: Sequence[Contender], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Returns one row for each size, task and contender: rates, ratio, first epoch."""
    found, peers = rounds(journal), [c.name for c in chosen if c.name != "ours"]
    rows = []
    for size in sizes:
        for task in (*TASKS, "step", "loop"):
            best, _ = best_peer(found, task, peers, size)
            for contender in chosen:
                mine = by_repeat(found, task, contender.name, size)
                if not mine:
                    continue
                over = ratio(by_repeat(found, task, "ours", size), mine)
                row = {"size": size, "task": task, "contender": contender.name, "best_peer": contender.name == best}
                row["images_per_s"] = vars(Spread.of(list(mine.values())))
                row["ours_over_it"] = vars(over) if over and contender.name != "ours" else None
                row["first_epoch_images_per_s"] = (
                    first_epoch(found, contender.name, size, journal) if task == "train" else None
                )
                rows.append(row)
    return rows
