"""Two recipes on a locked test set: the interval against formulas, and against truth that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bagoftricks.studies.confirm import confirm


def test_one_seed_is_the_paired_t_of_images() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.random((2, 1, 200)) < 0.7
    found = confirm(first, second)
    wanted = stats.ttest_rel(first[0].astype(float), second[0].astype(float)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert (found.seeds, found.images) == (1, 200)


def test_against_the_sum_written_out() -> None:
    draw = np.random.default_rng(1)
    first, second = (draw.random((3, 50)) < share for share in (0.8, 0.6))
    found = confirm(first, second)
    d = [[int(a) - int(b) for a, b in zip(x, y, strict=True)] for x, y in zip(first, second, strict=True)]
    rows = [sum(row) / 50 for row in d]
    columns = [sum(row[n] for row in d) / 3 for n in range(50)]
    mean = sum(rows) / 3
    v_s = sum((r - mean) ** 2 for r in rows) / 2 / 3
    v_n = sum((c - mean) ** 2 for c in columns) / 49 / 50
    freedom = (v_s + v_n) ** 2 / (v_s**2 / 2 + v_n**2 / 49)
    reach = stats.t.ppf(0.975, freedom) * (v_s + v_n) ** 0.5
    assert (found.difference, found.low, found.high) == pytest.approx((mean, mean - reach, mean + reach))
    assert found.by_seed == pytest.approx(rows)
    assert found.excludes_zero == (mean - reach > 0)


def test_nothing_differs() -> None:
    same = np.ones((2, 10), dtype=bool)
    found = confirm(same, same)
    assert (found.difference, found.low, found.high, found.excludes_zero) == (0.0, 0.0, 0.0, False)


@pytest.mark.parametrize("shape", [(0, 5), (2, 1), (5,)])
def test_what_has_no_interval(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="need one row a seed"):
        confirm(np.ones(shape), np.zeros(shape))


@pytest.mark.parametrize(("seeds", "images"), [(1, 300), (3, 300), (5, 1000)])
def test_covers_the_truth(seeds: int, images: int) -> None:
    """Images of different hardness for either recipe, and seeds of different luck: 95 % or more of 2,000 intervals hold
    the difference over all images (and, of more than one seed, over all seeds)."""
    draw, held, studies = np.random.default_rng(seeds), 0, 2000
    for _ in range(studies):
        hardness = draw.normal(0, 1, images)
        sides = []
        for skill in (1.0, 0.8):
            own = hardness + draw.normal(0, 0.5, images)
            luck = draw.normal(0, 0.1 if seeds > 1 else 0.0, (seeds, 1))
            sides.append(skill + own + luck + draw.normal(0, 1, (seeds, images)) > 0)
        spread = (1 + 0.25 + (0.01 if seeds > 1 else 0) + 1) ** 0.5
        truth = stats.norm.cdf(1.0 / spread) - stats.norm.cdf(0.8 / spread)
        found = confirm(*sides)
        held += found.low <= truth <= found.high
    assert held / studies >= 0.935  # three standard errors below 95 %
