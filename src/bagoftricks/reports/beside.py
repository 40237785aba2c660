"""A one-at-a-time study in fewer words: every effect is beside the baseline, and no two changes are seen together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bagoftricks.studies.contrasts import NotEstimable
from bagoftricks.studies.effects import Analysis
from bagoftricks.studies.mixed import Secondary

TOGETHER = NotEstimable("interactions", "each cell changes one factor alone")


def beside_the_baseline(analysis: Analysis) -> Analysis:
    """Returns the analysis without what the design says of every effect: which levels the other factors were at, and
    that it shows none beside another.
    """
    names = {effect.name: effect.name.partition(" | ")[0] for effect in analysis.effects if effect.bare}
    if len(set(names.values())) < len(names):  # which would be one name for two
        return analysis
    effects = [
        replace(effect, name=names[effect.name], given={}) if effect.bare else effect for effect in analysis.effects
    ]
    fit = analysis.fit

    def secondary() -> Secondary | None:
        model = fit() if fit else None
        if model is None:
            return None
        fitted = tuple(replace(effect, name=names.get(effect.name, effect.name)) for effect in model.effects)
        return replace(model, effects=fitted, not_estimable=_told_once(model.not_estimable))

    return replace(
        analysis,
        effects=tuple(effects),
        not_estimable=_told_once(analysis.not_estimable),
        fit=secondary if fit else None,
    )


def _told_once(missing: Sequence[NotEstimable]) -> tuple[NotEstimable, ...]:
    """Returns the list with one entry in place of those of two factors."""
    single = tuple(one for one in missing if " x " not in one.name)
    return (*single, TOGETHER) if len(single) < len(missing) else single
