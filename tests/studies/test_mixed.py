from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from bagoftricks.studies import blockfit, mixed
from bagoftricks.studies.blockfit import BLOCKED, MIXED
from bagoftricks.studies.contrasts import find_contrasts, two_way_matrix
from bagoftricks.studies.effects import Analysis, analyse, successive
from bagoftricks.studies.inference import holm
from bagoftricks.studies.mixed import Secondary, disagreements
from bagoftricks.studies.study_file import load_study

TWO = {"a": ["0", "1"], "b": ["0", "1"], "c": ["0", "1"]}
THREE = {"a": ["0", "1"], "c": ["x", "y", "z"]}


def frame_of(factors: dict[str, list[str]], blocks: int, seed: int = 0, between: float = 0.05) -> pd.DataFrame:
    """A full design with effects of all orders, luck, and blocks that differ."""
    rng = np.random.default_rng(seed)
    cells = list(product(*factors.values()))
    truth, shift = rng.normal(0, 0.02, len(cells)), rng.normal(0, between, blocks)
    return pd.DataFrame(
        [
            {
                **dict(zip(factors, cell, strict=True)),
                "seed": str(b),
                "top1": 0.6 + truth[i] + shift[b] + rng.normal(0, 0.01),
            }
            for b in range(blocks)
            for i, cell in enumerate(cells)
        ]
    )


def fitted(analysis: Analysis) -> Secondary:
    assert analysis.secondary is not None
    return analysis.secondary


def run(frame: pd.DataFrame, factors: Any, **options: Any) -> Analysis:
    return analyse(frame, list(factors), "seed", "top1", **{"unit": "raw", "margin": 0.005, **options})


# ---- against the primary analysis


@pytest.mark.parametrize("factors", [TWO, THREE])
@pytest.mark.parametrize("between", [0.05, 0.0])
def test_complete_results_give_the_primary_estimates(factors: dict[str, list[str]], between: float) -> None:
    for seed in range(4):
        analysis = run(frame_of(factors, 6, seed, between), factors, unit="points")
        model = fitted(analysis)
        assert [e.name for e in model.effects] == [e.name for e in analysis.effects]
        assert [e.estimate for e in model.effects] == pytest.approx([e.estimate for e in analysis.effects], abs=1e-9)
        assert (model.runs, model.blocks, model.not_estimable, model.exploratory) == (
            6 * len(list(product(*factors.values()))),
            6,
            (),
            False,
        )


def test_coefficients_are_the_effects_in_a_full_design() -> None:
    for factors in (TWO, THREE):
        levels = {name: tuple(all_) for name, all_ in factors.items()}
        cells = list(product(*factors.values()))
        matrix = two_way_matrix(levels, cells)
        means = np.random.default_rng(0).normal(size=len(cells))  # three-way interactions and all
        coefficients = np.linalg.lstsq(matrix, means, rcond=None)[0]
        found, _ = find_contrasts(levels, cells)
        assert [float(c.differences(means[None], cells)[0]) for c in found] == pytest.approx(list(coefficients[1:]))


def test_two_cells_are_the_paired_t() -> None:
    analysis = run(frame_of({"a": ["0", "1"]}, 7), ["a"])
    (primary,), (other,) = analysis.effects, fitted(analysis).effects
    assert (other.t, other.p, other.low, other.df) == pytest.approx((primary.t, primary.p, primary.low, 6), rel=1e-3)


# ---- against statsmodels


def coded(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{f"s{name}": frame[name].astype(float) - 0.5 for name in TWO})


@pytest.mark.filterwarnings("ignore:The MLE may be on the boundary")
def test_the_mixed_model_is_statsmodels() -> None:
    frame = frame_of(TWO, 6).drop(index=[3, 17, 30])  # with runs missing, where estimates depend on the variances
    model = fitted(run(frame, TWO))
    assert (model.method, model.why) == (MIXED, "")
    theirs = smf.mixedlm("top1 ~ (sa + sb + sc) ** 2", coded(frame), groups="seed").fit(reml=True)
    names = ["sa", "sb", "sc", "sa:sb", "sa:sc", "sb:sc"]
    # the contrasts are over full designs of cells, so that they are the coefficients
    assert [e.estimate for e in model.effects] == pytest.approx(list(theirs.fe_params[names]), abs=1e-6)
    assert [e.se for e in model.effects] == pytest.approx(list(theirs.bse_fe[names]), rel=1e-3)
    assert model.block_sd == pytest.approx(float(theirs.cov_re.iloc[0, 0]) ** 0.5, rel=1e-2)
    assert model.residual_sd == pytest.approx(theirs.scale**0.5, rel=1e-3)
    assert model.df == 45 - 6 - 6


