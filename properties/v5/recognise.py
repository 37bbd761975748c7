"""Recognises the dialect of a loss, by what it does with some small cases.

Rows come first, then the weights of cells, the overlap of single rows, the terms, and what depends on the number of
layers. Each step compares the loss's gradients with those of the reference in every option of one choice, on cases on
which the choices that are not yet known make no difference. A gradient speaks of single rows and cells, and every loss
has one. At three layers the factor 3 / layers is 1, so most cases have three.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from yololoss.harness.laws.exam import HUNG
from yololoss.harness.subjects.dialect import Recognised
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.outcome import Outcome
from yololoss.harness.subjects.subject import Unsupported
from yololoss.v5.hyp import Hyperparameters

from .balances import MOST_LAYERS, NEAR, balanced, has_weights, oddity, shortest
from .budget import Budget
from .case import Case, FormulaLogits, SeededLogits
from .dialects import DIALECTS, EXACTLY_KNOWN, NUMBERS, UPSTREAM, Dialect, Table
from .named import compared
from .own import measure
from .reference import OwnOverlap, Reference
from .trials import LINES, SHARED, SINGLES, case_of, on_lines, tiny

Reals = NDArray[np.float64]
# what a dialect expects beyond values: taken from the closest one
PROMISES = ("drop_in", "box_gain", "interface", "bad_input", "float64")
BOX, OBJECTNESS, CLASSES = slice(0, 4), slice(4, 5), slice(5, None)  # channels
CLASSES_TRIED = (3, 2, 4, 5, 6, 8, 10, 20, 80, 1)  # a loss with class weights answers to one number alone
LIMIT = 3.0  # seconds of a case, which takes a hundredth of one
CONFIRMING = 16  # other cases that the dialect should explain
APART = 4.0  # standard errors by which an option must fit better than another
# Forms that differ only in rounding, or where they are not a number: the first is tried for all.
FORMS = (
    ("yolov5-7.0", "yolov5-master", "yolov5-3.0"),
    ("yolov5-6.2",),
    ("yolov5-5.0", "yolov5-3.1"),
    ("yolov7",),
)
EPSILONS = (0.0, *(float(f"1e-{power}") for power in range(16, 2, -1)))
LARGE = EPSILONS[-5:]  # those that matter to boxes of usual sizes
DIFFERENCE = (
    0.01  # of a logit: the rounding of an overlap, and what its curvature adds, are both a ten-thousandth of it
)
SHARE = 0.01  # of a derivative, that its differences may be off
OF_ALL = 0.003  # of the gradients of all rows: a right overlap is off by 0.0007, by rows at a tie and by rounding
MOST = 0.9  # of the rows, where each follows its value but those at a tie of edges
NOT_ITS_OWN = "; its gradient is not that of its value: a part is held constant, or rows are weighted"
LEAST_SCALE = 1e-5  # of tolerances: rounding that a loss in float64 has
ORDERS = ("choice-anchor-target", "anchor-choice-target")


class Seen(NamedTuple):
    """A case, and what the loss did with it."""

    case: Case
    outcome: Outcome


class Recogniser:
    """One loss, what was found of its dialect, and what was not."""

    def __init__(self, subject: LossUnderTest, named: Dialect | None) -> None:
        self.subject, self.named = subject, named
        self.dialect = named or UPSTREAM  # with the options found so far: one that nothing contradicts stays
        self.unexplained: dict[str, str] = {}  # choices, and what was seen
        self.unsure: dict[str, tuple[str, ...]] = {}  # choices, and other options that fit as well
        self.classes = 3

    def see(self, *targets: Sequence[float], **fields: Any) -> Seen:
        """Run the loss on a case."""
        return self._run(case_of(targets, **{"classes": self.classes} | fields))

    def _run(self, case: Case) -> Seen:
        seen = Seen(case, execute(self.subject, case, LIMIT))
        if any(trouble.kind == HUNG for trouble in seen.outcome.troubles):
            raise TimeoutError  # the next cases would take as long
        return seen

    def recognise(self) -> list[Dialect]:
        """The dialects that explain all that was seen. Several if nothing tells them apart."""
        for self.classes in CLASSES_TRIED:
            if (seen := self.see(*SINGLES, batch=len(SINGLES))).outcome.gradients:
                break
        else:
            self.unexplained["all"] = f"the loss gave no gradient: {_raised(seen)}"
            return [self.dialect]
        others = (count for count in CLASSES_TRIED if count != self.classes)
        if self.named is None and not any(self.see(SINGLES[0], classes=n).outcome.gradients for n in others):
            self.dialect = self._with(classes=self.classes)
        self.find_item_order()
        self.find_rows()
        seen_weights = self.find_weights()
        self.find_added(seen)
        self.find_overlap(seen)
        forms = self.find_forms()
        self.find_range()
        self.find_cell()
        self.find_terms()
        self.find_scales(seen_weights)
        if self.dialect.overlap == "own" and (self.named is None or self.named.overlap != "own"):
            told = "no known one is like it, so it is taken from the loss itself"
            own = self._follows_its_value(seen.case) and self._item_follows_its_value(seen.case)
            self.unexplained["overlap"] = told + ("" if own else NOT_ITS_OWN)
        return [self._with(overlap_form=form, overlap_eps=eps) for form, eps in forms]

    def find_item_order(self) -> None:
        """With a box gain of 0, the box item alone is 0."""
        seen = self.see(*SINGLES[:3], batch=3, hyp=Hyperparameters(box=0.0))
        items = seen.outcome.calls[-1].items[:3] if seen.outcome.calls else ()
        if len(items) == 3 and items[2] == 0 != items[0]:
            other = {"box first": "classes first", "classes first": "box first"}
            self.dialect = self._with(item_order=other[self.dialect.item_order])
            self.subject = replace(self.subject, dialect=self.dialect)

    # rows

    def find_rows(self) -> None:
        """On grid lines, at half a cell, and elsewhere; then with float64 targets that float32 rounds to the same."""
        lines = self.see(*on_lines(0.0), **LINES)
        if lines.outcome.rows is not None:
            self._choose_rows(lines, neighbours=("mirror", "own-half"))
            if self.dialect.row_order != "any" and "neighbours" not in self.unexplained:
                found, want = _order(lines.outcome.rows), {o: _order(self._rows(lines, row_order=o)) for o in ORDERS}
                self.dialect = self._with(row_order=next((o for o in ORDERS if np.array_equal(found, want[o])), "any"))
            beyond = self.see(*on_lines(1e-9), **LINES, targets_dtype="float64")
            if self.named is None and beyond.outcome.rows is not None:
                self._choose_rows(beyond, target_dtype=("own", "float32"))

    def _rows(self, seen: Seen, **changes: str) -> Sequence[Any]:
        return Reference(seen.case, self._with(**changes)).rows

    def _choose_rows(self, seen: Seen, **choice: tuple[str, ...]) -> None:
        """Take the option with which the reference builds the same rows, in any order."""
        ((name, options),) = choice.items()
        found = np.unique(_order(seen.outcome.rows or ()), axis=0, return_counts=True)
        want = {o: np.unique(_order(self._rows(seen, **{name: o})), axis=0, return_counts=True) for o in options}
        fits = [o for o in options if all(map(np.array_equal, found, want[o]))]
        if fits:
            self._take(name, fits)
        elif name == "neighbours":
            self.unexplained[name] = "other cells are assigned than any option says"

    def find_cell(self) -> None:
        """A centre on the far edge. Of a loss that shows no rows, the neighbours as well."""
        if self.see().outcome.rows is None and "overlap" not in self.unexplained:
            self._choose([self.see(*on_lines(0.0), grids=((8, 8),) * 3)], [BOX], neighbours=("mirror", "own-half"))
        inside, *edges = ((0, 0, x, y, 0.3, 0.3) for x, y in ((0.9, 0.9), (1.0, 0.4), (0.3, 1.0)))
        seen = [self.see(edge) for edge in edges]
        answered = [bool(each.outcome.gradients) for each in seen]
        if not any(answered) and self.see(inside).outcome.gradients:
            self._take("cell", ("none",))
        elif all(each.outcome.rows for each in seen):
            boxes = {o: [_boxes(self._rows(each, cell=o)) for each in seen] for o in ("clamp", "clamp-after")}
            found = [_boxes(each.outcome.rows or ()) for each in seen]
            self._take("cell", [o for o in boxes if all(map(_near, found, boxes[o]))] or [self.dialect.cell])
        elif all(answered) and "overlap" not in self.unexplained:
            self._choose(seen, [BOX], cell=("clamp", "clamp-after"))

    # weights

    def find_weights(self) -> dict[int, Table]:
        """The weight of each layer's objectness, by number of layers: the balance, times what else depends on it."""
        found = {}
        for layers in range(1, MOST_LAYERS + 1):
            weights = self._cell_weights(layers, 1)
            if weights:
                found[layers] = weights
        if 3 not in found:
            self.unexplained["balance"] = "the gradients of cells without a target are not those of a mean"
            return {}
        tied = {"layers": 3} if self.named is None and len(found) == 1 else {}
        self.dialect = self._with(balance={"3": found[3], "else": 1.0}, **tied)
        times = np.divide(self._cell_weights(3, 2) or (np.nan,), found[3])
        fits = [batch for batch, by in (("times", 2), ("plain", 1)) if np.allclose(times, by, rtol=NEAR)]
        if fits:
            self._take("batch", fits)
        else:
            self.unexplained["batch"] = f"with two images in place of one, gradients are {times[0]:.6g} times as large"
        return found

    def _cell_weights(self, layers: int, batch: int) -> Table:
        """The sum of each layer's objectness gradients, as a share of what a weight of 1 gives; empty if there is none.

        Logits are 0, so that each gradient is half a cell's weight. Most cells have no target.
        """
        zero = FormulaLogits(multiplier=1, increment=0, scale=0.0)
        seen = self.see((0, 0, 0.3, 0.3, 0.4, 0.4), layers=layers, batch=batch, predictions=zero)
        each = [float(np.median(g[..., 4])) * g[..., 4].size for g in seen.outcome.gradients]
        weights = tuple(shortest(2 * value / seen.case.hyp.obj) for value in each)
        return weights if np.isfinite(weights).all() and min(weights, default=0) > 0 else ()

    # overlaps

    def find_added(self, seen: Seen) -> None:
        """Whether the total has more than the first three items. A fourth one may also be the total itself."""
        items, total = np.array(seen.outcome.calls[-1].items), seen.outcome.calls[-1].total

        def is_total(some: Any) -> bool:
            return any(np.isclose(total, batch * some.sum(), rtol=NEAR) for batch in (1, seen.case.batch))

        if len(items) > 3 and is_total(items) and not is_total(items[:3]):
            self._take("added_term", ("an item",))

    def find_overlap(self, seen: Seen) -> None:
        """Boxes of usual sizes."""
        self._choose([seen], [BOX, OBJECTNESS], overlap=EXACTLY_KNOWN)
        if "overlap" not in self.unexplained:
            return
        del self.unexplained["overlap"]
        self._choose([seen], [BOX], overlap=EXACTLY_KNOWN)  # objectness may follow another one, by a fault
        if "overlap" not in self.unexplained:
            return
        for kind, (form, *_), eps in product(EXACTLY_KNOWN, FORMS, LARGE):
            large = self._with(overlap=kind, overlap_form=form, overlap_eps=eps)
            if self._fits([seen], [BOX, OBJECTNESS], large):
                del self.unexplained["overlap"]
                self.dialect = large
                return
        self._find_own(seen)

    def find_range(self) -> None:
        """Boxes of which the overlap is below -1; only CIoU can be."""
        if self.dialect.overlap != "ciou" or "overlap" in self.unexplained:
            return
        targets = [(i, 0, 0.6, 0.6, 0.0055, 0.03) for i in range(6)]
        case = case_of(targets, batch=6, classes=self.classes, anchors=(((0.05, 0.05),),) * 3)
        logits = [x.clone() for x in case.logits]
        for x in logits:
            x[..., :4] = torch.tensor((5.0, 4.0, 3.0, -6.0)) * (1 + 0.1 * torch.arange(6.0).reshape(6, 1, 1, 1, 1))
        self._choose([self._run(case.with_logits(tuple(logits)))], [BOX], overlap_range=("free", "clamped"))

    def _find_own(self, single: Seen) -> None:
        """Whether rows that share cells and images are judged right by what single rows have; else what is known."""
        own = self._with(overlap="own")
        free = self.named is None or self.named.taken
        if free and self._fits([self.see(*SHARED), self.see(*SINGLES[:9], batch=9)], [BOX, OBJECTNESS], own):
            measured = measure(self.subject, single.case, own)
            named = [] if self.named is None else [self.named]
            tries = [*named, *(self._with(overlap=kind) for kind in NUMBERS)]
            fits = [each for each in tries if each.taken and _has_formula(Reference(single.case, each, measured))]
            best = fits[0] if fits else own
            self.dialect = self._with(overlap=best.overlap, overlap_numbers=best.overlap_numbers)
            del self.unexplained["overlap"]
            return
        known = [kind for kind in EXACTLY_KNOWN if self._fits([single], [OBJECTNESS], self._with(overlap=kind))]
        if len(known) == 1:
            self.dialect = self._with(overlap=known[0])
            self.unexplained["overlap"] = (
                f"objectness follows {known[0]}, the boxes' gradients do not: a fault, or added_term = in the box item"
            )

    def _follows_its_value(self, case: Case) -> bool:
        """Whether the gradient of a row's loss is that of the overlap, by differences; most rows are at no tie."""
        here, rows = self._own(case), []
        for channel in range(4):
            step = DIFFERENCE * (torch.arange(case.logits[0].shape[-1]) == channel)
            moved = [case.with_logits(tuple(x + sign * step for x in case.logits)) for sign in (1, -1)]
            ends = [self._own(each).overlaps for each in moved]
            want, got = (ends[0] - ends[1]) / (2 * DIFFERENCE), here.gradients[:, channel]
            inside = np.min((here.overlaps, *ends), axis=0) > SHARE  # of the clamp at 0
            rows.append((abs(want - got) <= SHARE * (abs(want) + abs(got)) + SHARE / 10)[inside])
        return bool(np.concatenate(rows).mean() > MOST)

    def _item_follows_its_value(self, case: Case) -> bool:
        """Whether the slope of the box item, by differences, is the sum of its gradients, for x, y, w and h."""
        alone = case.changed(hyp=case.hyp.model_copy(update={"obj": 0.0, "cls": 0.0}))
        summed = sum(g.reshape(-1, g.shape[-1])[:, :4].sum(0) for g in self._run(alone).outcome.gradients)
        slopes = []
        for channel in range(4):
            step = DIFFERENCE * (torch.arange(case.logits[0].shape[-1]) == channel)
            ends = [self._run(alone.with_logits(tuple(x + s * step for x in case.logits))) for s in (1, -1)]
            up, down = (seen.outcome.calls[0].total for seen in ends)
            slopes.append((up - down) / (2 * DIFFERENCE))
        size = sum(abs(g[..., :4]).sum() for g in self._run(alone).outcome.gradients)
        return bool((abs(summed - slopes) <= OF_ALL * size).all())

    def _own(self, case: Case) -> OwnOverlap:
        """What the loss makes of each row of a case alone, in a dialect with an overlap of its own."""
        measured = measure(self.subject, case, self.dialect)
        assert measured is not None
        assert measured.own is not None
        return measured.own

    def find_forms(self) -> list[tuple[str, float]]:
        """All forms of epsilon, and epsilons, that explain boxes so small that it matters."""
        usual = self.dialect
        if "overlap" in self.unexplained or "balance" in self.unexplained or usual.taken:
            return [(usual.overlap_form, usual.overlap_eps)]
        seen = self._run(specks := tiny(self.classes))
        budget = Budget(specks, self.dialect)
        at = [np.abs(grid[..., 5:]).sum(-1) > 0 for grid in budget.reference.gradients]
        off, got = _at(budget.gradients, at), _at(seen.outcome.gradients, at)
        every = {
            (form, eps): self._with(overlap_form=form, overlap_eps=eps) for (form, *_), eps in product(FORMS, EPSILONS)
        }
        wrong = {pair: (got - _at(Reference(specks, each).gradients, at)) / off for pair, each in every.items()}
        # the loss's own rounding is the scale on which one form is told from another
        best = min(wrong, key=lambda pair: float(np.nansum(np.log1p(wrong[pair] ** 2))))
        scale = max(float(np.nanmedian(abs(wrong[best]))), LEAST_SCALE)
        score = {pair: np.log1p((each / scale) ** 2) for pair, each in wrong.items()}
        best = min(score, key=lambda pair: float(np.nansum(score[pair])))
        alike = [pair for pair in score if not _worse(score[pair], score[best])]
        pairs = [(name, eps) for names in FORMS for first, eps in alike for name in names if first == names[0]]
        found = [p for p in pairs if self._fits([seen], [BOX], self._with(overlap_form=p[0], overlap_eps=p[1]))]
        if not found:
            self.unexplained["overlap_form"] = "no known place of an epsilon explains tiny boxes"
            return [(usual.overlap_form, usual.overlap_eps)]
        self.dialect = every[best]
        return found

    # terms

    def find_terms(self) -> None:
        """What each hyperparameter does, and which row a shared cell takes."""
        known = [CLASSES] if "overlap" in self.unexplained else [OBJECTNESS, CLASSES]
        many = {"batch": len(SINGLES)}
        if self.classes > 1:
            self._find_class_weights(self.see(*SINGLES, **many))
        for hyp, choice in (
            (Hyperparameters(label_smoothing=0.2), {"smoothing": ("half", "ignored", "over classes")}),
            (Hyperparameters(cls_pw=1.7, obj_pw=0.6), {"positive_weights": ("heeded", "ignored")}),
            (Hyperparameters(fl_gamma=1.5), {"focal": ("heeded", "ignored")}),
        ):
            self._choose([self.see(*SINGLES, hyp=hyp, **many)], known, **choice)
        if "overlap" not in self.unexplained:
            near = SeededLogits(seed=7, scale=0.3)  # so that overlaps are above 0
            self._choose([self.see(*SHARED, predictions=near)], [OBJECTNESS], shared_cells=("last", "largest"))

    def _find_class_weights(self, seen: Seen) -> None:
        plain = self._with(overlap="iou", class_weights=())  # of classes, the gradients are those of any overlap
        want = Reference(seen.case, plain).gradients
        rows = [np.stack((got, ref))[..., 5:] for got, ref in zip(seen.outcome.gradients, want, strict=True)]
        pairs = np.concatenate([each[:, (each[1] != 0).all(-1)] for each in rows], axis=1)
        if not pairs.size or self._fits([seen], [CLASSES], self.dialect):
            return
        weights = tuple(shortest(float(w)) for w in np.median(pairs[0] / pairs[1], axis=0))
        if not np.isfinite(weights).all() or min(weights) <= 0:
            return
        weighted = self._with(class_weights=weights if set(weights) != {1.0} else ())
        if self._fits([seen], [CLASSES], weighted):
            self.dialect = weighted.but(classes=0) if weighted.class_weights else weighted

    # numbers of layers

    def find_scales(self, seen_weights: Mapping[int, Table]) -> None:
        """The factors of one, two, four and five layers, and the balance without them."""
        if not seen_weights:
            return
        at = [self.see(*SINGLES, layers=n, batch=len(SINGLES)) for n in (1, 2, 4, 5) if n in seen_weights]
        known = [CLASSES] if "overlap" in self.unexplained else [BOX, CLASSES]
        self._choose(at, known, layer_scale=("none", "all"))
        scales = ("none",) if self.dialect.layer_scale == "none" else ("box and class", "all")
        named = self.named
        if named and named.layer_scale in scales and has_weights(named, seen_weights):
            kept = {name: getattr(named, name) for name in ("balance", "layer_scale", "objectness_gain")}
            self.dialect = self._with(**kept)
            return
        tries = product(scales, ("none", "1.4 at 4", "1.4 from 4"))
        every = (balanced(self._with(layer_scale=s, objectness_gain=g), seen_weights) for s, g in tries)
        self.dialect = min(every, key=oddity)

    # options

    def _with(self, **changes: Any) -> Dialect:
        return self.dialect.but(**changes)

    def _choose(self, seen: Sequence[Seen], channels: Sequence[slice], **choice: Sequence[str]) -> None:
        """Take the option that explains what was seen; say so if none does, or several do."""
        ((name, options),) = choice.items()
        fits = [option for option in options if self._fits(seen, channels, self._with(**{name: option}))]
        if not fits:
            self.unexplained[name] = f"none of {', '.join(options)} gives these gradients"
            return
        self._take(name, fits)
        other = tuple(option for option in fits if option != getattr(self.dialect, name))
        if other:
            self.unsure[name] = other

    def _take(self, name: str, fits: Sequence[str]) -> None:
        """Change to the first option that fits, unless the present one does."""
        if getattr(self.dialect, name) not in fits:
            self.dialect = self._with(**{name: fits[0]})

    def _fits(self, seen: Sequence[Seen], channels: Sequence[slice], dialect: Dialect) -> bool:
        """Whether the gradients in these channels are those of the reference, up to rounding."""
        for case, outcome in seen:
            if not outcome.gradients:
                return False
            budget = Budget(case, dialect, measure(self.subject, case, dialect))
            triples = list(zip(outcome.gradients, budget.reference.gradients, budget.gradients, strict=True))
            for part in channels:
                for got, want, off in triples:
                    wrong = abs(got[..., part] - want[..., part]) > off[..., part]
                    if wrong.any() or np.isfinite(got[..., part]).mean() < 1 / 2:
                        return False
        return True


