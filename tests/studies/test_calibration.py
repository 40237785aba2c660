"""The short version of `make calibrate`: a few hundred studies a scenario, held to what chance allows.

Every scenario also sends studies through `analyse` or `successive`, and fails where the batch says otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bench.calibrate import __main__ as calibrate
from bench.calibrate import batch as batches
from bench.calibrate import errors, finds, resampled
from bench.calibrate.batch import HELPS, INCONCLUSIVE, MARGIN, agree, judge
from bench.calibrate.designs import DESIGNS, PAIR, Design
from bench.calibrate.figures import COVERAGE, Effort, Figure
from bench.calibrate.noise import NOISES, generator, simulate
from bench.calibrate.pool import Pool, load_pool, make_pool
from bench.calibrate.tables import HEADINGS, broken, table, write
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from tests.conftest import ROOT

EFFORT = Effort(studies=600, proved=1, whole=80)
CHANCE = 1e-4
"""How rarely a correct statistic may fail one of these limits, if seeds were not fixed."""


def errs_in_at_most(figure: Figure, bound: float = 0.05) -> bool:
    """Whether a true rate of `bound` allows the figure's."""
    return figure.values["rate"] * figure.studies <= stats.binom.isf(CHANCE, figure.studies, bound)


def errs_in_at_least(figure: Figure, bound: float) -> bool:
    return figure.values["rate"] * figure.studies >= stats.binom.ppf(CHANCE, figure.studies, bound)


def covers(figure: Figure, low: float = COVERAGE[0], high: float = COVERAGE[1]) -> bool:
    """Whether true coverages from `low` to `high` allow the figure's lowest and highest."""
    lowest, highest = (figure.values[name] * figure.studies for name in ("lowest", "highest"))
    least, most = stats.binom.ppf(CHANCE, figure.studies, low), stats.binom.isf(CHANCE, figure.studies, high)
    return bool(least <= lowest and highest <= most)


each_design = pytest.mark.parametrize("design", DESIGNS.values(), ids=list(DESIGNS))


# ---- errors and coverage


@each_design
@pytest.mark.parametrize("noise", NOISES)
def test_errors_and_coverage(design: Design, noise: str) -> None:
    blocks = 10 if noise == "unequal variances" else 5
    (null,) = errors.family_wise(design, noise, blocks, EFFORT)
    partly, coverage = errors.with_effects(design, noise, blocks, EFFORT)
    (margin,) = errors.at_margin(design, noise, blocks, EFFORT)
    assert errs_in_at_most(null)
    assert errs_in_at_most(partly)
    assert errs_in_at_most(margin)
    assert covers(coverage, high=1.0 if noise in errors.TOO_WIDE else COVERAGE[1])
    if noise == "Gaussian":  # exact there: neither too bold nor without power
        assert errs_in_at_least(null, 0.045)
        assert errs_in_at_least(margin, 0.045)
        assert covers(coverage, 0.95, 0.95)


@pytest.mark.parametrize("name", ["2^2", "ladder of 6"])
def test_every_study_through_the_public_functions(name: str) -> None:
    wrong, coverage = errors.wholly(DESIGNS[name], EFFORT)
    assert errs_in_at_most(wrong)
    assert covers(coverage, 0.95, 0.95)


def test_whole_cells_keep_their_promise_where_cells_vary_alike() -> None:
    for noise in ("Gaussian", "large block effects"):
        wrong, missed = errors.whole_cells(DESIGNS["2^3"], noise, 5, EFFORT)
        assert errs_in_at_most(wrong)
        assert errs_in_at_least(wrong, 0.045)
        assert errs_in_at_most(missed, 0.06)  # the worst of eight
    wrong, missed = errors.whole_cells(DESIGNS["2^3"], "unequal variances", 5, replace(EFFORT, studies=3_000))
    assert missed.values["rate"] > 0.1
    assert (wrong.holds, missed.holds) == (None, None)


def test_what_is_not_promised_is_as_the_page_says() -> None:
    (bold,) = errors.one_level_skew(PAIR, "exponential against none", 5, replace(EFFORT, studies=4_000))
    assert 0.09 <= bold.values["rate"] <= 0.14
    (few,) = errors.few_blocks("Gaussian", 3, replace(EFFORT, studies=2_000))
    assert covers(few, 0.95, 0.95)
    *_, either = errors.either_claim(DESIGNS["2^3"], EFFORT)
    assert errs_in_at_most(either, 0.10)
    assert errs_in_at_least(either, 0.07)
    _, same = errors.coarse(40, 0.01, 5, EFFORT)
    assert errs_in_at_most(same)  # equal differences show nothing, so that they claim nothing
    _, fine = errors.coarse(2_000, 0.03, 5, EFFORT)
    assert errs_in_at_most(fine)
    assert {f.holds for f in (bold, either, same, fine)} == {None}


# ---- power


