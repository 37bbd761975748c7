"""Assignment: which anchors a target matches, and which cells predict it.

A layer's grid has H rows and W columns. A target's centre and size are scaled to cells: x and w by W, y and h
by H. The target matches an anchor when each side differs from the anchor's by a factor below anchor_t. Each
matched pair is assigned to the cell that contains the centre, and to the neighbour cells nearest to the centre.
These can predict it too: a predicted centre may lie up to half a cell outside its own cell.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.cases.domain import any_of
from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .case import Case
from .pools import LIMITS
from .rows import Rows
from .strategies import cases

F32 = np.float32
# Cases of all kinds, and cases whose centres and sizes lie where the assignment changes.
EDGES = any_of(cases(min_targets=1), cases(min_targets=1, edges=True, hyps=LIMITS, spots=False))


class Matched(NamedTuple):
    """The targets' x, y, w, h in cells of a layer, (N, 4), and its pairs: their anchors and targets, (m,) each."""

    scaled: NDArray[np.float32]
    anchors: NDArray[np.int64]
    targets: NDArray[np.int64]


def _matched(case: Case) -> list[Matched]:
    fractions, limit = case.target_rows.float().numpy()[:, 2:], F32(case.hyp.anchor_t)
    found = []
    for (rows, columns), anchors in zip(case.grids, case.anchors, strict=True):
        lengths = fractions * np.array((columns, rows, columns, rows), dtype=F32)
        ratios = lengths[:, 2:] / np.array(anchors, dtype=F32)[:, None]
        found.append(Matched(lengths, *np.nonzero(((ratios < limit) & (F32(1) / ratios < limit)).all(axis=2))))
    return found


def scaled(exam: Exam, layer: int) -> NDArray[np.float32]:
    """The targets' x, y, w, h in cells of a layer, (N, 4), in float32 as SPEC requires."""
    return exam.of(_matched)[layer].scaled


