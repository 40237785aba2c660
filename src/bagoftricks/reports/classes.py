"""What the best cell gets right and wrong, class by class: tables, confusion matrix, calibration, worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bagoftricks.data.check import shown
from bagoftricks.reports.charts import Chart
from bagoftricks.reports.classcharts import accuracy_chart, confusion_chart, reliability_chart
from bagoftricks.reports.guard import CHECK, MISTAKES, check_shape
from bagoftricks.reports.mistakes import Mistake, mistakes, notes_on_mistakes
from bagoftricks.reports.results import HEADINGS, Results
from bagoftricks.reports.tables import Entry, Table, plain_entry
from bagoftricks.store import Store
from bagoftricks.studies.best import HeldOut, best_cell, candidates, common_seeds, read_held_out
from bagoftricks.studies.classwise import (
    FOLDS,
    Calibration,
    Floats,
    Ints,
    Pair,
    calibration,
    confused_pairs,
    confusion,
    per_class,
    reliability,
)
from bagoftricks.study_folder import read_data_check, read_mistakes
from bagoftricks.training.calibration import BINS

MOST_PAIRS = 20


@dataclass(frozen=True)
class ClassParts:
    """What a report shows of classes."""

    cell: str
    """The cell described: the one with the best mean of the primary metric."""
    notes: tuple[str, ...]
    """Plain sentences: which cell, how many seeds, and what the figures are not."""
    tables: tuple[Table, ...]
    """Per class; the pairs most confused; calibration."""
    charts: tuple[Chart, ...]
    """Confusion matrix; reliability diagram; accuracy of each class."""
    mistakes: tuple[Mistake, ...]


def class_parts(results: Results) -> ClassParts | None:
    """Returns what a report shows of classes: of the best cell's first 20 runs; None where they have no predictions."""
    if not results.done:
        return None
    metric = results.metric
    values = {(run.cell, run.seed): float(run.result[metric]) for run in results.done}
    cell = best_cell(values)
    store, rows = Store(results.root), results.of_cell(cell)
    runs = read_held_out(store, [(row.id, row.seed) for row in rows])
    if not runs:
        return None
    names = class_names(results, runs[0].logits_NK.shape[1])
    counts_SKK = np.stack([confusion(run.label_N, run.logits_NK.argmax(axis=1), len(names)) for run in runs])
    counts_KK: Ints = counts_SKK.sum(axis=0)
    recall_SK = np.stack([_recall(counts) for counts in counts_SKK])
    tables = [per_class_table(counts_SKK, names)]
    charts = [confusion_chart(counts_KK, names)]
    if pairs := confused_pairs(counts_KK, MOST_PAIRS):
        tables.append(pairs_table(pairs, counts_KK, names))
    fits = [
        calibration(run.logits_NK, run.label_N)
        for run in runs
        if len(run.label_N) >= FOLDS and (run.logits_NK.argmax(axis=1) != run.label_N).any()
    ]
    if fits:
        tables.append(calibration_table(fits))
        charts.append(_reliability(fits))
    charts.append(accuracy_chart(counts_KK, recall_SK, names))
    if (kept := read_mistakes(results.root)) is not None:
        kept = check_shape(kept, MISTAKES, store.mistakes)
    notes = _notes(results, cell, metric, values, runs) + notes_on_mistakes(kept, cell)
    if left := len(runs) - len(fits):
        which = "No run tells" if not fits else f"{left} of {len(runs)} runs do not tell"
        notes.append(
            f"{which} how sure the model may be: every guess is right, or there are fewer than {FOLDS} images."
        )
    return ClassParts(cell, tuple(notes), tuple(tables), tuple(charts), mistakes(kept))


def class_names(results: Results, num_classes: int) -> list[str]:
    """Returns a name for each class, all different; "class 12" where a folder of an earlier version has none."""
    found = read_data_check(results.root)
    counts = check_shape(found, CHECK, Store(results.root).data_check)["counts"] if found else {}
    for names in (results.plan["data"].get("class_names", ()), counts):
        shown_names = [shown(str(name)) for name in names]
        if len(set(shown_names)) == len(shown_names) == num_classes:
            return shown_names
    return [f"class {k}" for k in range(num_classes)]


def per_class_table(counts_SKK: Ints, names: Sequence[str]) -> Table:
    """Every class, the weakest recall first, below the mean over classes.

    Args:
        counts_SKK: (S, K, K) confusions of each of S seeds.
        names: (K,) class names.
    """
    counts_KK = counts_SKK.sum(axis=0)
    pooled = per_class(counts_KK)
    recall_SK = np.stack([_recall(counts) for counts in counts_SKK])
    macro = np.array([per_class(counts).macro() for counts in counts_SKK])
    total = int(pooled.support.sum())
    rows = [
        (
            plain_entry("mean of classes"),
            *(_over_seeds(macro[:, i]) for i in range(3)),
            plain_entry(str(total)),
            Entry("", {"": "", "share": ""}),
        )
    ]
    for k in sorted(np.flatnonzero(pooled.support).tolist(), key=lambda k: (pooled.recall[k], -pooled.support[k])):
        rows.append(
            (
                plain_entry(names[k]),
                _figure(pooled.precision[k]),
                _over_seeds(recall_SK[:, k], pooled.recall[k]),
                _figure(pooled.f1[k]),
                plain_entry(str(pooled.support[k])),
                _taken_for(counts_KK, k, names),
            )
        )
    seeds = "one seed" if len(counts_SKK) == 1 else f"{len(counts_SKK)} seeds"
    note = (
        f"Validation images of {seeds} taken together; support counts an image once for each seed that held it out. "
        "Recall is the class's accuracy, and its mean is the mean per-class accuracy. The first row is the mean over "
        "classes within each seed."
    )
    if len(counts_SKK) > 1:
        note += " ±: standard deviation over seeds."
    columns = ("Class", "Precision", "Recall", "F1", "Support", "Most often taken for")
    return Table("classes", "Every class", note, columns, tuple(rows))


