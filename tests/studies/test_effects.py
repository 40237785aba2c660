from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from bagoftricks.errors import UserError
from bagoftricks.intervals import wilson
from bagoftricks.studies.contrasts import find_contrasts, two_way_rank
from bagoftricks.studies.effects import Analysis, Effect, analyse, detectable, seeds_needed, sentence, successive
from bagoftricks.studies.grid import read_grid
from bagoftricks.studies.inference import benjamini_hochberg, holm, paired_t, power_of, sign_flip, tost
from bagoftricks.studies.study_file import load_study


def table(values: np.ndarray, factors: dict[str, list[str]], metric: str = "top1") -> pd.DataFrame:
    """A full design's tidy table from (blocks, cells)."""
    cells = list(product(*factors.values()))
    return pd.DataFrame(
        [
            {**dict(zip(factors, cell, strict=True)), "seed": block, metric: values[block, j]}
            for block in range(len(values))
            for j, cell in enumerate(cells)
        ]
    )


def pairs(differences: list[float], base: float = 0.5) -> pd.DataFrame:
    """One factor at two levels, with these differences in points."""
    return table(np.array([[base, base + d / 100] for d in differences]), {"a": ["off", "on"]})


def only(analysis: Analysis) -> Effect:
    (effect,) = analysis.effects
    return effect


def random_pair(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.4, 0.6, n)
    return x, x + rng.normal(0.01, 0.02, n)


# ---- agreement with scipy and statsmodels