def pairs(exam: Exam, layer: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs that match: their anchors (m,), and their targets (m,)."""
    return exam.of(_matched)[layer][1:]


def identities(exam: Exam, layer: int) -> list[tuple[float, ...]]:
    """What identifies a matched pair in a row: image, class, w, h, and the anchor."""
    anchors, who = pairs(exam, layer)
    image, cls = exam.case.target_rows.numpy()[who, :2].T.tolist()
    return list(zip(image, cls, *scaled(exam, layer)[who, 2:].T.tolist(), anchors.tolist(), strict=True))


def row_identities(rows: Rows) -> list[tuple[float, ...]]:
    """The same, read from built rows."""
    numbers = (rows.image.tolist(), rows.cls.tolist(), *rows.box[:, 2:].T.tolist(), rows.anchor.tolist())
    return list(zip(*numbers, strict=True))


def decisive(holds: Sequence[bool] | NDArray[np.bool_]) -> list[int]:
    """The index of the first that is false, or of one that is true; none without any."""
    return [int(np.argmin(holds))] if len(holds) > 0 else []


@law(
    "assign.clamped-indices",
    title="A row has an index outside its range",
    source="SPEC 1.4",
    cases=cases(min_targets=1),
    everywhere=True,
)
def test_every_index_lies_inside_its_grid(exam: Exam) -> None:
    """Image, anchor, grid row, grid column and class of every built row lie inside their ranges."""
    for i, rows in enumerate(exam.rows):
        for name, values, end in rows.ranges(exam.case, i):
            exam.expect((values >= 0) & (values < end), f"layer {i}, {name}", f"0 to {end - 1}", values)


@law(
    "assign.image-and-class",
    title="A row has an image and a class that no target has",
    source="SPEC 1, build_targets",
    cases=cases(min_targets=1),
    everywhere=True,
)
def test_rows_carry_the_image_and_class_of_a_target(exam: Exam) -> None:
    """The image and class of every built row are those of one of the targets."""
    known = {(int(image), int(cls)) for image, cls, *_ in exam.case.targets}
    for i, rows in enumerate(exam.rows):
        built = list(zip(rows.image.tolist(), rows.cls.tolist(), strict=True))
        own = [pair in known for pair in built]
        exam.expect(own, f"layer {i}, (image, class) of row", f"one of {sorted(known)}", [str(pair) for pair in built])


@law(
    "assign.box-plus-cell",
    title="The box of a row is not its target's, seen from its cell",
    source="SPEC 1.5",
    cases=cases(min_targets=1),
    everywhere=True,
)
def test_a_box_moved_by_its_cell_is_its_target(exam: Exam) -> None:
    """A built box plus its (clamped) cell equals one of the scaled targets of the row's image and class."""
    edge = exam.subject.dialect.cell == "clamp-after" and any(max(t[2:4]) >= 1 for t in exam.case.targets)
    exam.only_if(not edge, "on the far edge this dialect takes the box from outside the grid")
    for i, rows in enumerate(exam.rows):
        wanted, cell = scaled(exam, i), np.stack((rows.column, rows.row), axis=1)
        image, cls = exam.case.target_rows.numpy()[:, :2].T
        own = (rows.image[:, None] == image) & (rows.cls[:, None] == cls)  # (rows, targets)
        # The box is target minus cell, rounded once, so the same subtraction gives the same bits.
        same = rows.box[:, None, 2:] == wanted[:, 2:]
        same &= rows.box[:, None, :2] == wanted[:, :2] - cell.astype(F32)[:, None]
        found = (same.all(axis=2) & own).any(axis=1)
        for n in decisive(found):
            mine = wanted[own[n]]
            exact = np.concatenate((mine[:, :2] - cell[n].astype(F32), mine[:, 2:]), axis=1)
            exam.expect(
                found[n],
                f"layer {i}, box of row {n} in cell {tuple(cell[n].tolist())}",
                f"one of {exact.tolist()}",
                str(rows.box[n].tolist()),
            )


@law(
    "assign.anchor-sides",
    title="A row has the sides of another anchor",
    source="SPEC 1, build_targets",
    cases=cases(min_targets=1),
    everywhere=True,
)
def test_rows_carry_the_sides_of_their_anchor(exam: Exam) -> None:
    """The anchor sides of a row are those of its anchor index on its layer."""
    for i, rows in enumerate(exam.rows):
        sides = np.array(exam.case.anchors[i], dtype=F32)
        inside = (rows.anchor >= 0) & (rows.anchor < len(sides))  # other indices break assign.clamped-indices
        exam.expect_equal(f"layer {i}, anchor sides", sides[rows.anchor[inside]], rows.anchor_wh[inside])


@law(
    "assign.offset-range",
    title="The centre of a row's box is more than half a cell outside its cell",
    source="SPEC 1, consequences",
    cases=cases(min_targets=1),
    everywhere=True,
)
def test_centres_lie_at_most_half_a_cell_outside_their_cell(exam: Exam) -> None:
    """A built box's centre, relative to its cell, lies in [-0.5, 1.5] on both axes."""
    for i, rows in enumerate(exam.rows):
        xy = rows.box[:, :2]
        exam.expect((xy >= -0.5) & (xy <= 1.5), f"layer {i}, box x, y of row", "in [-0.5, 1.5]", xy)


@law(
    "assign.matched-pairs",
    title="The wrong pairs of target and anchor get rows",
    source="SPEC 1.2",
    cases=EDGES,
    everywhere=True,
)
def test_rows_are_made_for_exactly_the_pairs_within_the_ratio_limit(exam: Exam) -> None:
    """A target and an anchor get rows if and only if each side of one is below anchor_t times that of the other."""
    for i, rows in enumerate(exam.rows):
        exam.expect_equal(
            f"layer {i}, sorted (image, class, w, h, anchor) of the pairs that have rows",
            np.array(sorted(set(identities(exam, i)))),
            np.array(sorted(set(row_identities(rows)))),
        )


@law(
    "assign.rows-per-pair",
    title="A pair of target and anchor gets too many rows, or too few",
    source="SPEC 1.3",
    cases=cases(min_targets=1),
    everywhere=True,
)
def test_a_pair_has_one_to_five_rows_and_at_most_three_off_the_grid_lines(exam: Exam) -> None:
    """A matched pair has 1 to 5 rows, and at most 3 unless its centre lies on or beside a grid line."""
    for i, rows in enumerate(exam.rows):
        wanted = identities(exam, i)
        same, built = Counter(wanted), Counter(row_identities(rows))  # duplicate targets have equal rows
        centres = scaled(exam, i)[:, :2]
        # The rounding error of W - gx is half an ulp of W at most. So close to a line, both sides may count as near.
        margin = np.spacing(F32(max(exam.case.grids[i])))
        on_lines = (abs(centres - np.round(centres)) <= margin).any()
        most = 5 if on_lines and exam.subject.dialect.neighbours == "mirror" else 3
        holds = [same[name] <= built[name] <= most * same[name] for name in wanted]
        for n in decisive(holds):
            name, target = wanted[n], pairs(exam, i)[1][n]
            exam.expect(
                holds[n],
                f"layer {i}, rows of target {target} with anchor {name[-1]}",
                f"from {same[name]} to {most * same[name]}",
                built[name],
            )


@law(
    "assign.centre-cell",
    title="The cell that holds the centre of a target is not taken",
    source="SPEC 1.3, 1.4",
    cases=cases(min_targets=1),
    everywhere=True,
)
def test_the_cell_that_holds_the_centre_is_always_taken(exam: Exam) -> None:
    """Every matched pair has a row in the cell that contains its centre: on the far edge, the last cell."""
    for i, rows in enumerate(exam.rows):
        height, width = exam.case.grids[i]
        anchors, who = pairs(exam, i)
        image, cls = exam.case.target_rows.numpy()[who, :2].T.astype(int).tolist()
        column, row = np.minimum(scaled(exam, i)[who, :2].astype(int), (width - 1, height - 1)).T.tolist()
        wanted = list(zip(image, anchors.tolist(), row, column, cls, strict=True))
        numbers = (rows.image, rows.anchor, rows.row, rows.column, rows.cls)
        built = set(zip(*(values.tolist() for values in numbers), strict=True))
        holds = [place in built for place in wanted]
        for n in decisive(holds):
            exam.expect(
                holds[n],
                f"layer {i}, target {who[n]} with anchor {anchors[n]}",
                f"a row in grid row {row[n]}, column {column[n]}",
                "none",
            )


@law(
    "assign.neighbours",
    title="The wrong cells beside the centre of a target are taken",
    source="SPEC 1.3, 1.4",
    cases=EDGES,
    everywhere=True,
)
def test_the_neighbours_nearest_to_the_centre_are_taken_and_no_others(exam: Exam) -> None:
    """A layer's rows use exactly the cells of the centres, and the neighbour cells less than half a cell from them."""
    for i, (rows, wanted) in enumerate(zip(exam.rows, exam.budget.reference.rows, strict=True)):
        exam.expect_equal(f"layer {i}, sorted (image, anchor, row, column)", places(wanted), places(rows))


def places(rows: Rows) -> NDArray[np.int64]:
    """(image, anchor, grid row, grid column) of every row, sorted, (n, 4)."""
    columns = np.stack((rows.image, rows.anchor, rows.row, rows.column), axis=1)
    return np.asarray(columns[np.lexsort(columns.T[::-1])])


def ordered(rows: Rows) -> NDArray[np.float64]:
    """The rows in full, sorted."""
    table = rows.table
    return np.asarray(table[np.lexsort(table.T[::-1])])


WHOLE = "(image, anchor, row, column, class, x, y, w, h, anchor w, anchor h)"


@law("assign.rows", title="The rows are wrong", source="SPEC 1", cases=EDGES, everywhere=True)
def test_rows_are_those_of_the_reference(exam: Exam) -> None:
    """Rows equal the reference's, in any order: indices, classes, boxes and anchors' sides, bit for bit."""
    for i, (rows, wanted) in enumerate(zip(exam.rows, exam.budget.reference.rows, strict=True)):
        exam.expect_equal(f"layer {i}, sorted {WHOLE}", ordered(wanted), ordered(rows))


@law(
    "assign.row-order",
    title="The rows come in another order",
    source="SPEC 1, row order",
    cases=cases(min_targets=1),
    everywhere=True,
)
def test_rows_come_in_upstreams_order(exam: Exam) -> None:
    """Rows are sorted by cell (own, left, above, right, below), then by anchor, then by target.

    Or in the order that the dialect has.
    """
    exam.only_if(exam.subject.dialect.row_order != "any", "rows of this dialect may come in any order")
    for i, (rows, wanted) in enumerate(zip(exam.rows, exam.budget.reference.rows, strict=True)):
        exam.expect_equal(f"layer {i}, in order {WHOLE}", wanted.table, rows.table)


@law(
    "assign.larger-anchor-t",
    title="A larger anchor_t takes rows away",
    source="SPEC 1.2",
    cases=cases(min_targets=1, spots=False),
    again=True,
)
def test_a_larger_ratio_limit_only_adds_rows(exam: Exam) -> None:
    """Every row that is built with anchor_t is also built with twice that value."""
    wider = exam.case.hyp.model_copy(update={"anchor_t": 2 * exam.case.hyp.anchor_t})
    for i, (rows, more) in enumerate(zip(exam.rows, exam.on(exam.case.changed(hyp=wider)).rows, strict=True)):
        lost = sorted(set(rows.whole) - set(more.whole))
        exam.expect(not lost, f"layer {i}, {WHOLE} lost with anchor_t {wider.anchor_t:g}", "none", str(lost[:1]))


@law(
    "assign.targets-independent",
    title="The rows of a target depend on the other targets",
    source="SPEC 1",
    cases=cases(min_targets=2, max_targets=4, spots=False),
    again=True,
)
def test_targets_do_not_influence_each_others_rows(exam: Exam) -> None:
    """Several targets get the same rows together as each of them gets in a batch without the others."""
    alone = [exam.on(exam.case.changed(targets=(t,))).rows for t in exam.case.targets]
    for i, rows in enumerate(exam.rows):
        together = sorted(row for one in alone for row in one[i].whole)
        exam.expect_equal(f"layer {i}, sorted {WHOLE}", np.array(together), np.array(sorted(rows.whole)))


@law(
    "assign.ignores-logits",
    title="The rows depend on the predictions",
    source="SPEC 1",
    cases=cases(min_targets=1, spots=False),
    again=True,
)
def test_rows_follow_targets_not_predictions(exam: Exam) -> None:
    """Rows depend only on targets, anchors and grids: negated logits give the same rows."""
    other = exam.on(exam.case.with_logits(tuple(-x for x in exam.case.logits)))
    for i, (here, there) in enumerate(zip(exam.rows, other.rows, strict=True)):
        exam.expect_equal(f"layer {i}, in order {WHOLE}", here.table, there.table)


@law(
    "assign.no-targets",
    title="Without targets, the loss gives rows, or a box or class loss",
    source="SPEC 1",
    cases=cases(max_targets=0),
    everywhere=True,
)
def test_no_targets_give_no_rows_and_no_box_or_class_loss(exam: Exam) -> None:
    """Without targets there are no rows, the box and class items are 0, and the objectness item is 0 or more."""
    exam.only_if(not exam.case.targets, "there are targets")
    exam.expect_equal("box and class items", [0.0, 0.0], exam.items[::2])
    exam.expect(exam.items[1] >= 0, "objectness item", "0 or more", exam.items[1])
    exam.expect_equal("rows of each layer", [0] * exam.case.layers, [len(rows) for rows in exam.rows])