def recognise(subject: LossUnderTest, cases: Iterable[Any], named: Dialect | None) -> Recognised:
    """The dialect of a loss, and how many of these other cases it explains.

    An option of a named dialect is changed only if what the loss did contradicts it, and another one explains it.
    """
    recogniser, usual = Recogniser(subject, named), named or UPSTREAM
    try:
        dialect = _closest(recogniser.recognise(), named)
    except TimeoutError:
        return Recognised(usual, {}, {"all": f"the loss did not return within {LIMIT:g} s"}, 0, 0)
    told: list[bool] = []
    kept: list[bool] = []
    for case in cases:
        if len(told) == CONFIRMING:
            break
        if subject.family.excludes(dialect, case) is None:
            try:
                told.append(_explains(replace(subject, dialect=dialect), case))
                kept.append(told[-1] if dialect == usual else _explains(replace(subject, dialect=usual), case))
            except Unsupported:
                continue  # the loss lacks an option of the case
    if not all(told) and sum(told) <= sum(kept):  # what was found explains no more than what is usual
        dialect, told = usual, kept
    return Recognised(dialect, recogniser.unsure, recogniser.unexplained, sum(told), len(told))


def _explains(subject: LossUnderTest, case: Case) -> bool:
    """Whether a case's total, items and gradients are the reference's. Raises Unsupported."""
    outcome, dialect = execute(subject, case), subject.dialect
    if not outcome.gradients or subject.family.excludes(dialect, case) is not None:
        return False
    budget = Budget(case, dialect, measure(subject, case, dialect))
    pairs: list[tuple[Any, Any, Any]] = [(outcome.gradients, budget.reference.gradients, budget.gradients)]
    for call, want, items, total in zip(
        outcome.calls, budget.reference.calls, budget.items, budget.totals, strict=True
    ):
        count = min(len(call.items), 3)
        pairs.append(([call.total, *call.items[:3]], [want.total, *want.items[:count]], [total, *items[:count]]))
    return all(
        bool((abs(got - np.asarray(ref)) <= off).all()) for each in pairs for got, ref, off in zip(*each, strict=True)
    )


