"""Cases on which a fault of an earlier part has no effect on a later one: if both break a law, is it one fault?"""

from collections.abc import Mapping
from typing import Any

from .case import Case, GivenLogits

MOST = 2**16  # logits that are given one by one
TOTALS = ("totals", "gradients", "state", "input")
# By part: the parts that it has an effect on by its result alone, and the settings without that result. Not what both
# compute by the same lines, as objectness and classes do with their criterion.
RESULTS: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "boxes": (("objectness", *TOTALS), {"hyp": {"box": 0.0}, "options": {"gr": 0.0}}),
    "objectness": (TOTALS, {"hyp": {"obj": 0.0}}),
    "classes": (TOTALS, {"hyp": {"cls": 0.0}}),
}


def without(part: str, law: str, case: Case) -> Case | None:
    """The case on which a fault of a part has no effect on what a law of a later part is about; None if there is none.

    There is none for a gradient where another cell is read: it goes to that cell, whatever the logits are.
    """
    later, _, what = law.partition(".")
    if part == "gather":
        of_values = later in ("boxes", "objectness", "classes", "totals", "state", "input") and "gradient" not in what
        return _even(case) if of_values and case.numbers <= MOST else None
    ends, settings = RESULTS.get(part, ((), {}))
    return _with(case, settings) if later in ends else None


def _with(case: Case, settings: Mapping[str, Any]) -> Case:
    return case.changed(**{name: getattr(case, name).model_copy(update=new) for name, new in settings.items()})


def _even(case: Case) -> Case:
    """The case with the same logits in every cell: whichever is read, the result is right."""
    layers = (logits[0, 0, 0, 0].double().expand(logits.shape).reshape(-1).tolist() for logits in case.logits)
    return case.changed(predictions=GivenLogits(layers=tuple(map(tuple, layers))))
