"""Assignment: which targets meet which anchors, and which cells answer for them.

A layer's grid has H rows and W columns. A target's centre and size are scaled into cells: x and w by W, y
and h by H. It meets an anchor when neither side differs from the anchor's by a factor of anchor_t. Each such
pair is given to the cell its centre lies in, and to the neighbour cells that the centre is nearest to, since
those can predict it too: a prediction may lie half a cell outside its own cell.
"""

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.law import Exam, law
from yololoss.harness.outcome import Rows

from .strategies import cases

F32 = np.float32


def scaled(exam: Exam, layer: int) -> NDArray[np.float32]:
    """Targets' x, y, w, h in cells of a layer, (N, 4), in float32 as SPEC has it."""
    rows, columns = exam.case.grids[layer]
    fractions = exam.case.target_rows.float().numpy()[:, 2:]
    return np.asarray(fractions * np.array((columns, rows, columns, rows), dtype=F32))


def pairs(exam: Exam, layer: int) -> list[tuple[int, int]]:
    """(anchor, target) pairs that meet, counted one by one."""
    limit = F32(exam.case.hyp.anchor_t)
    found = []
    for a, anchor in enumerate(exam.case.anchors[layer]):
        for t, size in enumerate(scaled(exam, layer)[:, 2:]):
            ratios = [s / F32(side) for s, side in zip(size, anchor, strict=True)]
            if all(r < limit and F32(1) / r < limit for r in ratios):
                found.append((a, t))
    return found


def identities(exam: Exam, layer: int) -> list[tuple[float, ...]]:
    """What names a target in a row: image, class, w, h, and the anchor it met."""
    who = exam.case.target_rows.numpy()
    size = scaled(exam, layer)[:, 2:]
    return [(who[t, 0], who[t, 1], *size[t].tolist(), a) for a, t in pairs(exam, layer)]


def row_identities(rows: Rows) -> list[tuple[float, ...]]:
    """The same, read from built rows."""
    return list(zip(rows.image, rows.cls, *rows.box[:, 2:].T.tolist(), rows.anchor, strict=True))


@law("assign.matched-pairs", source="SPEC 1.2", cases=cases(min_targets=1))
def test_rows_are_made_for_exactly_the_pairs_within_the_ratio_limit(exam: Exam) -> None:
    """A target and an anchor get rows if and only if no side is anchor_t times the other's or more."""
    for i, rows in enumerate(exam.rows):
        exam.expect_equal(
            f"layer {i}, sorted (image, class, w, h, anchor) of the pairs that have rows",
            np.array(sorted(set(identities(exam, i)))),
            np.array(sorted(set(row_identities(rows)))),
        )


@law("assign.count-bounds", source="SPEC 1.3", cases=cases(min_targets=1))
def test_a_pair_has_one_to_five_rows_and_at_most_three_off_the_grid_lines(exam: Exam) -> None:
    """A matched pair has 1 to 5 rows, and at most 3 unless its centre lies on or beside a grid line."""
    for i, rows in enumerate(exam.rows):
        wanted = identities(exam, i)
        built = row_identities(rows)
        centres = scaled(exam, i)[:, :2]
        # W - gx is rounded to half an ulp of W at most, so within that of a line both sides can be near.
        margin = np.spacing(F32(max(exam.case.grids[i])))
        beside = (abs(centres - np.round(centres)) <= margin).any(axis=1)
        for (_, target), name in zip(pairs(exam, i), wanted, strict=True):
            same = wanted.count(name)  # duplicate targets cannot be told apart by their rows
            most = 5 if any(beside) else 3
            exam.expect(
                same <= built.count(name) <= most * same,
                f"layer {i}, rows of target {target} with anchor {name[-1]}",
                f"from {same} to {most * same}",
                built.count(name),
            )


@law("assign.offset-range", source="SPEC 1, consequences", cases=cases(min_targets=1))
def test_centres_lie_at_most_half_a_cell_outside_their_cell(exam: Exam) -> None:
    """A built box's centre, relative to its cell, lies in [-0.5, 1.5] on both axes."""
    for i, rows in enumerate(exam.rows):
        xy = rows.box[:, :2]
        exam.expect((xy >= -0.5) & (xy <= 1.5), f"layer {i}, box x, y of row", "in [-0.5, 1.5]", xy)


@law("assign.clamped-indices", source="SPEC 1.4", cases=cases(min_targets=1))
def test_every_index_lies_inside_its_grid(exam: Exam) -> None:
    """Image, anchor, grid row, grid column and class of every built row lie inside their ranges."""
    for i, rows in enumerate(exam.rows):
        height, width = exam.case.grids[i]
        for name, values, end in (
            ("image", rows.image, exam.case.batch),
            ("anchor", rows.anchor, len(exam.case.anchors[i])),
            ("grid row", rows.row, height),
            ("grid column", rows.column, width),
            ("class", rows.cls, exam.case.classes),
        ):
            exam.expect((values >= 0) & (values < end), f"layer {i}, {name}", f"0 to {end - 1}", values)


@law("assign.box-plus-cell", source="SPEC 1.5", cases=cases(min_targets=1))
def test_a_box_moved_by_its_cell_is_its_target(exam: Exam) -> None:
    """A built box moved by its (clamped) cell is one of the scaled targets of its image and class."""
    for i, rows in enumerate(exam.rows):
        wanted = scaled(exam, i)
        who = exam.case.target_rows.numpy()
        cell = np.stack((rows.column, rows.row), axis=1)
        for n, (box, place) in enumerate(zip(rows.box, cell, strict=True)):
            mine = wanted[(who[:, 0] == rows.image[n]) & (who[:, 1] == rows.cls[n])]
            # The box is target minus cell rounded once: exactly what the same subtraction gives.
            exact = np.concatenate((mine[:, :2] - place.astype(F32), mine[:, 2:]), axis=1)
            exam.expect(
                bool((exact == box).all(axis=1).any()),
                f"layer {i}, box of row {n} in cell {tuple(place.tolist())}",
                f"one of {exact.tolist()}",
                str(box.tolist()),
            )


@law(
    "assign.no-targets",
    source="SPEC 1",
    cases=cases().map(
        lambda case: case.changed(targets=(), predictions=case.predictions.model_copy(update={"overrides": ()}))
    ),
)
def test_no_targets_give_no_rows_and_no_box_or_class_loss(exam: Exam) -> None:
    """Without targets there are no rows, the box and class terms are 0, and objectness is still learnt."""
    exam.expect_equal("rows a layer", [0] * exam.case.layers, [len(rows) for rows in exam.rows])
    box, objectness, cls = exam.outcome.calls[-1].items
    exam.expect_equal("box and class items", [0.0, 0.0], [box, cls])
    exam.expect(objectness >= 0, "objectness item", "0 or more", objectness)


@law("state.inputs-unchanged", source="SPEC, drop-in form", cases=cases())
def test_a_call_leaves_its_inputs_as_they_were(exam: Exam) -> None:
    """Neither building targets nor the loss writes to predictions or targets."""
    written = [t.detail for t in exam.outcome.troubles if t.kind == "changed its input"]
    exam.expect_equal("inputs that were written to", [], written)


@law("run.completes", source="SPEC 6", cases=cases())
def test_every_valid_case_is_answered(exam: Exam) -> None:
    """A valid case gives rows, a loss and gradients, and raises nothing."""
    raised = [f"{t.kind}: {t.detail}" for t in exam.outcome.troubles if t.kind.startswith("raised")]
    exam.expect(not raised, "answer", "rows, loss and gradients", "; ".join(raised))
