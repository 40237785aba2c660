from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from bagoftricks.errors import UserError
from bagoftricks.studies.design import MOST_SEEDS, Study
from bagoftricks.studies.inference import holm, paired_t, power_of
from bagoftricks.studies.planning import (
    ALPHA,
    ASSUMED_SDS,
    Family,
    Sd,
    check_request,
    family_of,
    for_all,
    needs,
    pilot_sds,
    stated_sds,
    upper_sd,
    within,
)
from bagoftricks.studies.price import Price, pilot_price
from bagoftricks.studies.study_file import load_study, parse_study

STUDIES = 4_000
FACTORS = '[factors]\n"mixup.alpha" = [0.0, 0.2]\n"label_smoothing.amount" = [0.0, 0.1, 0.2]\n'


def family(design: str, factors: str = FACTORS) -> Family:
    return family_of(parse_study(f'design = "{design}"\n{factors}'))


def alone() -> Family:
    return family("full", '[factors]\n"mixup.alpha" = [0.0, 0.2]\n')


# ---- what is tested together


@pytest.mark.parametrize(
    ("design", "tests", "kinds"),
    [
        ("full", 5, {"main", "interaction"}),  # 1 + 2 main effects, 1 x 2 interactions
        ("one-at-a-time", 3, {"simple"}),
        ("ladder", 3, {"successive"}),
    ],
)
def test_the_family_is_the_designs(design: str, tests: int, kinds: set[str]) -> None:
    found = family(design)
    assert (found.tests, found.declared, found.correction) == (tests, True, "Holm")
    assert {contrast.kind for contrast in found.contrasts} == kinds


def test_the_papers_family() -> None:
    """A or B, decay, smoothing and mixup: four main effects and six interactions; C and D give simple effects only."""
    found = family_of(load_study("paper"))
    assert found.tests == 10
    assert sum(contrast.kind == "main" for contrast in found.contrasts) == 4
    assert not any("C" in level for contrast in found.contrasts for level in contrast.levels[0])


def test_a_design_without_declared_effects() -> None:
    cells = '[[cells]]\n\n[[cells]]\n"mixup.alpha" = 0.2\n\n[[cells]]\n"label_smoothing.amount" = 0.1\n'
    found = family("cells", FACTORS + cells)
    assert (found.declared, found.correction, found.tests) == (False, "Benjamini-Hochberg", 2)


def test_nothing_to_compare() -> None:
    with pytest.raises(UserError, match="no two of its cells differ in one factor alone"):
        family_of(Study("one"))
    apart = '[[cells]]\n\n[[cells]]\n"mixup.alpha" = 0.2\n"label_smoothing.amount" = 0.1\n'
    with pytest.raises(UserError, match="nothing to plan for"):
        family("cells", FACTORS + apart)


# ---- seeds


