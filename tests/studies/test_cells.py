from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from bagoftricks.studies import cells as cells_module
from bagoftricks.studies.cells import (
    MOST_COMPARED,
    CellComparisons,
    best_intervals,
    compare_cells,
    dunnett_critical,
    dunnett_tail,
)
from bagoftricks.studies.inference import paired_t

STUDIES = 2_000


def compare(values: object, **options: object) -> CellComparisons:
    table = np.asarray(values, dtype=float)
    blocks, cells = table.shape
    found = compare_cells(table, [f"c{i}" for i in range(cells)], [str(b) for b in range(blocks)], **options)  # type: ignore[arg-type]
    assert found is not None
    return found


# ---- the distribution


@pytest.mark.parametrize(
    ("df", "two_sided", "table"),
    [  # 5 % points for 2 to 9 comparisons: one-sided of Dunnett 1955, two-sided of Dunnett 1964, Biometrics 20
        (5, False, [2.44, 2.68, 2.85, 2.98, 3.08, 3.16, 3.24, 3.30]),
        (16, False, [2.06, 2.23, 2.34, 2.43, 2.50, 2.56, 2.61, 2.65]),
        (60, False, [1.95, 2.10, 2.21, 2.28, 2.35, 2.39, 2.44, 2.48]),
        (5, True, [3.03, 3.29, 3.48, 3.62, 3.73, 3.82, 3.90, 3.97]),
        (10, True, [2.57, 2.76, 2.89, 2.99, 3.07, 3.14, 3.19, 3.24]),
        (20, True, [2.38, 2.54, 2.65, 2.73, 2.80, 2.86, 2.90, 2.95]),
    ],
)
def test_critical_values_are_dunnetts_tables(df: int, two_sided: bool, table: list[float]) -> None:
    ours = [dunnett_critical(m, df, two_sided=two_sided) for m in range(2, 10)]
    assert ours == pytest.approx(table, abs=0.0101)  # the tables' last digit is not always the nearest


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("df", [1, 4, 30, 400])
def test_one_comparison_is_students_t(df: int, two_sided: bool) -> None:
    assert dunnett_critical(1, df, 0.01, two_sided=two_sided) == pytest.approx(stats.t.isf(0.01 / (1 + two_sided), df))
    assert dunnett_tail(2.2, 1, df, two_sided=two_sided) == pytest.approx((1 + two_sided) * stats.t.sf(2.2, df))


@pytest.mark.parametrize(("comparisons", "df"), [(2, 6), (4, 12), (7, 28)])
@pytest.mark.parametrize("t", [0.5, 2.0, 3.5])
def test_tail_is_the_multivariate_ts(comparisons: int, df: int, t: float) -> None:
    shape = np.full((comparisons, comparisons), 0.5) + 0.5 * np.eye(comparisons)
    theirs = stats.multivariate_t(shape=shape, df=df, seed=0)
    at = np.full(comparisons, t)
    inside = theirs.cdf(at, lower_limit=-at, maxpts=100_000 * comparisons)
    assert dunnett_tail(t, comparisons, df) == pytest.approx(1 - inside, abs=1e-4)
    assert dunnett_tail(t, comparisons, df, two_sided=False) == pytest.approx(
        1 - theirs.cdf(at, maxpts=100_000 * comparisons), abs=1e-4
    )


def test_p_is_scipys_dunnett_with_its_degrees_of_freedom() -> None:
    rng = np.random.default_rng(3)
    control, samples = rng.normal(size=7), rng.normal(0.8, 1, size=(3, 7))
    theirs = stats.dunnett(*samples, control=control, rng=np.random.default_rng(0))
    interval = theirs.confidence_interval(0.95)
    for t, p in zip(theirs.statistic, theirs.pvalue, strict=True):
        assert dunnett_tail(abs(t), 3, 4 * 6) == pytest.approx(p, abs=5e-4)
    pooled = np.concatenate([control[None], samples]).var(axis=1, ddof=1).mean()
    half = dunnett_critical(3, 4 * 6) * np.sqrt(2 * pooled / 7)
    assert (interval.high - interval.low) / 2 == pytest.approx(np.full(3, half), rel=2e-3)


