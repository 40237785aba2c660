"""The table of tests behind the verdicts holds what the analysis found."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bagoftricks.reports.analysis import study_analysis
from bagoftricks.reports.evidence import evidence_table
from bagoftricks.reports.report import write_report
from bagoftricks.reports.results import read_results
from bagoftricks.studies.design import Study
from tests.reports.test_verdicts import FACTORS, make


def test_every_effect_with_its_tests(tmp_path: Path) -> None:
    study = Study("tiny", factors=FACTORS, seeds=tuple(range(6)))
    root = make(tmp_path, study, {"schedule.decay=cosine": 0.05})
    analysis = study_analysis(read_results(root))
    assert analysis is not None
    table = evidence_table(analysis)
    assert table is not None
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(rows) == len(analysis.effects)
    for row in rows:
        effect = next(effect for effect in analysis.effects if effect.name == row["effect"])
        assert float(row["t"]) == pytest.approx(effect.t, abs=1e-4)
        assert float(row["p_uncorrected"]) == pytest.approx(effect.p, abs=1e-6)
        assert float(row["sign_flips"]) == pytest.approx(effect.sign_flip_p, abs=1e-6)
        assert float(row["floor"]) == 2 / 2**6
        assert float(row["better"]) == pytest.approx(effect.better, abs=1e-4)
        assert float(row["interval_low"]) == pytest.approx(effect.better_low, abs=1e-4)
        assert float(row["equivalence"]) == pytest.approx(effect.equivalence_p_adjusted, abs=1e-6)
    page = write_report(root)
    assert "The tests behind the verdicts" in page.read_text(encoding="utf-8")
    assert (page.parent / "tables" / "evidence.csv").read_text() == table.to_csv()


def test_one_seed_has_no_tests(tmp_path: Path) -> None:
    analysis = study_analysis(read_results(make(tmp_path, Study("tiny", factors=FACTORS, seeds=(0,)), {})))
    assert analysis is not None
    assert evidence_table(analysis) is None