@pytest.mark.parametrize("d_z", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("power", [0.7, 0.8, 0.9])
def test_seeds_for_one_test_are_statsmodels(d_z: float, power: float) -> None:
    theirs = TTestPower().solve_power(effect_size=d_z, alpha=ALPHA, power=power, alternative="two-sided")
    (need,) = needs(stated_sds(2.0), [2 * d_z], alone(), 2, power=power, price=None)
    assert need.seeds == need.alone == max(5, math.ceil(theirs))
    assert need.runs == 2 * math.ceil(theirs)
    assert need.hours is None


def test_seeds_for_a_family_are_statsmodels_at_the_first_step_of_holm() -> None:
    theirs = TTestPower().solve_power(effect_size=0.5, alpha=ALPHA / 5, power=0.8, alternative="two-sided")
    (need,) = needs(stated_sds(1.0), [-0.5], family("full"), 6, power=0.8, price=None)
    assert need.seeds == math.ceil(theirs)
    assert need.alone is not None
    assert need.alone < math.ceil(theirs)


def test_never_fewer_than_a_verdict_needs() -> None:
    (need,) = needs(stated_sds(0.01), [5.0], alone(), 2, power=0.8, price=None)
    assert (need.seeds, need.runs) == (5, 10)


def test_more_than_a_study_can_have() -> None:
    (need,) = needs(stated_sds(50.0), [0.01], alone(), 2, power=0.8, price=None)
    assert (need.seeds, need.alone, need.runs, need.hours) == (None, None, None, None)


def simulated(contrasts: Family, mean: np.ndarray, n: int) -> np.ndarray:
    """Returns (studies, effects) corrected p; cells have this mean in points, and noise of sd 1 besides the block's."""
    cells = list(product(("0.0", "0.2"), ("0.0", "0.1")))
    rng = np.random.default_rng(n)
    values = mean + rng.normal(size=(STUDIES, n, len(cells))) + 3 * rng.normal(size=(STUDIES, n, 1))  # the block's luck
    d = np.stack([contrast.differences(values, cells) for contrast in contrasts.contrasts], axis=1)
    return holm(paired_t(d).p)


@pytest.mark.parametrize(("points", "power"), [(0.6, 0.8), (0.8, 0.8), (0.8, 0.9), (1.2, 0.7)])
def test_the_planned_power_is_reached_by_an_effect_that_stands_alone(points: float, power: float) -> None:
    """In whole studies: a 2 x 2 design, its family's Holm, and one main effect, whose differences have sd 1."""
    two_by_two = family("full", '[factors]\n"mixup.alpha" = [0.0, 0.2]\n"label_smoothing.amount" = [0.0, 0.1]\n')
    assert two_by_two.tests == 3
    (need,) = needs(stated_sds(1.0), [points], two_by_two, 4, power=power, price=None)
    assert need.seeds is not None
    p = simulated(two_by_two, np.array([0, 0, points, points]), need.seeds)
    found = (p[:, 0] <= ALPHA).mean()
    assert power - 0.02 <= found  # 3 standard errors
    assert found == pytest.approx(power_of(need.seeds, points, tests=3), abs=0.05)
    others = (p[:, 1:] <= ALPHA).any(axis=1).mean()
    assert others <= ALPHA + 0.01


def test_one_seed_fewer_is_not_enough() -> None:
    (need,) = needs(stated_sds(1.0), [0.8], family("full"), 6, power=0.8, price=None)
    assert need.seeds is not None
    assert power_of(need.seeds - 1, 0.8, tests=5) < 0.8 <= power_of(need.seeds, 0.8, tests=5)


# ---- the sd of a pilot


@pytest.mark.parametrize("blocks", [2, 3, 5, 10])
def test_the_upper_limit_covers_as_often_as_it_says(blocks: int) -> None:
    sds = np.random.default_rng(blocks).normal(size=(STUDIES, blocks)).std(axis=1, ddof=1)
    assert (upper_sd(1.0, blocks) * sds >= 1).mean() == pytest.approx(0.8, abs=0.02)


def test_planning_on_the_upper_limit_keeps_the_power_in_four_of_five_studies() -> None:
    """As Browne 1995; on the sd itself it is kept in less than half."""
    kept = {"pilot": 0, "upper limit": 0}
    sds = np.random.default_rng(0).normal(size=(1_000, 5)).std(axis=1, ddof=1)
    for sd in sds:
        both = (Sd("pilot", sd, "e", 5), Sd("upper limit", upper_sd(sd, 5), "e", 5))
        for need in needs(both, [0.5], alone(), 2, power=0.8, price=None):
            assert need.seeds is not None
            kept[need.source] += power_of(need.seeds, 0.5) >= 0.8
    assert kept["upper limit"] / len(sds) == pytest.approx(0.8, abs=0.05)
    assert kept["pilot"] / len(sds) < 0.5


def test_each_effect_has_its_own_sd() -> None:
    ladder = family("ladder")
    one, two, three = (contrast.name for contrast in ladder.contrasts)
    sds, notes = pilot_sds(ladder, {one: (1.5, 5), two: (0.0, 5), three: (None, 1), "another": (1.0, 5)})
    assert [(sd.effect, sd.source, sd.blocks) for sd in sds] == [(one, "pilot", 5), (one, "upper limit", 5)]
    assert sds[1].points == pytest.approx(1.5 * upper_sd(1.0, 5))
    assert notes == [
        f"{two}: the same difference in every seed of the pilot, which tells no sd",
        f"{three}: measured in 1 seed of the pilot, and an sd needs two",
    ]
    assert pilot_sds(ladder, {})[1][0] == f"{one}: not in the pilot"


def test_enough_for_each_effect_at_once() -> None:
    sds = tuple(Sd(source, sd * k, name, 5) for name, sd in (("a", 1.0), ("b", 2.0))
                for source, k in (("pilot", 1.0), ("upper limit", 1.5)))  # fmt: skip
    found = needs(sds, [1.0, 2.0], family("full"), 6, power=0.8, price=None)
    totals = for_all(found, 6, None)
    assert [(need.points, need.source) for need in totals] == list(product((1.0, 2.0), ("pilot", "upper limit")))
    for total in totals:
        own = [n for n in found if (n.points, n.source) == (total.points, total.source)]
        assert total.seeds == max(n.seeds for n in own if n.seeds)
        assert total.runs == 6 * (total.seeds or 0)
    huge = needs((Sd("pilot", 1.0, "a", 5), Sd("pilot", 90.0, "b", 5)), [0.1], alone(), 2, power=0.8, price=None)
    assert for_all(huge, 2, None)[0].seeds is None  # one of them is out of reach


def test_some_sds_are_assumed_where_none_is_known() -> None:
    assert [sd.points for sd in stated_sds(None)] == list(ASSUMED_SDS)
    assert {sd.source for sd in stated_sds(None)} == {"assumed"}


# ---- cost


def test_hours_and_seeds_fit_each_other() -> None:
    price = Price(seconds_per_seed=360.0, longest=100.0, cells=4, jobs=2, source="stated")
    assert price.hours(10) == pytest.approx(0.5)
    assert price.seeds(0.5) == 10
    assert price.seeds(0.499) == 9
    assert price.seeds(99 / 3600) == 0  # not even the longest run fits
    assert price.seeds(1e9) == MOST_SEEDS
    for hours in (0.06, 0.31, 2.0, 7.77):
        assert price.hours(price.seeds(hours)) <= hours < price.hours(price.seeds(hours) + 1)


def test_more_jobs_than_runs_take_as_long_as_the_longest() -> None:
    price = Price(seconds_per_seed=120.0, longest=60.0, cells=2, jobs=8, source="stated")
    assert price.hours(1) == pytest.approx(60 / 3600)


def test_the_price_of_a_pilot() -> None:
    price = pilot_price({"a": [10.0, 20.0], "b": [30.0]}, ["a", "b", "new"], 1, "cpu")
    assert price is not None
    assert price.seconds_per_seed == pytest.approx(15 + 30 + 20)  # a cell that it lacks costs the mean run
    assert (price.longest, price.cells, price.source) == (30.0, 3, "pilot")
    assert pilot_price({}, ["a"], 1, "cpu") is None


def test_what_some_hours_find() -> None:
    price = Price(3600.0, 900.0, 4, 1, "stated")
    fits = within(stated_sds(1.0), family("full"), price, 12.5, power=0.8)
    assert (fits.seeds, fits.runs, fits.hours, fits.verdict) == (12, 48, 12.0, True)
    (find,) = fits.finds
    theirs = TTestPower()
    assert find.alone == pytest.approx(theirs.solve_power(nobs=12, alpha=ALPHA, power=0.8), abs=1e-3)
    assert find.corrected == pytest.approx(theirs.solve_power(nobs=12, alpha=ALPHA / 5, power=0.8), abs=1e-3)


def test_few_hours_are_exploratory() -> None:
    price = Price(3600.0, 900.0, 4, 1, "stated")
    fits = within(stated_sds(1.0), family("full"), price, 3.0, power=0.8)
    assert (fits.seeds, fits.verdict, fits.hours_for_verdict, len(fits.finds)) == (3, False, 5.0, 1)
    assert within(stated_sds(1.0), family("full"), price, 1.0, power=0.8).finds == ()
    assert within(stated_sds(1.0), family("full"), price, 0.1, power=0.8).seeds == 0


# ---- bad requests


@pytest.mark.parametrize(
    ("effects", "power", "message"),
    [
        ((0.0,), 0.8, "--effect 0: must be other than 0"),
        ((1.0, math.nan), 0.8, "--effect nan"),
        ((math.inf,), 0.8, "--effect inf"),
        ((101.0,), 0.8, "at most 100 points"),
        ((1.0,), 0.05, "--power 0.05: must be above 0.05 and below 1"),
        ((1.0,), 1.0, "--power 1:"),
        ((1.0,), math.nan, "--power nan"),
    ],
)
def test_bad_requests(effects: tuple[float, ...], power: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_request(effects, power)


@pytest.mark.parametrize("sd", [0.0, -1.0, math.nan, math.inf, 101.0])
def test_bad_sds(sd: float) -> None:
    with pytest.raises(UserError, match="--sd .*: must be above 0 and at most 100 points"):
        stated_sds(sd)


@pytest.mark.parametrize("hours", [0.0, -1.0, math.nan, math.inf])
def test_bad_hours(hours: float) -> None:
    with pytest.raises(UserError, match="--hours .*: must be above 0"):
        within(stated_sds(1.0), alone(), Price(1.0, 1.0, 1, 1, "stated"), hours, power=0.8)