def _closest(found: Sequence[Dialect], named: Dialect | None) -> Dialect:
    """Of dialects that nothing tells apart the one closest to the named or a known one, whose promises it takes."""
    known = [named] if named else [each for name, each in DIALECTS.items() if name != "yololoss"]

    def apart(pair: tuple[Dialect, Dialect]) -> int:
        return sum(value != getattr(pair[1], choice) for choice, value in pair[0] if choice not in PROMISES)

    mine, base = min(product(found, known), key=apart)
    return mine.but(**{choice: getattr(base, choice) for choice in PROMISES})


def _at(grids: Sequence[Any], at: Sequence[Any]) -> Reals:
    """The gradients of boxes and objectness at these cells of each layer, (n, 5)."""
    return np.concatenate([grid[cells][:, :5] for grid, cells in zip(grids, at, strict=True)])


def _worse(one: Reals, other: Reals) -> bool:
    """Whether something fits worse than another, by more than chance."""
    more = (one - other)[np.isfinite(one - other)]
    spread = more.std() / max(len(more), 1) ** 0.5
    return bool(more.size and more.mean() > APART * spread and more.mean() > 0)


def _order(rows: Iterable[Any]) -> NDArray[np.int64]:
    """Layer, image, anchor, row and column of each row, in order, (n, 5)."""
    found = [np.stack((np.full(len(r), i), r.image, r.anchor, r.row, r.column), axis=1) for i, r in enumerate(rows)]
    return np.concatenate((np.zeros((0, 5)), *found)).astype(np.int64)


def _boxes(rows: Iterable[Any]) -> Reals:
    return np.concatenate((np.zeros((0, 4)), *(r.box for r in rows)))


def _has_formula(reference: Reference) -> bool:
    """Whether what was taken from a loss is as the formula of the dialect's overlap says."""
    if reference.dialect.overlap == "own":
        return True
    want, got, allowed = compared(reference)
    return bool(want.size and (abs(got - want) <= allowed).all())


def _near(one: Reals, other: Reals) -> bool:
    return one.shape == other.shape and np.allclose(one, other, atol=1e-5)


def _raised(seen: Seen) -> str:
    return next((trouble.detail for trouble in seen.outcome.troubles), "nothing was raised")