@pytest.mark.parametrize("missing", [[], [3, 17, 30]])
def test_the_blocked_analysis_is_statsmodels(missing: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockfit, "_reml", lambda *_: None)
    frame = frame_of(TWO, 6).drop(index=missing)
    model = fitted(run(frame, TWO))
    assert (model.method, model.why) == (BLOCKED, "REML did not converge")
    theirs = smf.ols("top1 ~ C(seed) + (sa + sb + sc) ** 2", coded(frame)).fit()
    names = ["sa", "sb", "sc", "sa:sb", "sa:sc", "sb:sc"]
    interval = theirs.conf_int().loc[names]
    assert model.df == theirs.df_resid
    assert [e.estimate for e in model.effects] == pytest.approx(list(theirs.params[names]), abs=1e-9)
    assert [e.se for e in model.effects] == pytest.approx(list(theirs.bse[names]))
    assert [e.p for e in model.effects] == pytest.approx(list(theirs.pvalues[names]))
    assert [(e.low, e.high) for e in model.effects] == [pytest.approx(tuple(row)) for row in interval.to_numpy()]
    assert [e.p_adjusted for e in model.effects] == pytest.approx(list(holm(theirs.pvalues[names])))
    assert (model.residual_sd, model.block_sd) == (pytest.approx(theirs.scale**0.5), None)


def test_three_levels_against_the_reference() -> None:
    frame = frame_of(THREE, 5)
    model = fitted(run(frame, THREE))
    theirs = smf.ols("top1 ~ C(seed) + sa * C(c, Sum)", frame.assign(sa=frame["a"].astype(float) - 0.5)).fit()
    found = {e.name: e for e in model.effects}
    x, y = theirs.params["C(c, Sum)[S.x]"], theirs.params["C(c, Sum)[S.y]"]
    assert found["c: y - x"].estimate == pytest.approx(y - x)
    assert found["c: z - x"].estimate == pytest.approx(-2 * x - y)
    test = theirs.t_test("C(c, Sum)[S.y] - C(c, Sum)[S.x] = 0")
    assert found["c: y - x"].se == pytest.approx(float(np.squeeze(test.sd)), rel=1e-3)
    assert len(found) == 1 + 2 + 2


@pytest.mark.parametrize("ratio", [0.05, 0.3, 1.0, 10.0, 2500.0])
def test_reml_finds_the_variance_of_complete_blocks(ratio: float) -> None:
    # where all runs are there, REML's variances are those of the analysis of variance
    rng = np.random.default_rng(1)
    blocks, cells = 6, 8
    luck = rng.normal(size=(blocks, cells))
    luck -= luck.mean(axis=1, keepdims=True)
    shift = rng.normal(size=blocks)
    shift -= shift.mean()
    x = np.tile(np.eye(cells), (blocks, 1))
    residual = ((luck - luck.mean(axis=0)) ** 2).sum() / ((blocks - 1) * (cells - 1))
    y = luck + (shift * np.sqrt(residual * (ratio + 1 / cells) / shift.var(ddof=1)))[:, None]
    fit = blockfit.fit_blocks(y.ravel(), x, np.repeat(np.arange(blocks), cells), tolerance=1e-12)
    assert fit is not None
    assert fit.method == MIXED
    assert fit.residual_sd**2 == pytest.approx(residual, rel=2e-3)
    assert fit.block_sd**2 / fit.residual_sd**2 == pytest.approx(ratio, rel=2e-2)  # type: ignore[operator]


# ---- where the mixed model cannot be


def test_no_variance_between_blocks_is_said() -> None:
    frame = frame_of(TWO, 5, between=0.0)
    frame["top1"] -= frame.groupby("seed")["top1"].transform("mean") - 0.6
    analysis = run(frame, TWO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fitted(analysis)
    assert (model.method, model.why) == (BLOCKED, "REML estimates the variance between blocks as zero")
    assert [e.estimate for e in model.effects] == pytest.approx([e.estimate for e in analysis.effects], abs=1e-12)


def test_reml_that_converges_is_the_mixed_model_or_the_variance_is_zero() -> None:
    methods = [fitted(run(frame_of(TWO, 5, seed, 0.004), TWO)) for seed in range(20)]
    assert {(m.method, m.why) for m in methods} == {
        (MIXED, ""),
        (BLOCKED, "REML estimates the variance between blocks as zero"),
    }


def test_without_luck_there_is_nothing_to_fit() -> None:
    frame = frame_of({"a": ["0", "1"]}, 5)
    frame["top1"] = [0.5 + 0.01 * (a == "1") + 0.01 * int(s) for a, s in zip(frame["a"], frame["seed"], strict=True)]
    analysis = run(frame, ["a"])
    assert analysis.secondary is None
    assert analysis.cells is None
    assert "they differ by the same in every seed" in analysis.notes[-1]


def test_too_little() -> None:
    assert run(frame_of(TWO, 1), TWO).secondary is None
    two = frame_of({"a": ["0", "1"]}, 2)
    assert run(two.drop(index=0), ["a"]).secondary is None  # one block left that has both: no degree of freedom
    model = fitted(run(two, ["a"]))
    assert (model.df, model.exploratory) == (1, True)
    lost = two.assign(top1=two["top1"].where(two["a"] == "0"))
    assert run(lost, ["a"]).secondary is None


def test_what_no_block_tells_is_named() -> None:
    # c = z ran in blocks of its own only: between blocks, not within
    frame = frame_of({"c": ["x", "y", "z"]}, 8)
    alone = frame["seed"].isin(["6", "7"])
    frame = frame[(alone & (frame["c"] == "z")) | (~alone & (frame["c"] != "z"))]
    model = fitted(run(frame, ["c"]))
    assert [e.name for e in model.effects] == ["c: y - x"]
    assert [m.name for m in model.not_estimable] == ["c: z - x"]
    assert model.effects[0].p_adjusted == pytest.approx(min(1.0, 2 * model.effects[0].p))  # stays in the family


def test_large_results_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "MOST_RUNS_FITTED", 47)
    assert run(frame_of(TWO, 6), TWO).secondary is None
    monkeypatch.setattr(mixed, "MOST_RUNS_FITTED", 48)
    assert run(frame_of(TWO, 6), TWO).secondary is not None
    monkeypatch.setattr(mixed, "MOST_PARAMETERS", 6)
    assert run(frame_of(TWO, 6), TWO).secondary is None