@each_design
@pytest.mark.parametrize("noise", ["Gaussian", "skewed: exponential", "heavy-tailed: t, 3 df"])
def test_planned_power_is_reached(design: Design, noise: str) -> None:
    (figure,) = finds.power(design, noise, 1.2, replace(EFFORT, studies=1_500))
    slack = 3.7 * np.sqrt(0.8 * 0.2 / figure.studies)  # chance alone, on top of which only heavy tails differ
    assert figure.values["planned"] >= 0.8
    assert figure.values["reached"] >= figure.values["planned"] - slack
    assert figure.values["reached"] <= figure.values["planned"] + slack + (0 if noise == "Gaussian" else 0.05)


def test_a_pilots_sd_is_too_short_a_plan_and_its_upper_limit_is_not() -> None:
    plain, limited = finds.pilot(1.2, 5, EFFORT)
    assert plain.values["power"] < 0.75
    assert limited.values["power"] > 0.8
    assert limited.values["enough"] == pytest.approx(0.8, abs=0.06)


def test_verdict_rates_add_up_and_follow_the_effect() -> None:
    rates = {d_z: finds.verdict_rates(10, 2.0, d_z, EFFORT) for d_z in (0.0, 3.0)}
    for figures in rates.values():
        assert sum(figure.values["share"] for figure in figures) == pytest.approx(1)
    shares = {d_z: {f.column: f.values["share"] for f in figures} for d_z, figures in rates.items()}
    assert shares[0.0]["practically equivalent"] > 0.9
    assert shares[3.0]["helps"] > 0.9


@pytest.mark.parametrize("noise", ["Gaussian", "skewed: log-normal", "heavy-tailed: t, 3 df"])
def test_the_sign_flip_p_is_uniform(noise: str) -> None:
    (figure,) = finds.flips(noise, 8, EFFORT)
    assert figure.holds
    (skewed,) = finds.flips("exponential against none", 8, replace(EFFORT, studies=2_000))
    assert skewed.values["at_0.1"] > 0.12


def test_wilsons_coverage_is_computed() -> None:
    (figure,) = finds.better(0.0, 5)
    assert figure.values["coverage"] == pytest.approx(1 - 2 / 32)  # only 0 of 5 and 5 of 5 exclude one half


# ---- re-split digits


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(60, 80)


@pytest.mark.parametrize("design", resampled.DESIGNS.values(), ids=list(resampled.DESIGNS))
def test_resampled_splits(design: Design, pool: Pool) -> None:
    for measure in (resampled.permuted, resampled.recentred, resampled.margins):
        for figure in measure(pool.splits, design, 5, EFFORT):
            assert errs_in_at_most(figure)
    ordinary, wide = resampled.covers(pool.splits, design, 5, EFFORT)
    assert covers(ordinary)
    assert wide.values["lowest"] > ordinary.values["lowest"]


def test_resampled_power(pool: Pool) -> None:
    for figure in resampled.power(pool.splits, 1.2, EFFORT):
        assert figure.values["reached"] >= figure.values["planned"] - 0.05 - 3.7 * np.sqrt(0.16 / figure.studies)


def test_claims_about_new_data_need_the_wider_interval(pool: Pool) -> None:
    figures = resampled.new_data(pool.sets, 20, EFFORT)
    found = {(f.row[0:5], f.column): f.values["coverage"] for f in figures}
    ordinary = [share for (_, column), share in found.items() if column == "ordinary t"]
    wide = [share for (_, column), share in found.items() if column == "Nadeau-Bengio"]
    assert max(ordinary) < stats.binom.isf(CHANCE, len(pool.sets), 0.88) / len(pool.sets)
    assert min(wide) > 0.93


def test_a_pool_is_kept_and_made_anew_where_another_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "pool.npz"
    first = load_pool(path, 2, 1)
    assert first.splits.shape == (2, 8)
    assert first.sets.shape == (1, 20, 4)
    assert not np.array_equal(first.splits[0], first.splits[1])  # another split, other weights
    written = path.stat().st_mtime_ns
    again = load_pool(path, 2, 1)
    assert path.stat().st_mtime_ns == written
    assert np.array_equal(first.splits, again.splits)
    assert np.array_equal(first.sets, load_pool(None, 2, 1).sets)
    assert len(load_pool(path, 3, 1).splits) == 3


def test_a_study_draws_no_split_twice(pool: Pool) -> None:
    numbers = np.arange(60.0)[:, None]
    drawn = resampled.draw(numbers, np.random.default_rng(0), 300, 20)[..., 0]
    assert drawn.shape == (300, 20)
    assert min(len(set(study)) for study in drawn.tolist()) == 20
    assert set(drawn.ravel().tolist()) == set(range(60))


# ---- the simulations notice faults


def test_a_family_without_its_correction_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "holm", lambda p: p)
    with pytest.raises(AssertionError):  # not what analyse says
        errors.family_wise(DESIGNS["2^3"], "Gaussian", 5, EFFORT)
    (figure,) = errors.family_wise(DESIGNS["2^3"], "Gaussian", 5, replace(EFFORT, proved=0))
    assert not errs_in_at_most(figure)
    assert broken([figure]) == [figure]


