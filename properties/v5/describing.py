"""What a finding says in words: a title that names what differs, and the numbers of the assignment worked out."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from yololoss.harness.subjects.family import Wrong
from yololoss.harness.subjects.outcome import Grid, Outcome

from .budget import Budget
from .case import Case
from .dialects import Dialect
from .drawing import CHANNELS, valid
from .items import OF_RIGHT_TOTAL
from .reference import SHIFTS, Assignment, Reference

CHOICES = ("own", "left", "above", "right", "below")
BESIDE = {"left": "to the left of", "above": "above", "right": "to the right of", "below": "below"}
SETTINGS = 2  # names of settings in a title

Row = tuple[float, ...]  # image, anchor, grid row, grid column, class, x, y, w, h, the anchor's sides


class Difference(NamedTuple):
    """The rows of one layer that only the reference has, or only the loss."""

    layer: int
    lacking: list[Row]
    extra: list[Row]


def title(wrong: Wrong, case: Case, outcome: Outcome | None, dialect: Dialect, otherwise: str) -> str:
    """What is wrong, in a sentence, with the settings that the case needs."""
    reference = Reference(case, dialect)
    of_case = (_of_rows(wrong, reference, outcome) or _not_finite(wrong, reference)) if valid(reference) else None
    numbers = _of_numbers(wrong)
    if numbers and outcome is not None:
        numbers += _beside(wrong.law, outcome, case, dialect)
    what = of_case or numbers or otherwise
    settings = [line for line in str(case).splitlines() if re.match(r"\w+ = ", line)]
    return what + (f", with {' and '.join(settings)}" if 0 < len(settings) <= SETTINGS else "")


def worked_out(case: Case, outcome: Outcome | None, dialect: Dialect) -> Iterator[str]:
    """The assignment in numbers: what each target matches, its cells, and where the loss differs.

    If it differs, only the layers on which it does. Nothing of a case that is no valid input.
    """
    reference = Reference(case, dialect)
    if not valid(reference):
        return
    different = {each.layer: each for each in _differences(reference, outcome)}
    for i, layer in enumerate(reference.assignments):
        if i in different:
            yield from _layer(case, i, layer, different[i], None)
        elif not different:
            predicted = None if dialect.taken else [*_predicted(reference, i)]
            yield from _layer(case, i, layer, Difference(i, [], []), predicted)


def _predicted(reference: Reference, i: int) -> Iterator[str]:
    """What each row of a layer predicts, and how well it fits."""
    part = reference.row_parts[i]
    for (x, y, w, h), overlap in zip(reference.all_predicted.box[part], reference.overlaps[i], strict=True):
        yield f"; predicted {_pair(x, y)}, {_sides(w, h)}: overlap {overlap:.6g}"


def _layer(case: Case, i: int, layer: Assignment, different: Difference, predicted: list[str] | None) -> Iterator[str]:
    lacking, extra = Counter(different.lacking), Counter(different.extra)
    rows = layer.rows.whole
    left = Counter(rows)
    for target, anchor in np.ndindex(len(case.targets), len(case.anchors[i])):
        x, y, w, h = (float(v) for v in layer.scaled[target])
        aw, ah = case.anchors[i][anchor]
        ratio = max(w / aw, aw / w, h / ah, ah / h) if w > 0 and h > 0 else np.inf
        holds = "matches" if layer.matched[anchor, target] else "no match"
        yield (
            f"layer {i}, target {target}, anchor {anchor}: centre {_pair(x, y)}, sides {_sides(w, h)}, "
            f"largest ratio {ratio:.6g}, limit {case.hyp.anchor_t:g}: {holds}"
        )
        for n in np.flatnonzero((layer.pair_target[layer.row_pair] == target) & (layer.rows.anchor == anchor)):
            choice, row = CHOICES[layer.row_choice[n]], rows[n]
            # of equal rows, a missing clamp moves the first away, and a missing neighbour is the last
            missing = lacking[row] > 0 and (bool(different.extra) or lacking[row] >= left[row])
            lacking[row] -= missing
            left[row] -= 1
            there = np.trunc(np.array((x, y), np.float32) + SHIFTS[layer.row_choice[n]])
            clamped = (
                "" if (row[3], row[2]) == tuple(there) else f", clamped from row {there[1]:g}, column {there[0]:g}"
            )
            text = f"  {_cell(row)}, {choice}{clamped}: centre {_pair(row[5], row[6])} from its corner"
            yield text + (": not built" if missing else "" if predicted is None else predicted[n])
    for row in extra.elements():
        centre = f"centre {_pair(row[5], row[6])} from its corner, sides {_sides(row[7], row[8])}"
        yield f"  {_cell(row)}: {centre}: built, not expected"


def _place(row: Row) -> str:
    return f"row {row[2]:g}, column {row[3]:g}"


def _cell(row: Row) -> str:
    return f"cell at {_place(row)}"


def _pair(x: float, y: float) -> str:
    return f"({x:.6g}, {y:.6g})"


def _sides(w: float, h: float) -> str:
    return f"{w:.6g} x {h:.6g}"


def _differences(reference: Reference, outcome: Outcome | None) -> Iterator[Difference]:
    if outcome is None or outcome.rows is None or len(outcome.rows) != reference.case.layers:
        return
    for i, (wanted, built) in enumerate(zip(reference.rows, outcome.rows, strict=True)):
        want, got = Counter(wanted.whole), Counter(built.whole)
        if want != got:
            yield Difference(i, [*(want - got).elements()], [*(got - want).elements()])


def _of_rows(wrong: Wrong, reference: Reference, outcome: Outcome | None) -> str | None:
    """A title from the first row that differs, for a law about rows."""
    first = next(_differences(reference, outcome), None) if wrong.law.startswith("assign.") else None
    if first is None:
        return None
    case, layer = reference.case, reference.assignments[first.layer]
    in_cell = {got[:4]: got for got in first.extra}  # of that image and anchor
    for want in first.lacking:
        if want[:4] in in_cell:
            return _other_row(want, in_cell[want[:4]])
    if first.lacking and first.extra:
        want = first.lacking[0]
        moved = next((got for got in first.extra if (got[0], got[1], got[4]) == (want[0], want[1], want[4])), None)
        if moved is not None:
            return f"A row is in the {_cell(moved)}, not at {_place(want)}{_edge(case, first.layer, want)}"
        other = next((got for got in first.extra if (got[2:4], got[5:9]) == (want[2:4], want[5:9])), None)
        if other is not None:
            return _of_other(want, other)
    if first.lacking:
        return _lacking(case, first, layer)
    return _extra(case, first, layer)


def _of_other(want: Row, got: Row) -> str:
    """Both rows have one box, in one cell."""
    other = [(name, got[n], want[n]) for name, n in (("image", 0), ("anchor", 1), ("class", 4)) if got[n] != want[n]]
    has, should = (" and ".join(f"{name} {pair[which]:g}" for name, *pair in other) for which in (0, 1))
    return f"A row is of {has}, not of {should}"


def _other_row(want: Row, got: Row) -> str:
    """Both rows are of one cell and anchor."""
    if want[4] != got[4]:
        return f"A row has class {got[4]:g} and not {want[4]:g}"
    off = np.subtract(got[5:7], want[5:7])
    if off.any():
        how = "from another cell" if (off == np.round(off)).all() else f"off by {_pair(*off)} cells"
        return f"The centre of a row's box is {_pair(*got[5:7])} and not {_pair(*want[5:7])}: taken {how}"
    if want[7:9] != got[7:9]:
        return f"The sides of a row's box are {_sides(*got[7:9])} cells and not {_sides(*want[7:9])}"
    return f"A row has an anchor of {_sides(*got[9:11])} cells and not {_sides(*want[9:11])}"


def _edge(case: Case, layer: int, row: Row) -> str:
    """Where the centre of the row's target is, if that is an end of the grid."""
    height, width = case.grids[layer]
    x, y = row[3] + row[5], row[2] + row[6]
    sides = [
        name
        for name, there in (("left", x <= 0), ("right", x >= width), ("upper", y <= 0), ("lower", y >= height))
        if there
    ]
    return f", for a target on the {' and '.join(sides)} edge" if sides else ""


