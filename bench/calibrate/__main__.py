"""Runs the simulations: `make calibrate`. Exit status 1 if a promise is not kept."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

from bagoftricks.files import write_json
from bench.calibrate import errors, finds, resampled
from bench.calibrate.designs import DESIGNS, PAIR
from bench.calibrate.errors import BLOCKS
from bench.calibrate.figures import Effort, Figure
from bench.calibrate.noise import NOISES, ONE_SIDED
from bench.calibrate.pool import Pool, load_pool
from bench.calibrate.tables import HEADINGS, broken, table, write

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "statistics.md"
Step = tuple[str, Callable[[], list[Figure]]]


def simulated(effort: Effort) -> Iterator[Step]:
    """Yields every scenario of simulated noise, with a name for people."""
    some = list(NOISES)[:4]  # Gaussian, skewed twice, heavy-tailed
    for design in DESIGNS.values():
        yield f"wholly {design.name}", partial(errors.wholly, design, effort)
        yield f"either {design.name}", partial(errors.either_claim, design, effort)
        for noise, n in product(NOISES, BLOCKS):
            for measure in (errors.family_wise, errors.with_effects, errors.at_margin):
                yield f"{measure.__name__} {design.name}, {noise}, n = {n}", partial(measure, design, noise, n, effort)
        for d_z, noise in product(finds.SIZES, some):
            yield f"power {design.name}, {noise}, d_z = {d_z}", partial(finds.power, design, noise, d_z, effort)
    for d_z, n in product(finds.SIZES, (5, 10)):
        yield f"pilot of {n}, d_z = {d_z}", partial(finds.pilot, d_z, n, effort)
    for margin, n, d_z in product((0.5, 2.0), BLOCKS, (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)):
        yield f"verdicts, margin {margin}, n = {n}, d_z = {d_z}", partial(finds.verdict_rates, n, margin, d_z, effort)
    for noise, n in product([*some, "exponential against none"], (5, 8, 10)):
        yield f"sign-flip {noise}, n = {n}", partial(finds.flips, noise, n, effort)
    for d_z, n in product((0.0, 0.5, 1.0, 1.5, 2.0), BLOCKS):
        yield f"P(better), n = {n}, d_z = {d_z}", partial(finds.better, d_z, n)
    for noise, n in product([*some, *ONE_SIDED], (2, 3, 4)):
        yield f"few blocks, {noise}, n = {n}", partial(errors.few_blocks, noise, n, effort)
    for noise, design, n in product(ONE_SIDED, (PAIR, DESIGNS["2^3"]), (*BLOCKS, 50)):
        yield (
            f"one level skewed, {noise}, {design.name}, n = {n}",
            partial(errors.one_level_skew, design, noise, n, effort),
        )
    for noise, design, n in product(NOISES, (DESIGNS["2^3"], DESIGNS["ladder of 6"]), BLOCKS):
        yield f"whole cells, {design.name}, {noise}, n = {n}", partial(errors.whole_cells, design, noise, n, effort)
    for (images, differing), n in product(errors.COARSE, (5, 10)):
        yield (
            f"coarse metric, {images} images, {differing}, n = {n}",
            partial(errors.coarse, images, differing, n, effort),
        )


def drawn(pool: Pool, effort: Effort) -> Iterator[Step]:
    """Yields every scenario that draws from the pools of re-split digits."""
    for design, n in product(resampled.DESIGNS.values(), BLOCKS):
        for measure in (resampled.permuted, resampled.recentred, resampled.margins, resampled.covers):
            yield f"pool, {measure.__name__}, {design.name}, n = {n}", partial(measure, pool.splits, design, n, effort)
    for d_z in finds.SIZES:
        yield f"pool, power, d_z = {d_z}", partial(resampled.power, pool.splits, d_z, effort)
    for n in BLOCKS:
        yield f"new data, n = {n}", partial(resampled.new_data, pool.sets, n, effort)


def measure_all(steps: Sequence[Step], jobs: int) -> list[Figure]:
    """Returns the figures of all steps, in their order; progress on standard error."""
    figures: list[Figure] = []
    with ProcessPoolExecutor(jobs) as workers:
        running = [workers.submit(step) for _, step in steps]
        for number, ((name, _), result) in enumerate(zip(steps, running, strict=True), 1):
            found = result.result()
            figures += found
            said = ", ".join(f.shown + ("" if f.holds is not False else " (NOT KEPT)") for f in found)
            print(f"[{number}/{len(steps)}] {name}: {said}", file=sys.stderr, flush=True)
    return figures


def main() -> int:
    """Parses, simulates, prints the tables, and writes what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibrate", description=__doc__)
    parser.add_argument(
        "--studies", type=int, default=10_000, help="of each scenario; with few, chance breaks promises"
    )
    parser.add_argument("--proved", type=int, default=10, help="how many of them also go through analyse")
    parser.add_argument("--whole", type=int, default=2_000, help="studies of each design through analyse alone")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--pool", type=Path, help="file that keeps the accuracies of re-split digits; written if new")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--write", action="store_true", help=f"renew the tables in {PAGE.name}")
    args = parser.parse_args()
    began = time.monotonic()
    effort = Effort(args.studies, args.proved, args.whole)
    steps = [*simulated(effort), *drawn(load_pool(args.pool), effort)]
    figures = measure_all(steps, args.jobs)
    seconds = round(time.monotonic() - began)
    for name in HEADINGS:
        print(f"\n{name}\n\n{table(name, figures)}")
    failed = broken(figures)
    print(f"\n{len(figures)} figures in {seconds} s; not kept: {len(failed)}")
    for figure in failed:
        print(f"not kept: {figure.table}: {figure.row}, {figure.column}: {json.dumps(dict(figure.values))}")
    if args.json:
        write_json(args.json, {"effort": asdict(effort), "seconds": seconds, "figures": [vars(f) for f in figures]})
    if args.write:
        write(PAGE, figures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