# ---- incomplete designs


def paper(seeds: int) -> tuple[pd.DataFrame, list[str]]:
    study, rng = load_study("paper"), np.random.default_rng(0)
    shift = rng.normal(0, 0.03, seeds)
    rows = [
        {**cell.levels, "seed": seed, "top1": 0.85 + shift[seed] + rng.normal(0, 0.01)}
        for seed in range(seeds)
        for cell in study.cells
    ]
    return pd.DataFrame(rows), list(study.factors)


def test_the_papers_cells() -> None:
    frame, factors = paper(5)
    analysis = analyse(frame, factors, "seed", "top1")
    model = fitted(analysis)
    assert model.parameters == analysis.estimable == 13
    assert len(model.effects) == len(analysis.effects) == 12
    # C and D stand at one cell each: all others make a full design
    declared = {e.name: e.estimate for e in analysis.effects if e.declared}
    assert len(declared) == 10
    assert {e.name: e.estimate for e in model.effects if e.declared} == pytest.approx(declared, abs=1e-9)
    chosen = frame[frame["model.tweaks"].isin(["A", "B"])]
    part = fitted(analyse(chosen, factors, "seed", "top1"))
    both = {e.name: e.estimate for e in part.effects}
    whole = {e.name: e.estimate for e in model.effects}
    assert {name: whole[name] for name in both} == pytest.approx(both, abs=1e-9)
    assert model.df == 90 - 13 - 4


def test_a_ladder() -> None:
    frame = frame_of({"cell": ["A", "B", "B+c"]}, 6)
    analysis = successive(frame, ["A", "B", "B+c"], unit="raw")
    model = fitted(analysis)
    assert [e.estimate for e in model.effects] == pytest.approx([e.estimate for e in analysis.effects], abs=1e-9)
    assert {e.df for e in model.effects} == {10}
    assert analysis.cells is not None
    assert (analysis.cells.baseline, analysis.cells.df) == ("A", 10)


# ---- agreement


def test_disagreements_are_named() -> None:
    # a's luck is small and b's large: one variance for both hides what a's own t shows
    d = np.array([0.9, 1.0, 1.1, 0.95, 1.05, 1.0]) / 100
    noise = np.array([5, -6, 4, -5, 6, -4]) / 100
    rows = [
        {"a": a, "b": b, "seed": s, "top1": 0.5 + d[s] * int(a) + noise[s] * int(b)}
        for s in range(6)
        for a in "01"
        for b in "01"
    ]
    analysis = analyse(pd.DataFrame(rows), ["a", "b"], "seed", "top1")
    wrong, compared = disagreements(analysis.effects, fitted(analysis))
    assert compared == 3
    assert [effect.name for effect in wrong] == ["a: 1 - 0"]
    same = analyse(frame_of({"a": ["0", "1"]}, 6), ["a"], "seed", "top1")
    assert disagreements(same.effects, fitted(same)) == ([], 1)
    few = analyse(frame_of({"a": ["0", "1"]}, 4), ["a"], "seed", "top1")
    assert disagreements(few.effects, fitted(few)) == ([], 0)


# ---- validity by simulation


def test_coverage_with_missing_runs() -> None:
    rng = np.random.default_rng(0)
    levels = {name: tuple(all_) for name, all_ in TWO.items()}
    cells = list(product(*TWO.values()))
    matrix = two_way_matrix(levels, cells)
    row = np.zeros(matrix.shape[1])
    row[1] = 1.0
    held, studies = {MIXED: [], BLOCKED: []}, 300
    from scipy import stats

    for _ in range(studies):
        there = rng.uniform(size=(5, 8)) > 0.1
        block, cell = np.nonzero(there)
        y = (rng.normal(size=(5, 1)) + rng.normal(size=(5, 8)))[there]
        fit = blockfit.fit_blocks(y, matrix[cell], block, tolerance=1e-12)
        assert fit is not None
        half = stats.t.isf(0.025, fit.df) * np.sqrt(row @ fit.covariance @ row)
        held[fit.method].append(abs(row @ fit.coefficients) <= half)
    every = held[MIXED] + held[BLOCKED]
    assert np.mean(every) == pytest.approx(0.95, abs=3.5 * np.sqrt(0.05 * 0.95 / studies))
    assert len(held[MIXED]) > studies / 2