def pairs_table(pairs: Sequence[Pair], counts_KK: Ints, names: Sequence[str]) -> Table:
    """The pairs of classes most often taken for each other."""
    mistakes = int(counts_KK.sum() - np.trace(counts_KK))
    rows = tuple(
        (
            Entry(f"{names[p.first]} and {names[p.second]}", {"first": names[p.first], "second": names[p.second]}),
            plain_entry(str(p.total)),
            _count(p.first_for_second, int(counts_KK[p.first].sum())),
            _count(p.second_for_first, int(counts_KK[p.second].sum())),
            Entry(f"{p.share:.1%}", {"": f"{p.share:.4f}"}),
        )
        for p in pairs
    )
    covered = sum(pair.total for pair in pairs) / mistakes
    note = (
        f"The pairs with most mistakes, both ways together; of all {mistakes:,} mistakes these are {covered:.0%}. "
        "Share: of the two classes' images, those taken for the other class."
    )
    columns = ("Pair", "Mistakes", "First for second", "Second for first", "Share")
    return Table("confused-pairs", "Classes most confused", note, columns, rows)


def calibration_table(fits: Sequence[Calibration]) -> Table:
    """Calibration before and after temperature scaling: mean and standard deviation over runs."""
    headings = {
        "ece": f"Calibration error, {BINS} bins of equal width (ECE)",
        "ace": f"Calibration error, {BINS} bins of equally many images",
        "chance": "ECE that chance gives to exact probabilities",
        "nll": "Negative log-likelihood",
        "brier": "Brier score (0 to 2)",
    }
    temperature = np.array([fit.temperature for fit in fits])
    rows = [(plain_entry("Temperature"), Entry("1", {"mean": "1", "sd": ""}), _over_seeds(temperature))]
    for name, heading in headings.items():
        before, after = (
            np.array([side[name] for side in sides]) for sides in zip(*((f.before, f.after) for f in fits), strict=True)
        )
        rows.append((plain_entry(heading), _over_seeds(before), _over_seeds(after)))
    mean = float(temperature.mean())
    tendency = "too sure of itself" if mean > 1 else "not sure enough of itself"
    whose = "Mean ± standard deviation over runs. " if len(fits) > 1 else "Of one run. "
    note = (
        f"{whose}The temperature divides the logits and changes no guess; {mean:.2f} says that the model was "
        f"{tendency}. Figures after scaling are of images that the temperature was not fitted on ({FOLDS} folds). "
        "Lower is better; an ECE near the one that chance gives cannot be told from 0."
    )
    return Table(
        "calibration", "Calibration", note, ("Measure", "As trained", "After temperature scaling"), tuple(rows)
    )


def _reliability(fits: Sequence[Calibration]) -> Chart:
    right_N = np.concatenate([fit.right_N for fit in fits])
    before, after = (
        reliability(np.concatenate(sides), right_N)
        for sides in ([fit.confidence_N for fit in fits], [fit.scaled_N for fit in fits])
    )
    return reliability_chart(before, after)


def _recall(counts_KK: Ints) -> Floats:
    """(K,) recall, NaN for a class without images."""
    figures = per_class(counts_KK)
    return np.where(figures.support > 0, figures.recall, np.nan)


def _figure(value: float) -> Entry:
    return Entry(f"{value:.3f}", {"mean": f"{value:.4f}", "sd": ""})


def _over_seeds(values: Floats, mean: float | None = None) -> Entry:
    """A mean with its standard deviation over the seeds that have the figure."""
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if mean is None else float(mean)
    sd = float(known.std(ddof=1)) if len(known) > 1 else None
    text = f"{mean:.3f}" + ("" if sd is None else f" ± {sd:.3f}")
    return Entry(text, {"mean": f"{mean:.4f}", "sd": "" if sd is None else f"{sd:.4f}"})


def _count(count: int, of: int) -> Entry:
    return Entry(f"{count} of {of}" if of else "no images", {"": str(count), "of": str(of)})


def _taken_for(counts_KK: Ints, k: int, names: Sequence[str]) -> Entry:
    others = counts_KK[k].copy()
    others[k] = 0
    if not others.any():
        return Entry("–", {"": "", "share": ""})
    worst = int(others.argmax())
    share = others[worst] / counts_KK[k].sum()
    return Entry(f"{names[worst]} ({share:.0%})", {"": names[worst], "share": f"{share:.4f}"})


def _notes(
    results: Results, cell: str, metric: str, values: Mapping[tuple[str, int], float], runs: Sequence[HeldOut]
) -> list[str]:
    done = len(results.of_cell(cell))
    pairs = candidates(values)
    seeds = common_seeds(pairs)
    over = f"over {len(seeds)} seeds" if len(seeds) > 1 else "on one seed" if seeds else "over its own seeds"
    if 0 < len(seeds) < done:
        over += f" that every cell{'' if len(pairs) == len(values) else ' with half of them or more'} has"
    images = sum(len(run.label_N) for run in runs)
    taken = (
        f"its {done} runs" if len(runs) == done > 1 else f"{len(runs)} of its {done} runs" if done > 1 else "its run"
    )
    notes = [
        f"Everything here is of {cell}, the cell with the best mean {HEADINGS[metric]} {over}.",
        f"It counts {images:,} predictions, of {taken}, each for the images that it did not train on.",
    ]
    if len({name for name, _ in values}) > 1:
        notes.append(
            "The cell was chosen by these same images, so its figures are slightly flattering; "
            "`tricks test` on a locked test set has no such advantage."
        )
    return notes