def _lacking(case: Case, first: Difference, layer: Assignment) -> str:
    rows = layer.rows.whole
    row = first.lacking[0]
    n = max(m for m, mine in enumerate(rows) if mine == row)  # of equal rows, the last one is lacking
    pair = layer.row_pair[n]
    edge = _edge(case, first.layer, row)
    if not Counter(rows[m] for m in np.flatnonzero(layer.row_pair == pair)) - Counter(first.lacking):
        limit = f"the limit is {case.hyp.anchor_t:g}"
        return f"A target and an anchor with a ratio of {_ratio(row):.6g} get no row: {limit}{edge}"
    choice = CHOICES[layer.row_choice[n]]
    if choice == "own":
        return f"The cell that holds the centre of a target gets no row{edge}"
    return f"The cell {BESIDE[choice]} the centre of a target gets no row{edge}"


def _extra(case: Case, first: Difference, layer: Assignment) -> str:
    row = first.extra[0]
    rows = layer.rows.whole
    if row in rows:
        return f"The {_cell(row)}, gets a row twice{_edge(case, first.layer, row)}"
    same = [mine for mine in rows if (mine[0], mine[1], mine[4]) == (row[0], row[1], row[4])]
    if not same:
        ratio = _ratio(row)
        return f"A target and an anchor with a ratio of {ratio:.6g} get a row: the limit is {case.hyp.anchor_t:g}"
    centre = row[3] + row[5], row[2] + row[6]
    return f"The {_cell(row)}, gets a row for a centre at {_pair(*centre)}{_edge(case, first.layer, row)}"


