"""One contrast measured over the blocks: its estimate, interval, tests and notes, before its family is corrected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bagoftricks.intervals import wilson
from bagoftricks.studies import inference
from bagoftricks.studies.contrasts import Contrast
from bagoftricks.studies.grid import Grid
from bagoftricks.studies.verdicts import Effect, Settings, plain


def measure(contrast: Contrast, grid: Grid, settings: Settings, titles: Mapping[str, str]) -> Effect:
    """Returns the effect with everything that does not depend on its family."""
    scale = 100.0 if settings.unit == "points" else 1.0
    d = contrast.differences(grid.values, grid.cells) * scale
    whole = np.isfinite(d)
    d, n = d[whole], int(whole.sum())
    effect = Effect(
        kind=contrast.kind,
        name=contrast.name,
        titles=tuple(titles.get(factor, plain(factor)) for factor in contrast.factors),
        factors=contrast.factors,
        levels=contrast.levels,
        given=dict(contrast.given),
        bare=contrast.bare,
        over=dict(contrast.over),
        combinations=contrast.combinations,
        possible=contrast.possible,
        cells=tuple(contrast.weights),
        n=n,
        blocks=tuple(b for b, kept in zip(grid.blocks, whole, strict=True) if kept),
        left_out=tuple(b for b, kept in zip(grid.blocks, whole, strict=True) if not kept),
        differences=tuple(map(float, d)),
        settings=settings,
        notes=_notes(contrast, grid, n),
    )
    if n == 0:
        return effect
    tolerance = inference.TOLERANCE * max(scale, scale * float(np.nanmax(np.abs(grid.values))))
    favoured = d if settings.higher_is_better else -d
    better = float(np.mean(np.where(np.abs(d) <= tolerance, 0.5, favoured > 0)))
    low, high = wilson(better * n, n, alpha=settings.alpha)
    effect = replace(effect, estimate=float(d.mean()), better=better, better_low=low, better_high=high)
    return effect if n == 1 else _test(effect, d, tolerance)


def _test(effect: Effect, d: inference.FloatArray, tolerance: float) -> Effect:
    """Returns the effect with its tests, from two blocks on."""
    settings = effect.settings
    test = inference.paired_t(d, alpha=settings.alpha, tolerance=tolerance)
    flips = inference.sign_flip(d, tolerance=tolerance)
    mean, sd, t = float(test.mean), float(test.sd), float(test.t)
    notes = effect.notes
    if sd == 0:
        what = "no spread to test against, and no interval" + ("" if mean == 0 else "; p is the sign-flip test's")
        notes = (*notes, f"the difference is the same in every {settings.block}: {what}")
    elif settings.test_train_ratio is not None:
        beyond = inference.paired_t(d, alpha=settings.alpha, overlap=settings.test_train_ratio, tolerance=tolerance)
        low, high, p = float(beyond.low), float(beyond.high), float(beyond.p)
        effect = replace(effect, corrected_low=low, corrected_high=high, corrected_p=p)
    return replace(
        effect,
        estimate=mean,
        sd=sd,
        low=float(test.low) if sd else None,
        high=float(test.high) if sd else None,
        t=t if math.isfinite(t) else None,
        p=float(test.p),
        sign_flip_p=flips.p,
        sign_flip_floor=flips.floor,
        sign_flip_exact=flips.exact,
        d_z=mean / sd if sd else None,
        equivalence_p=float(inference.tost(d, settings.margin, tolerance=tolerance)),
        notes=notes,
    )


def _notes(contrast: Contrast, grid: Grid, n: int) -> tuple[str, ...]:
    notes = []
    if contrast.kind in ("main", "interaction") and contrast.combinations < contrast.possible:
        some = {f: used for f, used in contrast.over.items() if len(used) < len(grid.levels[f])}
        where = "".join(f"; {factor} at {', '.join(used)}" for factor, used in some.items())
        notes.append(
            f"averaged over {contrast.combinations} of {contrast.possible} combinations of the other factors{where}"
        )
    if lacking := len(grid.blocks) - n:
        notes.append(f"{lacking} of {len(grid.blocks)} blocks left out: a run that it needs is failed or missing")
    return tuple(notes)
