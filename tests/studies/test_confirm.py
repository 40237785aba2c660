"""Two recipes on a locked test set: the interval against formulas, and against truth that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bagoftricks.studies.confirm import confirm


def test_one_seed_is_nearly_the_paired_t_of_images() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.random((2, 1, 2000)) < 0.7
    found = confirm(first, second)
    wanted = stats.ttest_rel(first[0].astype(float), second[0].astype(float)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-4)
    assert found.high > wanted.high
    assert (found.seeds, found.images) == (1, 2000)


def test_against_the_sum_written_out() -> None:
    draw = np.random.default_rng(1)
    first, second = (draw.random((3, 50)) < share for share in (0.8, 0.6))
    found = confirm(first, second)
    d = [[int(a) - int(b) for a, b in zip(x, y, strict=True)] for x, y in zip(first, second, strict=True)]
    rows = [sum(row) / 50 for row in d]
    columns = [sum(row[n] for row in d) / 3 for n in range(50)]
    mean = sum(rows) / 3
    v_s = sum((r - mean) ** 2 for r in rows) / 2 / 3
    v_n = (sum((c - mean) ** 2 for c in columns) + 1) / 49 / 50
    reach = (4.302653**2 * v_s + 2.009575**2 * v_n) ** 0.5
    assert (found.difference, found.low, found.high) == pytest.approx((mean, mean - reach, mean + reach), abs=1e-6)
    assert found.by_seed == pytest.approx(rows)
    assert found.excludes_zero == (mean - reach > 0)


def test_nothing_differs_or_all_does() -> None:
    """No certainty comes from a few images."""
    same = np.ones((2, 10), dtype=bool)
    found = confirm(same, same)
    assert found.difference == 0
    assert found.low < -0.1 < 0.1 < found.high
    assert not found.excludes_zero
    found = confirm(same, ~same)
    assert found.difference == found.high == 1
    assert 0.5 < found.low < 0.9


@pytest.mark.parametrize("shape", [(0, 5), (2, 1), (5,)])
def test_what_has_no_interval(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="need one row a seed"):
        confirm(np.ones(shape), np.zeros(shape))


@pytest.mark.parametrize(("seeds", "images", "luck"), [(1, 300, 0.0), (2, 600, 0.3), (3, 300, 0.02), (5, 300, 0.3)])
def test_covers_the_truth(seeds: int, images: int, luck: float) -> None:
    """Images of different hardness for either recipe, and seeds of different luck, little or much: 95 % or more of the
    intervals hold the difference over all images (and, of more than one seed, over all seeds)."""
    draw, held, studies = np.random.default_rng(seeds), 0, 800
    for _ in range(studies):
        hardness = draw.normal(0, 1, images)
        sides = []
        for skill in (1.0, 0.8):
            own = hardness + draw.normal(0, 0.5, images)
            sides.append(skill + own + draw.normal(0, luck, (seeds, 1)) + draw.normal(0, 1, (seeds, images)) > 0)
        spread = (1 + 0.25 + luck**2 + 1) ** 0.5
        truth = stats.norm.cdf(1.0 / spread) - stats.norm.cdf(0.8 / spread)
        found = confirm(*sides)
        held += found.low <= truth <= found.high
    assert held / studies >= 0.927  # three standard errors below 95 %
