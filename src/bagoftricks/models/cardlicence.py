"""The licence section of a model card: what follows from the licences of the weights that the model came from."""

from __future__ import annotations

from bagoftricks.models.cardfacts import CardFacts
from bagoftricks.models.cardtext import consequence, markdown
from bagoftricks.models.published import UNKNOWN

SCRATCH = "scratch"


def licence(facts: CardFacts) -> str:
    """Returns the section as Markdown."""
    digest = f", sha256 {markdown(facts.init_sha256)}" if facts.init_sha256 else ""
    source = f"The initial weights are {markdown(facts.init)}{digest}. "
    return _licence_of_weights(facts, source) + _licence_of_teacher(facts)


def _licence_of_teacher(facts: CardFacts) -> str:
    """Says what may follow from the licence of the teacher's weights; "" where there was none that binds."""
    if not facts.teacher_licence:
        return ""
    teacher = markdown(facts.teacher) if facts.teacher else "a teacher of its initial weights"
    terms = facts.teacher_licence
    known = "of a licence that nobody knows" if terms == UNKNOWN else f"under {markdown(terms)}"
    return (
        f"\n\nIt learnt from {teacher}, which comes from weights {known}. Whether that "
        "licence reaches a network that learnt from their guesses is not settled: ask before you publish it."
    )


def _licence_of_weights(facts: CardFacts, source: str) -> str:
    if not facts.licence:
        free = "Trained from scratch, so that no other weights' licence binds these."
        if facts.init != SCRATCH:
            free = (
                f"{source}Their file says that they inherited no licence; what their own maker asks it does not say: "
                "if that is not you, ask."
            )
        return (
            f"## Licence\n\n{free} None has been chosen for these weights yet: before you publish them, choose one, as "
            "far as the images' own terms allow, and write it into `license` at the top of this file, which has to go "
            "with them: `model.safetensors` says only what was inherited."
        )
    if facts.licence == UNKNOWN:
        return (
            f"## Licence\n\n{source}Their licence is unknown. These weights are derived from them: until you know it, "
            "do not pass them on. Ask where the file came from, or train again from weights whose licence is "
            "known (`tricks weights` lists them)."
        )
    return (
        f"## Licence\n\n{source}Their licence is {markdown(facts.licence)}, and these weights are derived from them. "
        f"{consequence(facts.licence)} The images that the initial weights were trained on may have terms of their "
        "own: ImageNet's allow research only."
    )
