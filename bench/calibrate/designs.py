"""Designs of simulated studies: cells, contrasts, cell means that give chosen effects. Shapes: C cells, E effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bagoftricks.studies.contrasts import Contrast, find_contrasts, successive_contrasts
from bagoftricks.studies.effects import Analysis, analyse, successive
from bagoftricks.studies.grid import Cell, Levels
from bagoftricks.studies.study_file import load_study
from bagoftricks.studies.verdicts import FAMILIES

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """Cells of a study and the effects that the package takes from them."""

    name: str
    levels: Levels
    """By factor, the reference first; a ladder has the one factor `cell`."""
    cells: tuple[Cell, ...]
    ladder: bool = False

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """The E effects, declared and exploratory, as `analyse` or `successive` orders them."""
        if self.ladder:
            return successive_contrasts("cell", self.levels["cell"])
        return find_contrasts(self.levels, self.cells)[0]

    @cached_property
    def declared(self) -> npt.NDArray[np.bool_]:
        """(E,) whether an effect belongs to the declared family."""
        return np.array([contrast.kind in FAMILIES["main+two-way"] for contrast in self.contrasts])

    @property
    def tests(self) -> int:
        """Size of the declared family."""
        return int(self.declared.sum())

    @cached_property
    def weights(self) -> FloatArray:
        """(E, C) the contrasts' weights."""
        return np.array([[contrast.weights.get(cell, 0.0) for cell in self.cells] for contrast in self.contrasts])

    def sd(self, cell_sd: float = float(np.sqrt(0.5))) -> FloatArray:
        """Returns (E,) the standard deviation of each effect between blocks, where cells vary by `cell_sd` alone."""
        return cell_sd * np.asarray(np.sqrt((self.weights**2).sum(axis=1)))

    def means(self, effects: Sequence[float] | FloatArray) -> FloatArray:
        """Returns (C,) cell means whose contrasts are exactly the given (E,) effects, of least norm."""
        wanted = np.asarray(effects, dtype=np.float64)
        means = np.linalg.pinv(self.weights) @ wanted
        if not np.allclose(self.weights @ means, wanted):
            raise ValueError(f"{self.name}: no cell means have these effects")
        return np.asarray(means)

    def frame(self, values: FloatArray) -> pd.DataFrame:
        """Returns the tidy table of one study from (n, C) results."""
        import pandas as pd

        rows = [
            {**dict(zip(self.levels, cell, strict=True)), "seed": block, "top1": values[block, j]}
            for block in range(len(values))
            for j, cell in enumerate(self.cells)
        ]
        return pd.DataFrame(rows)

    def analyse(self, values: FloatArray, **options: Any) -> Analysis:
        """Returns what the package says of one study of (n, C) results: its public functions, nothing else."""
        frame = self.frame(values)
        if self.ladder:
            return successive(frame, self.levels["cell"], metric="top1", **options)
        return analyse(frame, list(self.levels), "seed", "top1", levels=self.levels, **options)


def factorial(factors: int) -> Design:
    """Returns the full factorial design of factors at two levels."""
    levels = dict.fromkeys("abcdefgh"[:factors], ("0", "1"))
    return Design(f"2^{factors}", levels, tuple(product(*levels.values())))


def ladder(rungs: int) -> Design:
    """Returns a ladder of cells, each compared with the one before it."""
    names = tuple(str(rung) for rung in range(rungs))
    return Design(f"ladder of {rungs}", {"cell": names}, tuple((name,) for name in names), ladder=True)


def paper() -> Design:
    """Returns the 18 cells of the preset `paper`: incomplete, with C and D measured without refinements only."""
    study = load_study("paper")
    levels = {factor: tuple(map(str, all_)) for factor, all_ in study.factors.items()}
    return Design("paper's 18", levels, tuple(tuple(map(str, cell.levels.values())) for cell in study.cells))


DESIGNS: dict[str, Design] = {design.name: design for design in (factorial(2), factorial(3), paper(), ladder(6))}
PAIR = factorial(1)
"""One factor: two cells, one effect."""
