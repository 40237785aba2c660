"""Verdicts: an effect, what may be said of it, and the sentence that says it.

The declared family (main effects and two-way interactions, or the steps of a ladder) is corrected by Holm, once for the
differences and once for the equivalences, each bounded by alpha; the rest is exploratory, corrected by
Benjamini-Hochberg.

| verdict                | when, with p corrected, from five blocks on                                         |
|------------------------|-------------------------------------------------------------------------------------|
| helps, hurts           | a difference from 0 is shown, and it may reach the margin                           |
| negligible             | a difference from 0 is shown, and so is that it lies inside the margin              |
| practically equivalent | no difference is shown, but that it lies inside the margin is                       |
| inconclusive           | neither is shown                                                                    |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bagoftricks.errors import UserError
from bagoftricks.studies.inference import benjamini_hochberg, detectable, holm, seeds_needed

SEEDS_FOR_VERDICT = 5
"""Below this there is no verdict."""
OFF = frozenset({"0", "0.0", "false", "no", "none", "off", "constant"})
"""Levels that leave a refinement off."""
FAMILIES: Mapping[str, frozenset[str]] = {
    "main+two-way": frozenset({"main", "interaction", "successive"}),
    "main": frozenset({"main", "successive"}),
    "all": frozenset({"main", "interaction", "successive", "simple", "simple interaction"}),
}
"""Kinds of contrast that are declared, and so corrected by Holm."""


@dataclass(frozen=True)
class Settings:
    """What was asked."""

    metric: str
    block: str
    higher_is_better: bool
    margin: float
    """A difference smaller than this does not matter; in the effects' units."""
    alpha: float
    family: str
    unit: str
    """Effects are in percentage points ("points") or in the metric's own unit ("raw")."""
    test_train_ratio: float | None
    """Test over training images, for the Nadeau-Bengio correction; None where all blocks share one split."""


@dataclass(frozen=True)
class Effect:
    """One contrast over the blocks, in points or the metric's own unit; None where there are too few blocks."""

    kind: str
    name: str
    titles: tuple[str, ...]
    """The factors, for people."""
    factors: tuple[str, ...]
    levels: tuple[tuple[str, str], ...]
    """For each factor, its level and the reference; the effect is the first minus the second."""
    given: Mapping[str, str]
    """Other factors that the effect holds for at one level only."""
    bare: bool
    """Whether those levels are the references: "without" the other factors."""
    over: Mapping[str, tuple[str, ...]]
    combinations: int
    possible: int
    cells: tuple[tuple[str, ...], ...] = field(repr=False)
    """What it is computed from: the level of each factor of the study, in the study's order."""
    n: int
    """Blocks that have every run needed."""
    blocks: tuple[str, ...]
    left_out: tuple[str, ...]
    """Blocks that lack one."""
    differences: tuple[float, ...]
    """In each of `blocks`."""
    settings: Settings
    declared: bool = False
    tests: int = 1
    """Size of its family."""
    estimate: float | None = None
    sd: float | None = None
    """Standard deviation of the differences."""
    low: float | None = None
    high: float | None = None
    """The 1 - alpha interval, for this effect alone."""
    t: float | None = None
    """None where the differences are all equal but not zero."""
    p: float | None = None
    p_adjusted: float | None = None
    """After Holm (declared) or Benjamini-Hochberg (exploratory)."""
    sign_flip_p: float | None = None
    sign_flip_floor: float | None = None
    sign_flip_exact: bool = True
    d_z: float | None = None
    better: float | None = None
    """P(better): the share of blocks in which the level is better than its reference; a tie counts half."""
    better_low: float | None = None
    better_high: float | None = None
    """Its Wilson interval."""
    equivalence_p: float | None = None
    """Two one-sided tests against the margin."""
    equivalence_p_adjusted: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    corrected_p: float | None = None
    """Nadeau and Bengio's: for claims about new data of the same kind; not adjusted."""
    detectable: float | None = None
    """The smallest effect that these blocks find with 80 % power at Holm's first step, at this sd."""
    seeds_for_estimate: int | None = None
    seeds_for_margin: int | None = None
    """Blocks that would find an effect of the estimate's size, or the margin's, likewise; None where 0 or too many."""
    verdict: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def correction(self) -> str:
        return "Holm" if self.declared else "Benjamini-Hochberg"