def test_a_t_with_too_many_degrees_of_freedom_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    normal = SimpleNamespace(t=SimpleNamespace(isf=lambda a, _: stats.norm.isf(a), sf=lambda t, _: stats.norm.sf(t)))
    monkeypatch.setattr("scipy.stats.t", normal.t)  # analyse errs alike: only counting tells
    wrong, coverage = errors.with_effects(DESIGNS["2^3"], "Gaussian", 5, EFFORT)
    assert not errs_in_at_most(wrong)
    assert not covers(coverage)
    assert {wrong.holds, coverage.holds} == {False}


def test_the_batch_is_held_to_analyse() -> None:
    design = DESIGNS["2^2"]
    values = simulate(NOISES["Gaussian"], generator("held"), np.zeros(4), 3, 6)
    found = judge(design, values)
    assert agree(design, values, found, 10) == 3
    for change in (
        {"verdict": np.where(found.verdict == INCONCLUSIVE, HELPS, INCONCLUSIVE)},
        {"equivalence": found.equivalence * 0.99},
        {"wide_high": found.high},
    ):
        with pytest.raises(AssertionError):
            agree(design, values, replace(found, **change), 3)


# ---- agreement with scipy and statsmodels, through the public functions


@each_design
def test_p_intervals_and_corrections_are_theirs(design: Design) -> None:
    rng = generator(f"agreement {design.name}")
    truth = rng.normal(0, 1, len(design.contrasts)) * design.sd()
    values = simulate(NOISES["skewed: exponential"], rng, design.means(truth), 1, 7)[0]
    effects = design.analyse(values, unit="raw", margin=MARGIN).effects
    d = values @ design.weights.T  # (n, E)
    theirs = stats.ttest_1samp(d, 0)
    interval = theirs.confidence_interval(0.95)
    assert [e.p for e in effects] == pytest.approx(theirs.pvalue)
    assert [e.low for e in effects] == pytest.approx(interval.low)
    assert [e.high for e in effects] == pytest.approx(interval.high)
    equal = np.array([ttost_paired(column, np.zeros(7), -MARGIN, MARGIN)[0] for column in d.T])
    for family, method in ((design.declared, "holm"), (~design.declared, "fdr_bh")):
        if family.any():
            ours = [e for e, own in zip(effects, family, strict=True) if own]
            assert [e.p_adjusted for e in ours] == pytest.approx(multipletests(theirs.pvalue[family], method=method)[1])
            adjusted = multipletests(equal[family], method=method)[1]
            assert [e.equivalence_p_adjusted for e in ours] == pytest.approx(adjusted)
    if design.ladder:
        steps = [stats.ttest_rel(values[:, i + 1], values[:, i]) for i in range(len(effects))]
        assert [e.t for e in effects] == pytest.approx([step.statistic for step in steps])


def test_cell_means_have_the_effects_asked_for() -> None:
    design = DESIGNS["paper's 18"]
    wanted = np.arange(12.0)
    noiseless = np.tile(design.means(wanted), (5, 1))
    assert [e.estimate for e in design.analyse(noiseless, unit="raw").effects] == pytest.approx(wanted, abs=1e-9)


# ---- the page


def figure(name: str, row: str, column: str, shown: str) -> Figure:
    return Figure(name, row, column, shown, 1, {})


def test_figures_of_one_place_stand_side_by_side() -> None:
    own = [figure("few", "a", "n = 2", "1"), figure("few", "a", "n = 3", "2"), figure("few", "a", "n = 2", "3")]
    assert table("few", [*own, figure("pool", "x", "y", "4"), figure("few", "b", "n = 3", "5")]).splitlines() == [
        "| noise | n = 2 | n = 3 |",
        "| --- | ---: | ---: |",
        "| a | 1 / 3 | 2 |",
        "| b |  | 5 |",
    ]


def test_the_page_is_renewed_in_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    places = "\n".join(f"text\n<!-- figures: {name} -->\nold\n<!-- end -->" for name in HEADINGS)
    page.write_text(places, encoding="utf-8")
    figures = [figure(name, "row", "column", f"1 of {name}") for name in HEADINGS]
    write(page, figures)
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.count("text\n") == len(HEADINGS)
    assert all(f"| row | 1 of {name} |" in text for name in HEADINGS)
    write(page, figures)
    assert page.read_text(encoding="utf-8") == text
    page.write_text(places.replace("figures: few", "figures: fewer"), encoding="utf-8")
    with pytest.raises(ValueError, match="few, fewer"):
        write(page, figures)


def test_every_scenario_has_a_name_and_the_page_its_tables(pool: Pool) -> None:
    steps = [*calibrate.simulated(EFFORT), *calibrate.drawn(pool, EFFORT)]
    names = [name for name, _ in steps]
    assert len(names) == len(set(names)) > 400
    text = (ROOT / "docs" / "explanation" / "statistics.md").read_text(encoding="utf-8")
    for name in HEADINGS:
        shown = text.split(f"<!-- figures: {name} -->")[1].split("<!-- end -->")[0].strip().splitlines()
        assert shown[0].startswith(f"| {HEADINGS[name]} |")
        assert len(shown) > 2