@pytest.mark.parametrize(("comparisons", "df"), [(99, 99), (99, 400), (17, 68), (999, 999)])
def test_many_cells_agree_with_simulation(comparisons: int, df: int) -> None:
    rng, draws = np.random.default_rng(0), 20_000
    critical = [dunnett_critical(comparisons, df, two_sided=two) for two in (True, False)]
    beyond = np.zeros(2)
    for _ in range(10):
        z = rng.normal(size=(draws // 10, comparisons)) - rng.normal(size=(draws // 10, 1))
        t = z / np.sqrt(2 * rng.chisquare(df, (draws // 10, 1)) / df)
        beyond += [(np.abs(t).max(axis=1) > critical[0]).sum(), (t.max(axis=1) > critical[1]).sum()]
    assert np.abs(beyond / draws - 0.05).max() < 3.5 * np.sqrt(0.05 * 0.95 / draws)
    assert dunnett_tail(critical[0], comparisons, df) == pytest.approx(0.05, abs=1e-9)


# ---- small examples


def test_two_cells_are_the_paired_t() -> None:
    values = np.random.default_rng(1).normal(size=(6, 2))
    test, found = paired_t(values[:, 1] - values[:, 0]), compare(values)
    other = found.cells[1]
    assert (other.difference, other.low, other.high, other.p) == pytest.approx(
        tuple(map(float, (test.mean, test.low, test.high, test.p)))
    )
    assert (found.df, found.baseline, found.cells[0].p, found.cells[0].beats) == (5, "c0", None, "baseline")
    assert found.sd * np.sqrt(2) == pytest.approx(float(test.sd))


def test_by_hand() -> None:
    # cell means 2, 5, 3; block means 1, 4, 5, with residuals of +-1 that cancel in rows and columns
    luck = np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1]])
    values = np.array([1, 4, 5])[:, None] + np.array([2, 5, 3]) + luck
    found = compare(values)
    assert (found.df, found.sd) == (4, pytest.approx(np.sqrt(6 / 4)))
    assert [cell.difference for cell in found.cells] == pytest.approx([0, 3, 1])
    se = np.sqrt(1.5 * 2 / 3)  # 1
    assert found.cells[1].high == pytest.approx(3 + dunnett_critical(2, 4) * se)
    assert dunnett_critical(2, 4) == pytest.approx(3.31, abs=0.01)  # table
    assert dunnett_critical(2, 4, two_sided=False) == pytest.approx(2.61, abs=0.02)
    assert [cell.to_best for cell in found.cells] == pytest.approx([-3, 2, -2])
    assert found.best == ("c1", "c2")  # 3 behind is more than 2.6, 2 is less
    assert [cell.best_low for cell in found.cells] == pytest.approx(
        [-3 - found.critical_best, 2 - found.critical_best, -2 - found.critical_best]
    )
    assert [cell.best_high for cell in found.cells] == pytest.approx([0, 2 + found.critical_best, 0.603], abs=1e-2)


def test_hsus_intervals_by_the_definition_of_1996() -> None:
    # Hsu 1996, theorem 4.1.1, with its minima over all others and over the set that may be the best
    rng = np.random.default_rng(2)
    for _ in range(200):
        means, half = rng.normal(size=rng.integers(2, 7)), rng.uniform(0, 2)
        _, low, high, may = best_intervals(means, half)
        k = range(len(means))
        upper = [max(0.0, min(means[i] - means[j] + half for j in k if j != i)) for i in k]
        group = {i for i in k if upper[i] > 0}
        lower = [
            0.0 if group == {i} else min(0.0, *(means[i] - means[j] - half for j in group if j != i), 0.0) for i in k
        ]
        assert high == pytest.approx(upper)
        assert low == pytest.approx(lower)
        assert set(np.flatnonzero(may)) == group


def test_lower_is_better_mirrors() -> None:
    values = np.random.default_rng(4).normal(size=(5, 4)) + np.array([0, 1, 2, 9])
    up, down = compare(values), compare(-values, higher_is_better=False)
    assert up.best == down.best == ("c3",)
    assert [cell.beats for cell in up.cells] == [cell.beats for cell in down.cells]
    for a, b in zip(up.cells, down.cells, strict=True):
        assert (a.to_best, a.best_low, a.best_high) == pytest.approx((-b.to_best, -b.best_high, -b.best_low))
        assert a.p == pytest.approx(b.p)
    assert compare(values, higher_is_better=False).cells[3].beats == "worse"


def test_blocks_move_nothing_and_order_only_names() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(6, 5))
    plain, moved = compare(values, baseline=2), compare(values + 100 * rng.normal(size=(6, 1)), baseline=2)
    for a, b in zip(plain.cells, moved.cells, strict=True):
        assert (a.difference, a.to_best, a.best_low) == pytest.approx((b.difference, b.to_best, b.best_low))
    turned = compare(values[:, ::-1], baseline=2)
    assert [cell.p for cell in turned.cells][::-1] == pytest.approx([cell.p for cell in plain.cells])
    assert turned.baseline == "c2"


# ---- what is missing


def test_blocks_without_every_run_are_left_out() -> None:
    values = np.random.default_rng(6).normal(size=(6, 3))
    values[1, 2] = np.nan
    found, whole = compare(values), compare(np.delete(values, 1, axis=0))
    assert (found.blocks, found.left_out, found.cells_left_out) == (("0", "2", "3", "4", "5"), ("1",), ())
    assert found.cells == whole.cells
    assert not found.exploratory
    values[2, 0] = np.nan
    assert compare(values).exploratory


def test_a_cell_that_mostly_failed_does_not_cost_the_others_their_blocks() -> None:
    values = np.random.default_rng(7).normal(size=(5, 4))
    values[:3, 1] = np.nan
    found = compare(values, baseline=1)
    assert found.cells_left_out == ("c1",)
    assert (found.baseline, len(found.blocks)) == ("c0", 5)
    assert found.cells == compare(np.delete(values, 1, axis=1)).cells[:1] + tuple(
        type(c)(**{**asdict(c), "name": name})
        for c, name in zip(compare(np.delete(values, 1, axis=1)).cells[1:], ("c2", "c3"), strict=True)
    )
    assert compare(values, baseline=3).baseline == "c3"


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (0, 0), (2, MOST_COMPARED + 1)])
def test_too_little_or_too_much(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    assert compare_cells(values, ["c"] * shape[1], ["b"] * shape[0]) is None
    assert compare_cells(np.full((3, 3), np.nan), list("abc"), list("xyz")) is None


def test_without_luck_there_is_nothing_to_test_against() -> None:
    values = np.array([0.1, 0.7, 0.3])[:, None] + [0.1, 0.2, 0.2]
    assert compare_cells(values, list("abc"), list("xyz"), tolerance=1e-12) is None
    assert compare_cells(np.full((3, 2), 0.5), list("ab"), list("xyz")) is None
    assert compare_cells(values + np.diag([1e-6, 0, 0]), list("abc"), list("xyz"), tolerance=1e-12) is not None


def test_p_is_small_where_the_interval_excludes_zero() -> None:
    rng = np.random.default_rng(8)
    shown = set()
    for _ in range(40):
        for cell in compare(rng.normal(size=(5, 4)) + rng.normal(0, 1.5, 4)).cells[1:]:
            assert cell.low is not None
            assert cell.high is not None
            excluded = "better" if cell.low > 0 else "worse" if cell.high < 0 else "not shown"
            assert cell.beats == excluded
            shown.add(excluded)
    assert shown == {"better", "worse", "not shown"}


# ---- validity by simulation


@pytest.fixture
def _intervals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells_module, "_simultaneous_p", lambda d, *_: np.ones_like(d))  # takes most of the time