def judge(effects: Sequence[Effect], declared: bool, lost: int = 0) -> list[Effect]:
    """Returns the effects of one family with p corrected, a verdict, and what could settle it.

    What could not be tested stays in the family: it was declared before the runs failed. So do the `lost` effects that
    the design has and its finished runs have not, or only as simple ones.
    """
    correct = holm if declared else benjamini_hochberg
    tests = len(effects) + lost
    p = correct([1.0 if e.p is None else e.p for e in effects] + [1.0] * lost)
    equivalence = correct([1.0 if e.equivalence_p is None else e.equivalence_p for e in effects] + [1.0] * lost)
    judged = []
    for i, effect in enumerate(effects):
        effect = replace(effect, declared=declared, tests=tests)
        if effect.p is not None:
            effect = replace(effect, p_adjusted=float(p[i]), equivalence_p_adjusted=float(equivalence[i]))
            effect = replace(_plan(effect), verdict=_verdict(effect))
        judged.append(effect)
    return judged


def _plan(effect: Effect) -> Effect:
    """Returns the effect with what these blocks could find, and how many would find it or the margin."""
    if not effect.sd:  # nothing to go by
        return effect
    sd, tests, alpha = effect.sd, effect.tests, effect.settings.alpha

    def seeds(points: float | None) -> int | None:
        try:
            return max(SEEDS_FOR_VERDICT, seeds_needed(points or 0.0, sd, tests=tests, alpha=alpha))
        except UserError:  # no effect to be found, or more seeds than anybody has
            return None

    return replace(
        effect,
        detectable=detectable(effect.n, sd, tests=tests, alpha=alpha),
        seeds_for_estimate=seeds(effect.estimate),
        seeds_for_margin=seeds(effect.settings.margin),
    )


def _verdict(effect: Effect) -> str | None:
    if effect.n < SEEDS_FOR_VERDICT or effect.p_adjusted is None or effect.equivalence_p_adjusted is None:
        return None
    inside = effect.equivalence_p_adjusted <= effect.settings.alpha
    if effect.p_adjusted > effect.settings.alpha:
        return "practically equivalent" if inside else "inconclusive"
    if inside:
        return "negligible"
    return "helps" if ((effect.estimate or 0) > 0) == effect.settings.higher_is_better else "hurts"


def plain(factor: str) -> str:
    """Returns a column's or recipe field's name for people: "label_smoothing.amount" is "label smoothing"."""
    for strength in (".amount", ".alpha"):
        factor = factor.removesuffix(strength)
    return factor.replace("_", " ").replace(".", " ")


def sentence(effect: Effect) -> str:
    """Returns what may be said of an effect, in one plain sentence."""
    subject, block = _subject(effect), effect.settings.block
    withheld = f"{subject.removesuffix(',')}: verdict withheld"
    if effect.n == 0:
        return f"{withheld}, no {block} has every run that it needs."
    if effect.verdict is None:
        alone = f"{_points(effect, effect.estimate)} in 1 {block}, without an interval"
        facts = _facts(effect) if effect.n > 1 else alone
        return f"{withheld}, {facts}; it needs {_wanting(effect)}."
    return f"{subject} {_says(effect)}: {_facts(effect)}{_outlook(effect)}."


def _wanting(effect: Effect) -> str:
    """Says what a verdict still needs: runs that blocks of the study lack, or more blocks."""
    more, block = SEEDS_FOR_VERDICT - effect.n, effect.settings.block
    lacking = min(more, len(effect.left_out))
    lacked = f"the runs that {lacking} {block}{'s lack' if lacking > 1 else ' lacks'}" if lacking else ""
    new = f"{more - lacking} more {block}{'s' if more - lacking > 1 else ''}" if more > lacking else ""
    return " and ".join(filter(None, (lacked, new)))


def tag(effect: Effect) -> str:
    """Returns the verdict as it stands beside figures; of an interaction, whether two do more or less together."""
    if effect.verdict is None:
        return "withheld"
    together = {"helps": "more together", "hurts": "less together"} if "interaction" in effect.kind else {}
    return together.get(effect.verdict, effect.verdict)