def _ratio(row: Row) -> float:
    w, h, aw, ah = row[7:11]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.divide((w, aw, h, ah), (aw, w, ah, h))
    return float(np.max(ratios))


def _not_finite(wrong: Wrong, reference: Reference) -> str | None:
    """A title for a NaN or an infinity."""
    if wrong.law not in ("totals.finite", "gradients.finite"):
        return None
    sides = np.float32(reference.all_predicted.box[:, 2:]) == 0
    if not sides.any():
        sides = reference.all_predicted.box[:, 2:] < 1e-6 * reference.all_anchors
    flat = " and ".join(name for axis, name in enumerate(("width", "height")) if sides[:, axis].any())
    where = ""
    if wrong.kind == "fits":
        where = " where a box fits its target exactly"
    elif wrong.kind == "box" and flat:
        where = f" where a predicted box has no {flat}"
    what = re.sub(r"^layer \d+, | at image, .*| of call \d+.*", "", wrong.what)
    return f"The {what} is {'NaN' if wrong.observed == 'nan' else 'infinite'}{where}"


def _of_numbers(wrong: Wrong) -> str | None:
    """A title from what is expected and observed."""
    if wrong.law == "gather.own-cell":
        return f"The logits of a row at {wrong.expected} are read from {wrong.observed}"
    place = re.fullmatch(r".*\bgradient\b.*\[([\d, ]+)\].*", wrong.what)
    if re.fullmatch(r"(box|objectness|class) item.*", wrong.what):
        what = f"The {wrong.what.partition(' ')[0]} item"
    elif wrong.what == OF_RIGHT_TOTAL:
        return "The items are not those of the total, which is right"
    elif re.match(r"total of call|total\b", wrong.what) and wrong.law == "totals.value":
        what = "The total"
    elif place and wrong.law in ("boxes.gradient", "classes.gradient", "objectness.gradient", "gradients.value"):
        what = f"The gradient of {_logit(wrong, place[1])}"
    else:
        return None
    try:
        want, got = float(wrong.expected), float(wrong.observed.split()[0])
    except ValueError:
        return None
    return f"{what} is {_compared(want, got)}"


def _beside(law: str, outcome: Outcome, case: Case, dialect: Dialect) -> str:
    """What the gradient says of an item that is wrong."""
    channels = {"boxes.item": np.s_[:4], "objectness.item": np.s_[4:5], "classes.item": np.s_[5:]}.get(law)
    if channels is None or not outcome.gradients or dialect.taken:
        return ""
    budget = Budget(case, dialect)
    each = outcome.gradients, budget.reference.gradients, budget.gradients
    got, want, off = (np.concatenate([_by_cell(grid[..., channels]) for grid in grids]) for grids in each)
    there = (abs(want) > off).any(axis=1)
    if there.any() and (abs(got - want) <= off).all():
        return ", and its gradient is right: a part of it has no gradient"
    lost = there & (~got.any(axis=1) | np.isnan(got).any(axis=1))
    if law == "boxes.item" and lost.any():
        return ", and a predicted box has no gradient, or NaN: was its overlap replaced by a number?"
    return ""


def _by_cell(grid: Grid) -> Grid:
    return grid.reshape(-1, grid.shape[-1])


def _logit(wrong: Wrong, at: str) -> str:
    if wrong.law == "objectness.gradient":
        return "an objectness logit"
    channel = int(at.rsplit(",", maxsplit=1)[-1])
    if wrong.law == "classes.gradient":
        return f"the logit of class {channel}"
    return f"the logit of class {channel - 5}" if channel > 4 else f"a {CHANNELS[channel]} logit"


def _compared(want: float, got: float) -> str:
    """How a number compares with what it should be."""
    share = got / want if want else math.inf
    if not math.isfinite(share):
        return f"{got:.6g} and not {want:.6g}"
    simple = Fraction(share).limit_denominator(4)
    if got == 0:
        return "0"
    if share < 0:
        return "of the wrong sign"
    if simple != 1 and simple <= 8 and abs(share - simple) <= 1e-4 * simple:
        words = {Fraction(2): "twice", Fraction(1, 2): "half of"}.get(
            simple, f"{simple} {'times' if simple > 1 else 'of'}"
        )
        return f"{words} what it should be"
    return f"too {'large' if share > 1 else 'small'}: {got:.6g} and not {want:.6g}"
