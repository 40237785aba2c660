from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, top_k_accuracy_score
from statsmodels.stats.contingency_tables import mcnemar as theirs

from bagoftricks.errors import UserError
from bagoftricks.studies.paired_models import Comparison, Difference, check_pair, compare, mcnemar

SIMULATIONS = 600


def pair(
    rng: np.random.Generator, n: int, k: int = 7, gains: tuple[float, float] = (1.5, 1.8)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two models that share some of their luck, and labels, the first class as frequent as the rest."""
    label_N = rng.choice(k, n, p=[0.5] + [0.5 / (k - 1)] * (k - 1))
    common_NK = rng.normal(size=(n, k))
    logits = [common_NK + 0.7 * rng.normal(size=(n, k)) for _ in gains]
    for logits_NK, gain in zip(logits, gains, strict=True):
        logits_NK[np.arange(n), label_N] += gain
    return logits[0], logits[1], label_N


def measures(comparison: Comparison) -> dict[str, Difference]:
    return {each.metric: each for each in comparison.differences}


# ---- McNemar


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (1, 0), (3, 3), (2, 9), (40, 61), (0, 30)])
def test_mcnemar_is_statsmodels_exact_test(b: int, c: int) -> None:
    first = np.array([True] * 11 + [True] * b + [False] * c + [False] * 4)
    second = np.array([True] * 11 + [False] * b + [True] * c + [False] * 4)
    found = mcnemar(first, second)
    assert (found.both, found.only_first, found.only_second, found.neither) == (11, b, c, 4)
    expected = theirs([[11, b], [c, 4]], exact=True).pvalue if b + c else 1.0
    assert found.p == pytest.approx(expected)


def test_mcnemar_by_hand() -> None:
    """One against five: 2 (1 + 6) / 64 exactly; the mid-p takes off the 6 / 64 of what was observed."""
    found = mcnemar([1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1])
    assert found.p == pytest.approx(14 / 64)
    assert found.mid_p == pytest.approx(8 / 64)
    even = mcnemar([1, 0], [0, 1])
    assert (even.p, even.mid_p) == pytest.approx((1.0, 1.0))


def test_mcnemars_level() -> None:
    """With equal models the exact test stays below its level, the mid-p near it."""
    rng = np.random.default_rng(0)
    found = [mcnemar(*(rng.random((2, 60)) < 0.7)) for _ in range(2_000)]
    exact, mid = (np.mean([getattr(each, name) <= 0.05 for each in found]) for name in ("p", "mid_p"))
    assert exact <= 0.045
    assert exact < mid <= 0.06


# ---- metrics and intervals


def test_metrics_are_scikit_learns() -> None:
    first, second, label_N = pair(np.random.default_rng(1), 300)
    found = measures(compare(first, second, label_N, draws=20))
    assert list(found) == ["top1", "top5", "mean_class_acc", "macro_f1", "loss"]
    for logits_NK, side in ((first, "first"), (second, "second")):
        guess_N = logits_NK.argmax(axis=1)
        p_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(axis=1, keepdims=True)
        expected = {
            "top1": (guess_N == label_N).mean(),
            "top5": top_k_accuracy_score(label_N, logits_NK, k=5),
            "mean_class_acc": balanced_accuracy_score(label_N, guess_N),
            "macro_f1": f1_score(label_N, guess_N, average="macro"),
            "loss": log_loss(label_N, p_NK),
        }
        assert {name: getattr(each, side) for name, each in found.items()} == pytest.approx(expected)
    assert all(each.difference == pytest.approx(each.second - each.first) for each in found.values())


def test_classes_that_are_not_there_do_not_count() -> None:
    first = np.eye(7)[[0, 1, 1]]
    found = measures(compare(first, first, [0, 1, 0], draws=10))
    assert found["mean_class_acc"].first == pytest.approx((1 / 2 + 1) / 2)
    assert found["macro_f1"].first == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_no_top5_below_six_classes() -> None:
    first, second, label_N = pair(np.random.default_rng(1), 30, k=5)
    assert "top5" not in measures(compare(first, second, label_N, draws=10))


def test_ties_go_to_the_first_class() -> None:
    flat = np.zeros((7, 7))
    found = measures(compare(flat, flat, np.arange(7), draws=10))
    assert found["top1"].first == pytest.approx(1 / 7)
    assert found["top5"].first == pytest.approx(5 / 7)


def test_intervals_are_scipys_paired_bootstrap() -> None:
    """Same method, other draws: for a mean and for a metric that is none."""
    first, second, label_N = pair(np.random.default_rng(2), 250)
    found = measures(compare(first, second, label_N))

    def of(metric: str) -> tuple[float, float]:
        def difference(i: np.ndarray) -> float:
            i = i.astype(int)
            a, b = (logits_NK[i].argmax(axis=1) for logits_NK in (first, second))
            if metric == "top1":
                return float((b == label_N[i]).mean() - (a == label_N[i]).mean())
            return float(
                f1_score(label_N[i], b, average="macro", labels=np.unique(label_N[i]))
                - f1_score(label_N[i], a, average="macro", labels=np.unique(label_N[i]))
            )

        result = stats.bootstrap(
            (np.arange(250),), difference, n_resamples=600, method="percentile", vectorized=False,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        return result.confidence_interval.low, result.confidence_interval.high

    for metric in ("top1", "macro_f1"):
        each = found[metric]
        width = each.high - each.low
        assert (each.low, each.high) == pytest.approx(of(metric), abs=0.12 * width)


def test_the_intervals_cover() -> None:
    """Of 600 simulated pairs, 95 % within what 600 allow; the truth is from a million images."""
    rng = np.random.default_rng(3)
    truth = {m: each.difference for m, each in measures(compare(*pair(rng, 1_000_000), draws=1)).items()}
    covered = dict.fromkeys(truth, 0)
    for i in range(SIMULATIONS):
        for metric, each in measures(compare(*pair(rng, 200), draws=400, seed=i)).items():
            covered[metric] += each.low <= truth[metric] <= each.high
    assert truth["top1"] > 0.02
    for metric, count in covered.items():
        assert 0.91 <= count / SIMULATIONS <= 0.98, metric


def test_equal_models_do_not_differ() -> None:
    first, _, label_N = pair(np.random.default_rng(4), 50)
    found = compare(first, first, label_N, draws=50)
    assert {(each.difference, each.low, each.high) for each in found.differences} == {(0.0, 0.0, 0.0)}
    assert found.disagreements == ()
    assert found.mcnemar.p == 1.0


def test_swapping_the_models_changes_the_signs() -> None:
    first, second, label_N = pair(np.random.default_rng(5), 80)
    there, back = compare(first, second, label_N, draws=200), compare(second, first, label_N, draws=200)
    for one, other in zip(there.differences, back.differences, strict=True):
        assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert there.mcnemar.p == back.mcnemar.p


def test_it_is_deterministic_and_json() -> None:
    arrays = pair(np.random.default_rng(6), 40)
    assert compare(*arrays, draws=100) == compare(*arrays, draws=100)
    assert compare(*arrays, draws=100) != compare(*arrays, draws=100, seed=1)
    assert json.loads(json.dumps(compare(*arrays, draws=100).to_dict(), allow_nan=False))["images"] == 40


def test_draws_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = pair(np.random.default_rng(7), 40)
    whole = compare(*arrays, draws=105)
    monkeypatch.setattr("bagoftricks.studies.paired_models.CHUNK", 400)
    parts = compare(*arrays, draws=105)
    for one, other in zip(whole.differences, parts.differences, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_few_deciding_images_are_counted() -> None:
    label_N = np.zeros(40, dtype=int)
    first, second = np.tile([1.0, 0.0], (40, 1)), np.tile([1.0, 0.0], (40, 1))
    first[:3] = [0.0, 1.0]
    assert measures(compare(first, second, label_N, draws=10))["top1"].deciding == 3


# ---- the images on which they differ


def test_disagreements_by_hand() -> None:
    def logits(*rows: tuple[float, float, float]) -> np.ndarray:
        return np.log(np.array(rows))

    first = logits((0.8, 0.1, 0.1), (0.2, 0.7, 0.1), (0.5, 0.4, 0.1), (0.1, 0.2, 0.7))
    second = logits((0.7, 0.2, 0.1), (0.1, 0.3, 0.6), (0.1, 0.8, 0.1), (0.6, 0.1, 0.3))
    found = compare(first, second, [0, 2, 1, 1], draws=10).disagreements
    assert [(each.place, each.label, each.guesses) for each in found] == [
        (1, 2, (1, 2)),  # 0.1 against 0.6 for the true class
        (2, 1, (0, 1)),  # 0.4 against 0.8
        (3, 1, (2, 0)),  # 0.2 against 0.1: both wrong, in different ways
    ]
    assert found[0].probabilities == pytest.approx((0.7, 0.6))
    assert found[0].true_probabilities == pytest.approx((0.1, 0.6))


# ---- refusals


def arrays(members: list[int], labels: list[int] | None = None, k: int = 3) -> dict[str, np.ndarray]:
    label_N = np.array(labels if labels is not None else [m % k for m in members])
    return {"logits": np.zeros((len(members), k)), "labels": label_N, "members": np.array(members)}


def test_images_are_matched_by_number() -> None:
    assert check_pair(arrays([4, 5, 9]), arrays([9, 4, 5])).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (arrays([4, 5, 8]), "3 and 3 images, of which 2 are the same; compare runs of one seed"),
        (arrays([4, 5]), "3 and 2 images, of which 2 are the same"),
        (arrays([4, 5, 9], [0, 0, 0]), "2 of 3 images have another label"),
        (arrays([4, 5, 9], [1, 2, 0], k=4), "the runs know 3 and 4 classes"),
        ({"logits": np.zeros((3, 3))}, "the second run's predictions lack labels, members"),
        (arrays([4, 5, 9]) | {"labels": np.zeros(2, dtype=int)}, "damaged"),
        (arrays([4, 5, 9], [0, 1, 3]), "labels that are no class"),
        (arrays([4, 5, 9]) | {"logits": np.full((3, 3), np.nan)}, "not finite"),
        (arrays([]), "damaged"),
    ],
)
def test_what_cannot_be_compared(second: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        check_pair(arrays([4, 5, 9]), second)
    assert "\n" not in str(error.value)