def _says(effect: Effect) -> str:
    """The verdict as a verb."""
    if "interaction" not in effect.kind:
        return {
            "helps": "helps",
            "hurts": "hurts",
            "negligible": "makes a real but negligible difference",
            "practically equivalent": "makes no practical difference",
            "inconclusive": "is inconclusive",
        }[effect.verdict or ""]
    return {
        "helps": "do more together than apart",
        "hurts": "do less together than apart",
        "negligible": "change each other's effect negligibly",
        "practically equivalent": "add up, without a practical change of each other's effect",
        "inconclusive": "may or may not change each other's effect (inconclusive)",
    }[effect.verdict or ""]


def _subject(effect: Effect) -> str:
    """Names what was compared, as in "Label smoothing (0.1 against 0.0)", and what a simple effect is limited to."""
    if effect.kind == "successive":
        (after, before), *_ = effect.levels
        return f"The step from {before} to {after}"
    parts = [f"{t} ({a} against {b})" for t, (a, b) in zip(effect.titles, effect.levels, strict=True)]
    text = " and ".join(parts)
    if effect.given:
        held = ", ".join(f"{plain(factor)} = {level}" for factor, level in effect.given.items())
        text += f", {_without(effect)} ({held}),"
    return text[:1].upper() + text[1:]


def _without(effect: Effect) -> str:
    """What a simple effect is limited to, in the project's words where the other factors are refinements left off."""
    off = all(level.lower() in OFF for level in effect.given.values())
    if effect.bare and off and not any(factor.startswith("model.") for factor in effect.given):
        return "without refinements"
    return "with the other factors at their first level only" if effect.bare else "at one level of other factors only"


def _facts(effect: Effect) -> str:
    """Gives the figures: "+1.2 points (95 % interval 0.4 to 2.0, n = 10 seeds, p = 0.012 after Holm)"."""
    settings = effect.settings
    span = f"{_number(effect, effect.low)} to {_number(effect, effect.high)}"
    interval = "no interval" if effect.low is None else f"{100 * (1 - settings.alpha):g} % interval {span}"
    text = f"{_points(effect, effect.estimate)} ({interval}"
    text += f", n = {effect.n} {settings.block}s, {_p(effect.p_adjusted)} after {effect.correction}"
    return text + ("" if effect.declared else ", exploratory") + ")"


def _outlook(effect: Effect) -> str:
    """What the margin says, or what would settle it."""
    margin = f"{effect.settings.margin:g}{' points' if effect.settings.unit == 'points' else ''}"
    if effect.verdict in ("negligible", "practically equivalent"):
        return f"; it is smaller than {margin} either way ({_p(effect.equivalence_p_adjusted)})"
    if effect.verdict != "inconclusive":
        return ""
    text = ""
    if effect.p is not None and effect.p <= effect.settings.alpha:
        text = f"; alone it would be shown, but it is one of {effect.tests} effects"
    sizes = []
    if effect.seeds_for_estimate and abs(effect.estimate or 0) > effect.settings.margin:
        sizes.append(f"{effect.seeds_for_estimate:,} {effect.settings.block}s an effect of this size")
    if effect.seeds_for_margin:
        sizes.append(f"{effect.seeds_for_margin:,} {effect.settings.block}s one of {margin}")
    return f"{text}; a new study would find with about {', with about '.join(sizes)}" if sizes else text


def _p(value: float | None) -> str:
    return "p < 0.001" if value is not None and value < 0.001 else f"p = {value or 0:.3f}"


def _points(effect: Effect, value: float | None) -> str:
    number = _number(effect, value)
    signed = number if number.startswith("-") else f"+{number}"
    return f"{signed} points" if effect.settings.unit == "points" else signed


def _number(effect: Effect, value: float | None) -> str:
    """One decimal, two where the interval is narrower than a point; never "-0.0"."""
    if effect.settings.unit == "raw":
        return f"{value or 0:.3g}"
    narrow = effect.low is not None and effect.high is not None and effect.high - effect.low < 1
    text = f"{value or 0:.{2 if narrow else 1}f}"
    return text.lstrip("-") if float(text) == 0 else text