@pytest.mark.usefixtures("_intervals_only")
@pytest.mark.parametrize("shape", [(5, 4), (2, 6), (10, 3)])
def test_simultaneous_coverage(shape: tuple[int, int]) -> None:
    blocks, cells = shape
    rng = np.random.default_rng(0)
    # the harshest for Hsu: ties at the top; the critical value is exact there
    truth = np.zeros(cells)
    best = np.array([truth[i] - np.delete(truth, i).max() for i in range(cells)])
    dunnett, hsu, kept = 0, 0, 0
    for _ in range(STUDIES):
        values = truth + rng.normal(size=(blocks, 1)) * 3 + rng.normal(size=(blocks, cells))
        found = compare(values)
        dunnett += all(c.low <= 0 <= c.high for c in found.cells[1:])  # type: ignore[operator]
        hsu += all(c.best_low <= b <= c.best_high for c, b in zip(found.cells, best, strict=True))
        kept += "c0" in found.best
    slack = 3 * np.sqrt(0.05 * 0.95 / STUDIES)
    assert dunnett / STUDIES == pytest.approx(0.95, abs=slack)
    assert hsu / STUDIES >= 0.95 - slack
    assert kept / STUDIES == pytest.approx(0.95, abs=slack)  # one given cell, tied with all others


@pytest.mark.usefixtures("_intervals_only")
def test_coverage_where_one_cell_is_best() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([0.0, 1.0, 2.5, 2.0])
    best = np.array([truth[i] - np.delete(truth, i).max() for i in range(4)])
    held = dunnett = among = alone = 0
    for _ in range(STUDIES):
        found = compare(truth + rng.normal(size=(6, 1)) + rng.normal(size=(6, 4)))
        held += all(c.best_low <= b <= c.best_high for c, b in zip(found.cells, best, strict=True))
        among += "c2" in found.best
        alone += found.best == ("c2",)
        dunnett += all(c.low <= t <= c.high for c, t in zip(found.cells[1:], truth[1:], strict=True))  # type: ignore[operator]
    slack = 3 * np.sqrt(0.05 * 0.95 / STUDIES)
    assert dunnett / STUDIES == pytest.approx(0.95, abs=slack)
    assert held / STUDIES >= 0.95 - slack
    assert among / STUDIES >= 0.95 - slack
    assert 0 < alone / STUDIES < 0.5  # it can tell, and is not blind to the runner-up