@pytest.mark.parametrize("n", [2, 5, 12])
def test_t_and_interval_are_scipys(n: int) -> None:
    x, y = random_pair(n)
    effect = only(analyse(table(np.stack([x, y], 1), {"a": ["0", "1"]}), ["a"], "seed", "top1"))
    theirs = stats.ttest_rel(y, x)
    interval = theirs.confidence_interval(0.95)
    assert effect.estimate == pytest.approx(100 * (y - x).mean())
    assert (effect.t, effect.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert (effect.low, effect.high) == pytest.approx((100 * interval.low, 100 * interval.high))
    assert effect.d_z == pytest.approx((y - x).mean() / (y - x).std(ddof=1))


@pytest.mark.parametrize("n", [3, 8, 11])
def test_sign_flip_is_scipys_exact_permutation_test(n: int) -> None:
    x, y = random_pair(n, seed=n)
    theirs = stats.permutation_test((y - x,), np.mean, permutation_type="samples", n_resamples=np.inf)
    ours = sign_flip(y - x)
    assert ours.exact
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.floor == 2 / 2**n


def test_sign_flip_by_hand() -> None:
    # sums of +-1 +-2 +-4: |sum| is 7, 5, 3, 1, each twice; 1 + 2 - 4 = -1 is reached by all, 4 + 2 - 1 = 5 by four of 8
    assert sign_flip([1.0, 2.0, 4.0]).p == 2 / 8
    assert sign_flip([-1.0, 2.0, 4.0]).p == 4 / 8
    assert sign_flip([1.0, 2.0, -4.0]).p == 1
    assert sign_flip([0.1, 0.1, 0.1, 0.1]).p == 2 / 16
    assert sign_flip([0.0, 0.0]).p == 1
    assert sign_flip([0.3]).p == 1


def test_sign_flip_draws_beyond_twenty_blocks() -> None:
    d = np.random.default_rng(0).normal(0.5, 1, 21)
    drawn, exact = sign_flip(d), sign_flip(d[:20])
    assert (drawn.exact, exact.exact) == (False, True)
    assert drawn == sign_flip(d)
    assert drawn.p == pytest.approx(float(paired_t(d).p), abs=0.01)
    sure = sign_flip(np.ones(30) + d[:1])
    assert sure.p == sure.floor == 1 / 100_001


@pytest.mark.parametrize("m", [1, 2, 7, 30])
def test_corrections_are_statsmodels(m: int) -> None:
    p = np.random.default_rng(m).beta(0.4, 2, (4, m))
    p[0, : m // 2] = p[0, 0]  # ties
    for row, ours_holm, ours_bh in zip(p, holm(p), benjamini_hochberg(p), strict=True):
        assert ours_holm == pytest.approx(multipletests(row, method="holm")[1])
        assert ours_bh == pytest.approx(multipletests(row, method="fdr_bh")[1])


@pytest.mark.parametrize("margin", [0.002, 0.01, 0.05])
def test_tost_is_statsmodels(margin: float) -> None:
    x, y = random_pair(9)
    assert float(tost(y - x, margin)) == pytest.approx(ttost_paired(y, x, -margin, margin)[0])


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_power_is_statsmodels(n: int) -> None:
    theirs = TTestPower()
    for tests in (1, 12):
        d_z = detectable(n, tests=tests)
        assert theirs.power(d_z, n, 0.05 / tests) == pytest.approx(0.8, abs=1e-3)
        assert theirs.power(0.6, n, 0.05 / tests) == pytest.approx(power_of(n, 0.6, tests=tests), abs=1e-3)
        assert theirs.solve_power(effect_size=0.9, power=0.8, alpha=0.05 / tests) == pytest.approx(
            seeds_needed(0.9, 1.0, tests=tests) - 0.5, abs=0.51
        )


@pytest.mark.parametrize(
    ("n", "tests", "d_z"),
    [(3, 1, 3.26), (5, 1, 1.68), (8, 1, 1.16), (10, 1, 1.0), (20, 1, 0.66), (29, 1, 0.54), (5, 12, 3.3), (10, 12, 1.5)],
)
def test_the_published_table_of_detectable_effects(n: int, tests: int, d_z: float) -> None:
    assert detectable(n, tests=tests) == pytest.approx(d_z, abs=0.05 if tests > 1 else 0.005)
    assert detectable(n, 2.5, tests=tests) == pytest.approx(2.5 * detectable(n, tests=tests))


def test_seeds_needed_undoes_detectable() -> None:
    for n in (2, 5, 17, 200):
        assert seeds_needed(detectable(n, 0.7, tests=4) * 1.0001, 0.7, tests=4) == n
    assert seeds_needed(-1.0, 1.0) == seeds_needed(1.0, 1.0) == 10
    assert seeds_needed(1.0, 0.0) == 2
    for wrong in ({"effect_points": 0.0}, {"sd_of_difference": -1.0}, {"power": 0.01}, {"tests": 0}):
        with pytest.raises(UserError):
            seeds_needed(**{"effect_points": 1.0, "sd_of_difference": 1.0, **wrong})
    with pytest.raises(UserError, match="more than 1,000,000 seeds"):
        seeds_needed(1e-6, 1.0)
    with pytest.raises(UserError, match="at least two"):
        detectable(1)


def test_nadeau_bengio_by_its_formula() -> None:
    d = np.array([0.5, 1.0, 1.5, 0.0, 2.0])
    effect = only(analyse(pairs(d.tolist()), ["a"], "seed", "top1"))
    se = d.std(ddof=1) * np.sqrt(1 / 5 + 0.25)
    half = stats.t.ppf(0.975, 4) * se
    assert (effect.corrected_low, effect.corrected_high) == pytest.approx((1.0 - half, 1.0 + half))
    assert effect.corrected_p == pytest.approx(2 * stats.t.sf(1.0 / se, 4))
    assert half == pytest.approx(1.5 * (effect.high - effect.low) / 2)  # the 1.5 times of FIELD.md


# ---- designs


def test_a_full_factorial_equals_ordinary_least_squares() -> None:
    factors = {"a": ["0", "1"], "b": ["0", "1"], "c": ["x", "y", "z"]}
    values = np.random.default_rng(3).uniform(0.3, 0.7, (6, 12))
    frame = table(values, factors)
    analysis = analyse(frame, list(factors), "seed", "top1")
    # sum coding: a main effect is the mean over the other factors, an interaction the difference of differences
    frame["sa"], frame["sb"] = (frame["a"] == "1") - 0.5, (frame["b"] == "1") - 0.5
    fit = smf.ols("top1 ~ C(seed) + sa * sb * C(c, Sum)", frame).fit()
    found = {effect.name: effect for effect in analysis.effects}
    assert found["a: 1 - 0"].estimate == pytest.approx(100 * fit.params["sa"])
    assert found["a: 1 - 0 x b: 1 - 0"].estimate == pytest.approx(100 * fit.params["sa:sb"])
    x, y = fit.params["C(c, Sum)[S.x]"], fit.params["C(c, Sum)[S.y]"]
    assert found["c: y - x"].estimate == pytest.approx(100 * (y - x))
    assert found["c: z - x"].estimate == pytest.approx(100 * (-2 * x - y))
    assert analysis.parameters == analysis.estimable == 1 + 4 + 5
    assert {effect.tests for effect in analysis.effects} == {4 + 5}
    assert analysis.not_estimable == ()


def test_so_many_factors_that_interactions_are_left_out() -> None:
    """Twenty-three factors of three levels, one at a time: 46 effects, and 1,012 pairs that nobody asked for."""
    rng, factors = np.random.default_rng(0), [f"f{i}" for i in range(23)]
    cells = [{}, *({factor: level} for factor in factors for level in ("1", "2"))]
    frame = pd.DataFrame(
        [
            {**dict.fromkeys(factors, "0"), **cell, "seed": seed, "top1": rng.uniform(0.8, 0.9)}
            for seed in range(5)
            for cell in cells
        ]
    )
    analysis = analyse(frame, factors, "seed", "top1", family="all")
    assert len(analysis.effects) == 46
    assert {effect.tests for effect in analysis.effects} == {46}
    (missing,) = analysis.not_estimable
    assert missing.name == "1,012 interactions, factor x factor"
    assert analysis.parameters is analysis.secondary is None
    with pytest.raises(UserError, match="1,001 effects of 1 factors"):
        find_contrasts({"a": [str(i) for i in range(1_002)]}, [])


def test_one_factor_has_the_t_of_a_blocked_regression() -> None:
    x, y = random_pair(7)
    frame = table(np.stack([x, y], 1), {"a": ["0", "1"]})
    fit = smf.ols("top1 ~ C(seed) + C(a)", frame).fit()
    effect = only(analyse(frame, ["a"], "seed", "top1"))
    assert (effect.t, effect.p) == pytest.approx((fit.tvalues["C(a)[T.1]"], fit.pvalues["C(a)[T.1]"]))


def paper(seeds: int = 5) -> pd.DataFrame:
    study, rng = load_study("paper"), np.random.default_rng(0)
    return pd.DataFrame(
        [
            {**cell.levels, "seed": seed, "top1": rng.uniform(0.8, 0.9), "state": "done"}
            for seed in range(seeds)
            for cell in study.cells
        ]
    )


def test_the_papers_cells() -> None:
    factors = list(load_study("paper").factors)
    analysis = analyse(paper(), factors, "seed", "top1")
    assert (analysis.parameters, analysis.estimable) == (19, 13)
    kinds: dict[str, list[Effect]] = {}
    for effect in analysis.effects:
        kinds.setdefault(effect.kind, []).append(effect)
    assert [e.levels[0] for e in kinds["main"]] == [("B", "A"), ("cosine", "constant"), ("0.1", "0.0"), ("0.2", "0.0")]
    assert [e.combinations for e in kinds["main"]] == [8, 8, 8, 8]
    assert [e.levels[0] for e in kinds["simple"]] == [("C", "A"), ("D", "A")]
    assert len(kinds["interaction"]) == 6
    assert not any({"C", "D"} & {level for pair in e.levels for level in pair} for e in kinds["interaction"])
    assert set(kinds) == {"main", "simple", "interaction"}
    assert {(e.declared, e.tests, e.correction) for e in kinds["main"] + kinds["interaction"]} == {(True, 10, "Holm")}
    assert {(e.declared, e.tests) for e in kinds["simple"]} == {(False, 2)}
    for effect in kinds["simple"]:
        assert effect.given == {"schedule.decay": "constant", "label_smoothing.amount": "0.0", "mixup.alpha": "0.0"}
        assert "without refinements (schedule decay = constant," in sentence(effect)
        assert "exploratory" in sentence(effect)
    assert "model.tweaks at A, B" in kinds["main"][1].notes[0]
    named = {missing.name: missing.why for missing in analysis.not_estimable}
    assert len(named) == 6
    assert all(": C - A x" in name or ": D - A x" in name for name in named)
    why = named["model.tweaks: C - A x schedule.decay: cosine - constant"]
    assert why == "no cell has model.tweaks = C with schedule.decay = cosine"


def test_effects_are_means_over_matched_pairs() -> None:
    frame = paper(1)
    analysis = analyse(frame, list(load_study("paper").factors), "seed", "top1")
    found = {effect.name: effect.estimate for effect in analysis.effects}
    cells = frame.set_index(list(load_study("paper").factors))["top1"] * 100
    others = list(product(("A", "B"), (0.0, 0.1), (0.0, 0.2)))
    gains = {(t, s, m): cells[t, "cosine", s, m] - cells[t, "constant", s, m] for t, s, m in others}
    assert found["schedule.decay: cosine - constant"] == pytest.approx(np.mean(list(gains.values())))
    both = np.mean([gains[t, 0.1, m] - gains[t, 0.0, m] for t in "AB" for m in (0.0, 0.2)])
    name = "schedule.decay: cosine - constant x label_smoothing.amount: 0.1 - 0.0"
    assert found[name] == pytest.approx(both)
    held = "schedule.decay = constant, label_smoothing.amount = 0.0, mixup.alpha = 0.0"
    plain = ("constant", 0.0, 0.0)
    assert found[f"model.tweaks: C - A | {held}"] == pytest.approx(cells["C", *plain] - cells["A", *plain])


def test_one_at_a_time_is_exploratory_unless_declared() -> None:
    cells = [("0", "0"), ("1", "0"), ("0", "1")]
    rng = np.random.default_rng(0)
    frame = pd.DataFrame([{"a": a, "b": b, "seed": s, "top1": rng.uniform()} for s in range(5) for a, b in cells])
    analysis = analyse(frame, ["a", "b"], "seed", "top1")
    assert [(e.kind, e.declared, e.given) for e in analysis.effects] == [
        ("simple", False, {"b": "0"}),
        ("simple", False, {"a": "0"}),
    ]
    assert "nothing of the declared family" in analysis.notes[0]
    assert [missing.name for missing in analysis.not_estimable] == ["a: 1 - 0 x b: 1 - 0"]
    assert {e.declared for e in analyse(frame, ["a", "b"], "seed", "top1", family="all").effects} == {True}


def test_a_half_fraction_has_no_pairs() -> None:
    cells = [("0", "0", "0"), ("1", "1", "0"), ("1", "0", "1"), ("0", "1", "1")]
    found, missing = find_contrasts({"a": ("0", "1"), "b": ("0", "1"), "c": ("0", "1")}, cells)
    assert found == []
    assert [m.why for m in missing[:3]] == ["no two cells differ in it alone"] * 3
    assert [m.why for m in missing[3:]] == ["its four combinations never stand together with everything else equal"] * 3
    assert two_way_rank({"a": ("0", "1"), "b": ("0", "1"), "c": ("0", "1")}, cells) == (7, 4)


def test_a_ladder_tells_successive_differences() -> None:
    values = np.array([[0.5, 0.52, 0.53], [0.6, 0.61, 0.63], [0.4, 0.43, 0.44], [0.5, 0.52, 0.53], [0.5, 0.51, 0.52]])
    frame = table(values, {"cell": ["A", "B", "B+c"]})
    analysis = successive(frame, ["A", "B", "B+c"])
    first, second = analysis.effects
    assert (first.levels, second.levels) == ((("B", "A"),), (("B+c", "B"),))
    assert first.p == pytest.approx(stats.ttest_rel(values[:, 1], values[:, 0]).pvalue)
    assert second.differences == pytest.approx(100 * (values[:, 2] - values[:, 1]))
    assert (first.kind, first.declared, first.tests) == ("successive", True, 2)
    assert sentence(first).startswith("The step from A to B helps: +1.8 points (95 % interval ")
    assert [e.levels for e in successive(frame, ["B+c", "A"]).effects] == [(("A", "B+c"),)]
    for order, message in ((["A"], "at least two"), (["A", "A"], "each once"), (["A", "C"], "unknown cell 'C'")):
        with pytest.raises(UserError, match=message):
            successive(frame, order)
    with pytest.raises(UserError, match="no column 'rung'; there are: cell, seed, top1"):
        successive(frame, ["A", "B"], cell="rung")


# ---- what is missing


def test_failed_and_missing_runs_are_counted_and_cost_only_their_contrasts() -> None:
    frame = paper(6)
    frame.loc[2, "state"] = "failed"  # C, seed 0
    frame.loc[18 + 4, "top1"] = np.nan  # A+c, seed 1
    frame.loc[36, "state"] = "running"  # A, seed 2
    frame = frame.drop(index=54 + 1)  # B, seed 3
    analysis = analyse(frame, list(load_study("paper").factors), "seed", "top1", status="state")
    runs = analysis.runs
    assert (runs.expected, runs.done, runs.failed, runs.missing) == (108, 104, 1, 3)
    assert runs.failed_runs[0].startswith("model.tweaks = C, schedule.decay = constant")
    assert runs.failed_runs[0].endswith("seed 0")
    left_out = {effect.name.partition(" |")[0]: effect.left_out for effect in analysis.effects}
    assert left_out["model.tweaks: C - A"] == ("0", "2")
    assert left_out["model.tweaks: D - A"] == ("2",)
    assert left_out["model.tweaks: B - A"] == ("1", "2", "3")
    effect = next(e for e in analysis.effects if e.name.startswith("model.tweaks: C"))
    assert (effect.n, effect.blocks) == (4, ("1", "3", "4", "5"))
    assert "2 of 6 blocks left out" in effect.notes[-1]
    assert effect.verdict is None
    assert any("flatter" in note for note in analysis.notes)


def test_a_cell_that_never_finished_is_named() -> None:
    frame = table(np.random.default_rng(0).uniform(size=(5, 8)), {"a": ["0", "1"], "b": ["0", "1"], "c": ["0", "1"]})
    frame.loc[(frame["a"] == "1") & (frame["b"] == "1") & (frame["c"] == "1"), "top1"] = np.nan
    analysis = analyse(frame, ["a", "b", "c"], "seed", "top1")
    assert "1, 1, 1" in analysis.notes[0]
    main = analysis.effects[0]
    assert (main.kind, main.combinations, main.possible) == ("main", 3, 4)
    assert "averaged over 3 of 4 combinations" in main.notes[0]
    assert analysis.effects[-1].kind == "simple interaction"


def test_a_cell_that_seldom_finished_costs_no_effect_its_blocks() -> None:
    """Averages do without it; what there is to tell with it alone waits for its runs."""
    values = np.random.default_rng(4).uniform(0.4, 0.6, (6, 8))
    values[2:, 7] = np.nan  # a, b and c on: two runs of six
    values[0, 3] = np.nan  # one run lost is one block lost
    frame = table(values, {"a": ["0", "1"], "b": ["0", "1"], "c": ["0", "1"]})
    analysis = analyse(frame, ["a", "b", "c"], "seed", "top1")
    main = {effect.name: effect for effect in analysis.effects}
    a = main["a: 1 - 0"]
    assert (a.kind, a.combinations, a.possible, a.n, a.verdict is None) == ("main", 3, 4, 6, False)
    assert a.differences == pytest.approx(100 * (values[:, [4, 5, 6]].mean(1) - values[:, [0, 1, 2]].mean(1)))
    assert main["b: 1 - 0"].left_out == ("0",)
    ab = main["a: 1 - 0 x b: 1 - 0 | c = 0"]
    assert (ab.kind, ab.n, ab.declared) == ("simple interaction", 6, False)
    assert a.tests == 6  # its interactions were declared, too
    assert analysis.secondary is not None
    p = {effect.name: effect.p for effect in analysis.secondary.effects}
    theirs = holm([p[name] for name in ("a: 1 - 0", "b: 1 - 0", "c: 1 - 0")] + [1.0] * 3)
    assert [effect.p_adjusted for effect in analysis.secondary.effects if effect.declared] == pytest.approx(theirs[:3])
    assert any("half of the seeds" in note and note.endswith(": 1, 1, 1") for note in analysis.notes)
    whole = analyse(frame[frame["seed"] < 2], ["a", "b", "c"], "seed", "top1")
    assert all(effect.combinations == effect.possible for effect in whole.effects)


def test_a_level_that_seldom_finished_leaves_simple_effects_of_the_others() -> None:
    """Not main effects: they hold without it, and the design had both."""
    values = np.random.default_rng(4).uniform(0.4, 0.6, (6, 4))
    factors = {"a": ["0", "1"], "b": ["0", "1"]}
    for runs in (2, 0):
        values[runs:, [1, 3]] = np.nan
        analysis = analyse(table(values, factors), ["a", "b"], "seed", "top1")
        found = {effect.name: effect for effect in analysis.effects}
        a = found["a: 1 - 0 | b = 0"]
        assert (a.kind, a.given, a.possible, a.n, a.declared) == ("simple", {"b": "0"}, 2, 6, False)
        assert [effect.tests for effect in analysis.effects if effect.declared] == [3, 3][:runs]


def test_a_cell_that_never_finished_leaves_the_family_as_large() -> None:
    values = np.random.default_rng(4).uniform(0.4, 0.6, (6, 8))
    for runs in (1, 0):
        values[runs:, 7] = np.nan
        analysis = analyse(
            table(values, {"a": ["0", "1"], "b": ["0", "1"], "c": ["0", "1"]}), ["a", "b", "c"], "seed", "top1"
        )
        assert {effect.tests for effect in analysis.effects if effect.kind == "main"} == {6}


def test_what_only_a_seldom_finished_cell_tells_waits_for_its_runs() -> None:
    values = np.random.default_rng(4).uniform(0.4, 0.6, (6, 2))
    values[2:, 1] = np.nan
    effect = only(analyse(table(values, {"a": ["0", "1"]}), ["a"], "seed", "top1"))
    assert (effect.n, effect.verdict) == (2, None)
    assert sentence(effect).endswith("; it needs the runs that 3 seeds lack.")
    effect = only(analyse(table(values[:3], {"a": ["0", "1"]}), ["a"], "seed", "top1"))
    assert sentence(effect).endswith("; it needs the runs that 1 seed lacks and 2 more seeds.")


def test_a_level_that_never_finished_and_a_factor_with_one_level() -> None:
    frame = pairs([1, 2, 3]).assign(b="only")
    frame.loc[frame["a"] == "on", "top1"] = np.nan
    analysis = analyse(frame, ["a", "b"], "seed", "top1")
    assert analysis.effects == ()
    assert [(m.name, m.why) for m in analysis.not_estimable] == [
        ("b", "has one level only: only"),
        ("a: on - off", "no finished run has a = on"),
    ]
    assert analyse(frame.assign(top1=np.nan), ["a"], "seed", "top1").runs.missing == 6


def test_untested_effects_stay_in_the_family() -> None:
    frame = table(np.random.default_rng(1).uniform(size=(6, 3)), {"a": ["0", "1", "2"]})
    frame.loc[(frame["a"] == "2") & (frame["seed"] > 0), "top1"] = np.nan
    first, second = analyse(frame, ["a"], "seed", "top1").effects
    assert (second.n, second.p, second.low, second.verdict) == (1, None, None, None)
    assert first.p_adjusted == pytest.approx(min(1.0, 2 * first.p))


# ---- verdicts and sentences


def verdict(differences: list[float], **options: Any) -> str | None:
    return only(analyse(pairs(differences), ["a"], "seed", "top1", **options)).verdict


def test_verdicts() -> None:
    spread = np.array([-0.2, -0.1, 0.0, 0.1, 0.2, 0.05, -0.05])
    assert verdict((spread + 2).tolist()) == "helps"
    assert verdict((spread - 2).tolist()) == "hurts"
    assert verdict((spread - 2).tolist(), higher_is_better=False) == "helps"
    assert verdict((spread + 0.25).tolist()) == "negligible"
    assert verdict((spread + 0.02).tolist()) == "practically equivalent"
    assert verdict((20 * spread + 0.02).tolist()) == "inconclusive"
    assert verdict((spread + 0.25).tolist(), margin=0.0026) == "helps"  # shown, and it may reach the margin
    assert verdict((spread[:4] + 2).tolist()) is None


def test_equal_differences_are_handled_and_noted() -> None:
    nothing = only(analyse(pairs([0.0] * 5), ["a"], "seed", "top1"))
    assert (nothing.verdict, nothing.p, nothing.t, nothing.d_z) == ("inconclusive", 1.0, 0.0, None)
    assert nothing.equivalence_p == 1.0  # equal by chance, where the metric is coarse
    assert (nothing.low, nothing.high, nothing.better, nothing.detectable) == (None, None, 0.5, None)
    assert "0.0 points (no interval, n = 5 seeds" in sentence(nothing)
    assert "no spread" in nothing.notes[0]
    assert verdict([0.0] * 4) is None
    always = only(analyse(pairs([1.1] * 5, base=0.7), ["a"], "seed", "top1"))
    assert (always.verdict, always.p, always.t, always.sign_flip_p) == ("inconclusive", 2 / 32, None, 2 / 32)
    assert "p is the sign-flip test's" in always.notes[0]
    assert verdict([1.1] * 6) == "helps"  # 2 / 64
    assert verdict([0.2] * 6) == "helps"  # real, and nothing shows that it is small


def test_one_block_has_no_interval_and_none_no_estimate() -> None:
    one = only(analyse(pairs([1.25]), ["a"], "seed", "top1"))
    assert (one.n, one.estimate, one.low, one.p, one.verdict) == (1, pytest.approx(1.25), None, None, None)
    assert sentence(one) == (
        "A (on against off): verdict withheld, +1.2 points in 1 seed, without an interval; it needs 4 more seeds."
    )
    frame = pairs([1, 2])
    frame.loc[[0, 3], "top1"] = np.nan
    none = only(analyse(frame, ["a"], "seed", "top1"))
    assert (none.n, none.estimate, none.p_adjusted) == (0, None, None)
    assert sentence(none) == "A (on against off): verdict withheld, no seed has every run that it needs."


def test_better_counts_blocks_and_ties_as_half() -> None:
    effect = only(analyse(pairs([1, 2, 0, -1, 3, 0]), ["a"], "seed", "top1"))
    assert effect.better == pytest.approx(4 / 6)
    assert (effect.better_low, effect.better_high) == pytest.approx(wilson(4, 6))
    lower = only(analyse(pairs([1, 2, 0, -1, 3, 0]), ["a"], "seed", "top1", higher_is_better=False))
    assert lower.better == pytest.approx(2 / 6)


def test_sentences() -> None:
    d = [0.2, 1.4, 2.9, 0.9, 1.6, -0.6, 2.3, 1.2, 0.8, 1.3]
    frame = pairs(d).rename(columns={"a": "label_smoothing.amount"})
    frame = frame.replace({"label_smoothing.amount": {"off": "0.0", "on": "0.1"}})
    effect = only(analyse(frame, ["label_smoothing.amount"], "seed", "top1"))
    half = stats.t.ppf(0.975, 9) * np.std(d, ddof=1) / np.sqrt(10)
    assert sentence(effect) == (
        f"Label smoothing (0.1 against 0.0) helps: +1.2 points (95 % interval {1.2 - half:.1f} to {1.2 + half:.1f}, "
        "n = 10 seeds, p = 0.004 after Holm)."
    )
    withheld = sentence(only(analyse(pairs([1, 2, 3]), ["a"], "seed", "top1")))
    assert "verdict withheld, +2.0 points (95 % interval -0.5 to 4.5, n = 3 seeds" in withheld
    assert withheld.endswith("it needs 2 more seeds.")
    open_ = only(analyse(pairs([1, -2, 3, -1, 2]), ["a"], "seed", "top1"))
    assert sentence(open_).endswith(
        f"; a new study would find with about {seeds_needed(0.6, open_.sd)} seeds an effect of this size, "
        f"with about {seeds_needed(0.5, open_.sd)} seeds one of 0.5 points."
    )
    equal = sentence(only(analyse(pairs([0.01, -0.01, 0.02, 0.0, -0.02]), ["a"], "seed", "top1")))
    assert "makes no practical difference: +0.00 points" in equal
    assert equal.endswith("; it is smaller than 0.5 points either way (p < 0.001).")
    raw = only(
        analyse(pairs([300, 320, 310, 305, 299]), ["a"], "seed", "top1", unit="raw", margin=1.0, higher_is_better=False)
    )
    assert sentence(raw).startswith("A (on against off) hurts: +3.07 (95 % interval 2.96 to 3.17, n = 5 seeds")


def test_interactions_read_as_such() -> None:
    rng = np.random.default_rng(0)
    values = 0.5 + np.array([0, 0.01, 0.01, 0.05]) + rng.normal(0, 0.001, (6, 4))
    effects = analyse(table(values, {"a": ["0", "1"], "b": ["0", "1"]}), ["a", "b"], "seed", "top1").effects
    assert "A (1 against 0) and b (1 against 0) do more together than apart: +2.97 points" in sentence(effects[-1])
    assert effects[-1].estimate == pytest.approx(3, abs=0.3)  # the full difference of differences


# ---- the record


def test_to_dict_is_json_without_nan() -> None:
    frame = paper(5)
    frame.loc[:20, "top1"] = np.nan
    for analysis in (
        analyse(frame, list(load_study("paper").factors), "seed", "top1"),
        analyse(pairs([1.0]), ["a"], "seed", "top1"),
        analyse(pairs([1.0] * 5), ["a"], "seed", "top1"),
    ):
        table_ = json.loads(json.dumps(analysis.to_dict(), allow_nan=False))
        assert [row["name"] for row in table_["effects"]] == [effect.name for effect in analysis.effects]
        assert table_["effects"][0]["sentence"] == sentence(analysis.effects[0])
        assert table_["settings"]["margin"] == 0.5
    with pytest.raises(FrozenInstanceError):
        analysis.effects[0].p = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"factors": ["z"]}, "no column 'z'; there are: a, seed, top1"),
        ({}, {"factors": []}, "no factors"),
        ({}, {"factors": ["a", "seed"]}, "column 'seed' cannot be two things at once"),
        ({}, {"metric": "acc"}, "no column 'acc'"),
        ({}, {"margin": 0}, "margin 0: must be above 0"),
        ({}, {"alpha": 0.7}, "alpha 0.7"),
        ({}, {"family": "mian"}, "unknown family 'mian': did you mean 'main'?"),
        ({}, {"unit": "percent"}, "unknown unit 'percent'"),
        ({}, {"test_train_ratio": -1}, "ratio of test to training images -1"),
        ({"top1": 93.0}, {}, "'top1' holds 93: must be from 0 to 1"),
        ({"top1": "high"}, {}, "column 'top1' holds 'high', which is no number"),
        ({"a": None}, {}, "column 'a' is empty in 6 rows"),
        ({"a": "on"}, {}, "two rows for a = on, seed 0"),
    ],
)
def test_wrong_requests(change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    frame = pairs([1, 2, 3]).assign(**change)
    arguments = {"factors": ["a"], "block": "seed", "metric": "top1", **options}
    with pytest.raises(UserError, match=message) as caught:
        analyse(frame, **arguments)
    assert "\n" not in str(caught.value)


def test_levels_have_an_order() -> None:
    frame = pairs([1, 2, 3, 1, 2])
    assert analyse(frame, ["a"], "seed", "top1").levels == {"a": ("off", "on")}
    swapped = only(analyse(frame, ["a"], "seed", "top1", levels={"a": ["on"]}))
    assert (swapped.levels, swapped.verdict) == ((("off", "on"),), "hurts")
    frame["a"] = pd.Categorical(frame["a"], categories=["on", "off"])
    assert analyse(frame, ["a"], "seed", "top1").levels == {"a": ("on", "off")}


# ---- whole cells


def test_cells_are_compared_in_the_effects_unit() -> None:
    frame = table(np.random.default_rng(0).uniform(0.5, 0.6, (6, 4)), {"a": ["0", "1"], "b": ["0", "1"]})
    analysis = analyse(frame, ["a", "b"], "seed", "top1")
    assert analysis.cells is not None
    assert [cell.name for cell in analysis.cells.cells] == [
        "a = 0, b = 0",
        "a = 0, b = 1",
        "a = 1, b = 0",
        "a = 1, b = 1",
    ]
    first, second = (100 * frame[(frame["a"] == "0") & (frame["b"] == b)]["top1"].mean() for b in "01")
    assert analysis.cells.cells[1].mean == pytest.approx(second)
    assert analysis.cells.cells[1].difference == pytest.approx(second - first)
    named = analyse(frame.assign(name=frame["a"] + frame["b"], same="x"), ["a", "b"], "seed", "top1", cell="name")
    assert named.cells is not None
    assert [cell.name for cell in named.cells.cells] == ["00", "01", "10", "11"]
    again = analyse(frame.assign(same="x"), ["a", "b"], "seed", "top1", cell="same")
    assert again.cells == analysis.cells  # names that do not tell cells apart are no names
    with pytest.raises(UserError, match="no column 'run'"):
        analyse(frame, ["a", "b"], "seed", "top1", cell="run")


def test_the_baseline_is_the_references_cell_or_the_first_that_ran() -> None:
    frame = table(np.random.default_rng(0).uniform(size=(6, 4)), {"a": ["0", "1"], "b": ["0", "1"]})

    def baseline(frame: pd.DataFrame, **options: Any) -> str | None:
        cells = analyse(frame, ["a", "b"], "seed", "top1", **options).cells
        return cells and cells.baseline

    assert baseline(frame) == "a = 0, b = 0"
    assert baseline(frame, levels={"a": ["1"]}) == "a = 1, b = 0"
    assert baseline(frame, baseline={"b": "1"}) == "a = 0, b = 1"
    lost = frame[(frame["a"] == "1") | (frame["b"] == "1")]
    order = {"b": ["0", "1"]}
    assert baseline(lost, levels=order) == "a = 0, b = 1"
    for wrong, message in (
        ({"z": "1"}, "unknown factor of the baseline 'z'"),
        ({"a": "7"}, "unknown level of a '7'"),
        ({"a": "0"}, "baseline a = 0, b = 0: has too few finished runs"),
    ):
        with pytest.raises(UserError, match=message):
            baseline(lost, levels=order, baseline=wrong)


def test_why_cells_are_not_compared_is_noted() -> None:
    frame = table(np.random.default_rng(0).uniform(size=(4, 3)), {"a": ["0", "1", "2"]})
    frame.loc[[0, 4, 8], "top1"] = np.nan  # each of three blocks lacks another cell
    analysis = analyse(frame, ["a"], "seed", "top1")
    assert analysis.cells is None
    assert "cells are not compared as wholes: no two seeds have a run of each" in analysis.notes
    frame.loc[[0, 3, 6], "top1"] = np.nan
    analysis = analyse(frame.assign(top1=frame["top1"].where(frame["a"] != "2", 0.5)), ["a"], "seed", "top1")
    assert "too few runs to be compared as whole cells: a = 0" in analysis.notes


def test_the_model_is_fitted_once_and_only_when_asked_for() -> None:
    analysis = analyse(pairs([1, 2, 3, 1, 2]), ["a"], "seed", "top1")
    assert "secondary" not in vars(analysis)
    assert analysis.secondary is analysis.secondary is not None
    assert analysis == analyse(pairs([1, 2, 3, 1, 2]), ["a"], "seed", "top1")


# ---- invariances

metrics = st.floats(0.0, 1.0, allow_nan=False, width=32)
blocks = st.lists(st.tuples(metrics, metrics, metrics, metrics), min_size=3, max_size=6)


def number(value: float | None) -> float:
    """Where the difference is the same in every block, there is no interval."""
    return np.nan if value is None else value


def estimates(analysis: Analysis) -> list[float]:
    return [number(x) for e in analysis.effects for x in (e.estimate, e.sd, e.low, e.high, e.better, e.equivalence_p)]


@settings(max_examples=40, deadline=None)
@given(blocks, st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_a_constant_in_each_block_changes_nothing(rows: list[tuple[float, ...]], shifts: list[float]) -> None:
    factors = {"a": ["0", "1"], "b": ["0", "1"]}
    values = np.round(np.array(rows), 4)
    moved = values + np.round(np.array(shifts[: len(rows)]), 4)[:, None]
    before, after = (analyse(table(v, factors), ["a", "b"], "seed", "top1", unit="raw") for v in (values, moved))
    assert estimates(after) == pytest.approx(estimates(before), abs=1e-9, rel=1e-6, nan_ok=True)
    assert [e.sign_flip_p for e in after.effects] == [e.sign_flip_p for e in before.effects]


@settings(max_examples=40, deadline=None)
@given(blocks)
def test_swapping_levels_flips_the_sign(rows: list[tuple[float, ...]]) -> None:
    frame = table(np.round(np.array(rows), 4), {"a": ["0", "1"], "b": ["0", "1"]})
    plain = analyse(frame, ["a", "b"], "seed", "top1")
    swapped = analyse(frame, ["a", "b"], "seed", "top1", levels={"a": ["1"]})
    for before, after, sign in zip(plain.effects, swapped.effects, (-1, 1, -1), strict=True):
        assert after.estimate == pytest.approx(sign * before.estimate, abs=1e-9)
        assert after.p == pytest.approx(before.p, abs=1e-9)
        assert after.sign_flip_p == before.sign_flip_p
        assert after.better == pytest.approx(before.better if sign == 1 else 1 - before.better)
        ends = [number(before.low), number(before.high)]
        expected = ends if sign == 1 else [-ends[1], -ends[0]]
        assert [number(after.low), number(after.high)] == pytest.approx(expected, abs=1e-9, nan_ok=True)


# ---- validity by simulation

FACTORS = {"a": ("0", "1"), "b": ("0", "1"), "c": ("0", "1")}
CELLS = list(product(*FACTORS.values()))


def test_the_simulation_judges_as_analyse_does() -> None:
    rng = np.random.default_rng(2)
    values = 0.5 + 0.02 * rng.normal(size=(3, 6, len(CELLS)))
    contrasts, _ = find_contrasts(FACTORS, CELLS)
    d = np.stack([contrast.differences(values, CELLS) for contrast in contrasts], axis=1)
    for study, p in zip(values, holm(paired_t(d).p), strict=True):
        frame = table(study, {name: list(levels) for name, levels in FACTORS.items()})
        assert [e.p_adjusted for e in analyse(frame, list(FACTORS), "seed", "top1").effects] == pytest.approx(p)
        grid = read_grid(frame, list(FACTORS), "seed", "top1")
        assert np.array_equal(grid.values, study)
