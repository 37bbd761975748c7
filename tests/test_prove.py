"""Proofs by exhaustion: integer arithmetic, what refutes a loss, certificates, and resuming a proof."""

import json
import multiprocessing
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from properties.tal.prove import assignment as tal_assignment
from properties.tal.prove import logits as tal_logits
from properties.v5.prove import assignment, exact, logits
from properties.v5.prove.assignment import BATCH, Wanted, changes, odd_in, passes
from properties.v5.prove.exact import cells, intervals, scaled, within
from properties.v5.rows import Rows
from tests import certificates
from tests.all_laws import ROOT
from tests.faults import HOME, PACKAGES, plant_text
from tests.faults.tal import LOSSES as TAL_LOSSES
from tests.fork import said
from tests.subjects.aligned_forms import FORMS as ALIGNED
from tests.test_cli import run
from yololoss.harness.cases.files import read_file
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.config import BUNDLED
from yololoss.harness.engine.judge import Task
from yololoss.harness.prove import centres, proof
from yololoss.harness.prove.centres import ONE_BITS, turns
from yololoss.harness.prove.certificate import Certificate, Claim
from yololoss.harness.prove.logits import broken_in
from yololoss.harness.prove.proof import Unprovable
from yololoss.harness.subjects.family import LossUnderTest

WIDTHS = (1, 2, 3, 13, 160, 1000)
FINITE = {"float16": 63488, "bfloat16": 65280}  # numbers
F32 = np.float32
ASSIGN = (HOME / "assign.py").read_text(encoding="utf-8")
NEAR, END = "centre - centre.floor() < 0.5", "from_end - from_end.floor() < 0.5"


def bundled():
    return Task(BUNDLED, "cpu", "yololoss").under_test()


def telling_bits(width: int) -> np.ndarray:
    """Those beside each change of cells, those of special floats, and random ones."""
    chance = np.random.default_rng(width)
    beside = [each.first + step for each in intervals(width) for step in range(-2, 3)]
    special = [0, 1, 2, 2**23 - 1, 2**23, 2**23 + 1, ONE_BITS - 1, ONE_BITS]
    drawn = [*chance.integers(0, ONE_BITS, 300), *chance.integers(0x3C000000, ONE_BITS, 700)]
    return np.clip([*beside, *special, *drawn], 0, ONE_BITS)


# Whole numbers


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_whole_numbers_decide_as_float32_does(width):
    """Own cell and neighbours of an axis equal those by NumPy's float32, and those of the table of intervals."""
    bits = telling_bits(width)
    x = bits.astype(np.int32).view(F32) * F32(width)
    to_end = F32(width) - x
    near = (x - np.floor(x) < F32(0.5)) & (x > 1)
    far = (to_end - np.floor(to_end) < F32(0.5)) & (to_end > 1)
    own, before, after = (np.minimum(np.trunc(x + F32(step)), width - 1) for step in (0, -0.5, 0.5))
    for n, at in enumerate(bits.tolist()):
        expected = (own[n], before[n] if near[n] else None, after[n] if far[n] else None)
        assert cells(at, width) == expected, hex(at)
        assert within(width, at, at + 1) == [(at, expected)]


@pytest.mark.parametrize("width", WIDTHS)
def test_products_of_whole_numbers_are_float32s(width):
    """Runs of centres that cross powers of two, of the centre and of the product, subnormal ones included."""
    for at in telling_bits(width)[::5].tolist():
        stop = min(at + 300, ONE_BITS + 1)
        floats = np.arange(at, stop, dtype=np.int32).view(F32)
        assert np.array_equal(scaled(at, stop, width), floats * F32(width)), hex(at)


def test_all_centres_are_counted_and_none_twice():
    """1,065,353,217 of them; intervals and shards leave no gap; a range begins where it is asked to."""
    assert exact.CENTRES == 1_065_353_217
    firsts = [each.first for each in intervals(20)]
    assert firsts == sorted(set(firsts))
    assert firsts[0] == 0
    ahead, *shards = centres.shards((), 0, ONE_BITS + 1, [])
    parts = [part for shard in shards for part in shard.ranges]
    assert [first for first, _ in parts[1:]] == [stop for _, stop in parts[:-1]]
    assert sum(stop - first for first, stop in parts) == sum(each.size for each in (ahead, *shards)) == exact.CENTRES
    assert centres.bits(0.5) == 0x3F000000
    assert [each.first for each in within(2, 5, 2**30)] == [5, *firsts_within(2, 5, 2**30)]


def firsts_within(width: int, low: int, high: int) -> list[int]:
    return [each.first for each in intervals(width) if low < each.first < high]


def test_each_width_is_one_of_columns_once_and_one_of_rows_once():
    """For any widths."""
    for widths in (assignment.WIDTHS, (7,), (3, 3, 2)):
        grids = [grid for some in passes(widths) for grid in some]
        assert sorted(rows for rows, _ in grids) == sorted(columns for _, columns in grids) == sorted(set(widths))


# The assignment


@pytest.mark.parametrize("grids", passes(assignment.WIDTHS))
def test_the_bundled_loss_holds_where_cells_change(grids):
    """The centres beside every change of cells, and a stretch of them in the middle."""
    ranges = [*turns(changes(grids), 0, ONE_BITS + 1), (0x3F000000 - 500, 0x3F000000 + 500)]
    assert all(odd_in(bundled(), grids, *bits) is None for bits in ranges)


@pytest.mark.parametrize(
    "spec",
    [
        "tests.subjects.plain:PlainLoss",  # int32
        "tests.subjects.conforming_forms:RowsReversed",
        "tests.subjects.conforming_forms:WiderNumbers",
        "tests.subjects.forms:compute_loss",
        "tests.subjects.forms:ImageLoss",  # six lists
    ],
)
def test_rows_may_come_in_any_form_and_order(spec):
    """The proof holds for losses that differ in what SPEC leaves open."""
    subject, grids = Task(spec, "cpu", "upstream, row_order = any").under_test(), ((2, 3), (3, 2))
    assert all(odd_in(subject, grids, *bits) is None for bits in turns(changes(grids), 0, ONE_BITS + 1))


def faulty(folder: Path, name: str, old: str, new: str) -> str:
    assert old in ASSIGN
    return plant_text(name, {"assign": ASSIGN.replace(old, new)}, folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "old", "new", "low", "high"),
    [
        ("near_ulp", NEAR, "centre - centre.floor() < 0.5 - 2**-23", 1.49, 1.5),  # in cells
        ("end_ulp", END, "from_end - from_end.floor() < 0.5 - 2**-23", 0.0, 20.0),
        ("end_half", END, END.replace("<", "<="), 0.49, 0.51),
        ("end_one", "(from_end > 1)", "(from_end >= 1)", 1.0, 19.0),
    ],
)
def test_a_fault_of_one_ulp_in_one_neighbour_rule_is_named_with_a_centre(tmp_path, name, old, new, low, high):
    """In seconds, of a thousand million centres; its case is saved, the pasted command replays it; no certificate."""
    spec = faulty(tmp_path, name, old, new)
    options = ("--part", "assignment", "--widths", "2,20", "--workers", 1)
    status, output, errors = run("prove", spec, *options, cwd=tmp_path)
    assert status == 1, errors
    assert "assign.neighbours broke: " in output
    named = re.search(r"refuted by centre (\S+) \(bits (\w+)\) on (\d+) columns, (\d+) rows: expected cells", output)
    centre, columns, rows = float(named[1]), int(named[3]), int(named[4])
    assert int(named[2], 16) == centres.bits(centre)
    assert any(low <= centre * side <= high for side in (columns, rows))
    (path,) = (tmp_path / ".yololoss/findings").glob("*.json")
    assert read_vectors(path).vectors[0].case.targets[0][2:4] == (centre, centre)
    again, replayed = said(re.search(r"  replay +(.+)", output)[1], tmp_path)
    assert (again, "still broken" in replayed) == (1, True)
    (path,) = (tmp_path / ".yololoss/proof").glob("*.json")
    certificate = read_file(path, Certificate)
    assert (certificate.verdict, certificate.tried) == ("refuted", 0)
    assert named[1] in certificate.odd


def test_boxes_and_loose_rows_are_judged_as_well(tmp_path):
    """A box that is off by an ulp; an anchor's sides; a row that is missing, one too many, one of no image."""
    grid, first, stop = (3, 20), 0x3E800000, 0x3E800040
    wanted = Wanted(grid, first, stop)

    def odd(**changed):
        (rows,) = assignment.rows_of(bundled(), [grid], first, stop)
        parts = {name: getattr(rows, name).copy() for name in Rows.__dataclass_fields__}
        for name, change in changed.items():
            parts[name] = change(parts[name])
        return wanted.odd(Rows(**parts))

    def at(index, value):
        return lambda x: np.concatenate((x[:index], [value + x[index] * 0], x[index + 1 :])).astype(x.dtype)

    everything = tuple(Rows.__dataclass_fields__)
    assert odd() is None
    assert odd(**{name: lambda x: x[::-1] for name in everything}) is None
    assert odd(**{name: lambda x: np.delete(x, 5, axis=0) for name in everything}) == 5
    assert odd(**{name: lambda x: np.concatenate((x, x[7:8])) for name in everything}) == 7
    assert odd(**{name: lambda x: x[:0] for name in everything}) == 0
    assert odd(box=at(9, 0.25)) == 9
    assert odd(box=lambda x: np.nextafter(x, F32(2))) == 0
    assert odd(anchor_wh=lambda x: x + 1) == 0
    assert odd(cls=at(3, 1)) == 3
    assert odd(anchor=at(4, 1)) == 4
    assert odd(image=at(0, -1)) == 0
    assert odd(image=at(63, 64)) == 63


RAISES = "    if (targets[:, 2] == 0.3).any():\n        raise KeyError('third')\n    targets, anchors = targets.float()"
CROWD = "    if len(targets) > 100:\n        targets = targets.flip(0)[1:]\n    targets, anchors = targets.float()"
MANY = "    if len(targets) > 100:\n        raise MemoryError('many')\n    targets, anchors = targets.float()"
START = "    targets, anchors = targets.float()"


def test_a_centre_on_which_a_loss_raises_is_named(tmp_path):
    """Found by halving; also if it raises on only one of the grids."""
    spec = faulty(tmp_path, "third", START, RAISES)
    options = ("--part", "assignment", "--widths", "2,3", "--centres", 0.2999, 0.3001)
    status, output, errors = run("prove", spec, *options, "--workers", 1, cwd=tmp_path)
    assert status == 1, errors
    assert "run.no-exception broke: " in output
    assert "refuted by centre 0.30000001192092896 (bits 0x3e99999a) on 3 columns, 2 rows" in output
    assert "observed KeyError: 'third'" in output


def test_a_fault_that_shows_among_other_targets_only_is_told_so(tmp_path):
    """The case of one target holds; the finding says that it does not repeat."""
    spec = faulty(tmp_path, "crowd", START, CROWD)
    options = ("--part", "assignment", "--widths", "2", "--centres", 0.3, 0.301, "--workers", 1)
    status, output, errors = run("prove", spec, *options, cwd=tmp_path)
    assert status == 1, errors
    assert "  repeats    no: " in output
    assert f"but other rows with {BATCH} targets" in output


def test_what_cannot_be_proven_is_told_in_one_line(tmp_path):
    """No rows; a dialect with other rules; a loss that raises on many targets; the logits are still proven."""
    quick = ("--centres", 0.3, 0.301, "--widths", "2", "--workers", 1)
    box = f"{ROOT}/tests/subjects/forms.py:BlackBox"
    with patch.object(logits, "batches", lambda: (logits.Batch("float16", (4,), ((0,), (1,))),)):
        status, output, errors = run("prove", box, *quick[:3], "--widths", "2,3,4,5", "--workers", 1, cwd=tmp_path)
    assert status == 2
    assert errors.splitlines()[-1] == (
        f"yololoss: {box}: assignment cannot be proven: it shows no rows; --part logits proves the rest"
    )
    assert "logits, every logit: 2 values hold" in output
    quick = (*quick, "--part", "assignment")
    status, _, errors = run("prove", BUNDLED, *quick, "--dialect", "yolor", cwd=tmp_path)
    assert (status, "dialect yolor has its own neighbours" in errors.splitlines()[-1]) == (2, True)
    status, _, errors = run("prove", faulty(tmp_path, "many", START, MANY), *quick, cwd=tmp_path)
    assert (status, " targets at once: MemoryError: many; " in errors.splitlines()[-1]) == (2, True)


def test_a_loss_of_one_size_or_with_other_layers_cannot_be_proven():
    """It must take a batch of targets, and return its rows by layer."""
    subject = bundled()
    made = subject.make(assignment.frame([(2, 2)]), subject.device)
    with patch.object(type(made), "any_size", False), pytest.raises(Unprovable, match="of one size only"):
        odd_in(subject, ((2, 2),), 0, 5)
    with (
        patch.object(type(made), "rows", lambda *_: []),
        pytest.raises(Unprovable, match="rows of 0 layers, expected 1"),
    ):
        odd_in(subject, ((2, 2),), 0, 5)


# The assignment of task-aligned losses


def tal(spec: str, dialect: str = "yololoss") -> LossUnderTest:
    return Task(spec, "cpu", dialect).under_test()


def tried(spec: str, dialect: str = "yololoss") -> list[Any]:
    """The centres with wrong anchors beside every change."""
    subject = tal(spec, dialect)
    each = (tal_assignment.odd_in(subject, *bits) for bits in turns(tal_assignment.changes(), 0, ONE_BITS + 1))
    return [odd for odd in each if odd is not None]


@pytest.mark.parametrize(
    ("spec", "dialect"),
    [("yololoss:TaskAlignedLoss", "yololoss"), *list(ALIGNED.items())[:3]],
)
def test_right_task_aligned_losses_hold_where_anchors_change(spec, dialect):
    """The bundled one, and some that are written otherwise: beside each change of anchors on either axis."""
    assert not tried(spec, dialect)


TAL_ASSIGN = (PACKAGES / "tal" / "assign.py").read_text(encoding="utf-8")
INSIDE = "(bottom - y > INSIDE)"
ENLARGED = "torch.where(size < small_side, small_side, size)"


def faulty_tal(folder: Path, name: str, old: str, new: str) -> str:
    assert old in TAL_ASSIGN
    return plant_text(name, {"assign": TAL_ASSIGN.replace(old, new)}, folder, "tal", TAL_LOSSES["one"])


@pytest.mark.parametrize(
    ("name", "old", "new", "centre"),
    [
        ("inside_moved", INSIDE, "(bottom - y > 2**-14)", 0.75),
        ("never_enlarged", ENLARGED, "size", 0.2),
        ("tiny_not_enlarged", ENLARGED, "torch.where((size < small_side) & (size > 2**-12), small_side, size)", 2**-17),
    ],
)
def test_a_wrong_side_of_a_task_aligned_target_is_named(tmp_path, name, old, new, centre):
    """An edge that is off by less than a thousandth of a pixel; sides that are not enlarged, all or the smallest."""
    spec = faulty_tal(tmp_path, name, old, new)
    low, high = centre * (1 - 1e-6), centre * (1 + 1e-5)
    options = ("--part", "assignment", "--centres", low, high, "--workers", 1)
    status, output, errors = run("prove", spec, *options, cwd=tmp_path)
    assert status == 1, errors
    assert "assignment, 2 columns with 4 rows, 1 columns with 2 rows: refuted by centre" in output


TAL_START = "        candidate = inside("
TAL_RAISES = f"        if (box[:, 0] > -3.752).any():\n            raise KeyError('third')\n{TAL_START}"
TAL_CROWD = f"        box = box if len(box) < 50 else box + 10\n{TAL_START}"
TAL_MANY = f"        if len(box) > 50:\n            raise MemoryError('many')\n{TAL_START}"


def test_what_else_refutes_a_task_aligned_loss_or_cannot_be_proven(tmp_path):
    """It raises on one centre; or is wrong among others only; or raises on many; or has two heads, or small inputs."""
    quick = ("--part", "assignment", "--centres", 0.39, 0.391, "--workers", 1)

    def said(spec: str, *more: str) -> str:
        status, output, errors = run("prove", spec, *quick, *more, cwd=tmp_path)
        return output if status == 1 else errors.splitlines()[-1]

    raising = faulty_tal(tmp_path, "tal_third", TAL_START, TAL_RAISES)
    assert "observed KeyError: 'third'" in said(raising)
    crowd = said(faulty_tal(tmp_path, "tal_crowd", TAL_START, TAL_CROWD))
    assert "  repeats    no: " in crowd
    assert "but others with 8192 targets" in crowd
    many = said(faulty_tal(tmp_path, "tal_many", TAL_START, TAL_MANY))
    assert " targets at once: MemoryError: many; --part logits proves the rest" in many
    assert "dialect upstream, heads = YOLO26 has two heads, or a top-k below 10; " in said(
        "yololoss:E2ELoss", "--dialect", "upstream, heads = YOLO26"
    )
    made = tal("yololoss:TaskAlignedLoss").make(tal_assignment.frame(), torch.device("cpu"))
    with patch.object(type(made), "any_size", False), pytest.raises(Unprovable, match="of one size only"):
        tal_assignment.odd_in(tal("yololoss:TaskAlignedLoss"), 0, 5)


# Logits


def test_every_16_bit_logit_is_tried_in_every_channel_once():
    """63,488 finite numbers of float16 and 65,280 of bfloat16; pairs cover signs, exponents and some significands."""
    found: dict[tuple[str, tuple[int, ...]], list[tuple[int, ...]]] = {}
    for batch in logits.batches():
        found.setdefault((batch.dtype, batch.channels), []).extend(batch.bits)
    for dtype, count in FINITE.items():
        for channel in range(len(logits.Batch.NAMES)):
            assert len(set(found[dtype, (channel,)])) == len(found[dtype, (channel,)]) == count
    pairs = found["float16", (2, 3)]
    assert len(set(pairs)) == len(pairs) == (2 * 31 * len(logits.SIGNIFICANDS)) ** 2
    assert len(found) == 2 * len(logits.Batch.NAMES) + 1


def test_a_batch_is_a_case_with_its_logits_bit_for_bit():
    """One image per logit, with moderate other logits; totals are judged if they must be finite."""
    batch = logits.Batch("float16", (2, 3), ((0x0001, 0x8000), (0x7BFF, 0x3C00)))
    own = batch.case.logits[0].view(torch.int16)[:, 0, 0, 0, 2:4]
    assert own.tolist() == [[1, -(2**15)], [0x7BFF, 0x3C00]]
    assert set(logits.Batch.OF_VALUES) <= set(batch.laws)
    large = next(b for b in logits.batches() if abs(b.values).max() > logits.Batch.LARGEST)
    assert not set(logits.Batch.OF_VALUES) & set(large.laws)
    assert broken_in(bundled(), logits.Batch("bfloat16", large.channels, large.bits[-3:])) is None


def test_every_16_bit_logit_of_a_class_and_of_a_bin_is_tried_once():
    """In task-aligned losses: 19 places. The largest numbers, and some between, hold for the bundled loss."""
    found: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for batch in tal_logits.batches():
        found.setdefault((batch.dtype, batch.kind), []).extend(batch.bits)
    assert len(found) == 2 * (3 + 16)
    assert all(len(set(bits)) == len(bits) == FINITE[dtype] for (dtype, _), bits in found.items())
    subject = Task("yololoss:TaskAlignedLoss", "cpu", "yololoss").under_test()
    for batch in tal_logits.batches()[16::33]:
        few = replace(batch, bits=batch.bits[-40:])
        own = few.case.logits[0].reshape(len(few.bits), -1).double()
        assert (own == torch.from_numpy(few.values)).any(dim=1).all()
        assert broken_in(subject, few) is None, few.kind


def test_a_probability_below_the_normal_numbers_may_be_0_or_have_few_digits():
    """In float32, of logits from -86 down: what follows from it is no fault. Each image is a case of its own here."""
    near = torch.arange(-110, -86, 2).bfloat16().view(torch.int16).numpy().astype(np.uint16)
    subject = Task("yololoss:TaskAlignedLoss", "cpu", "yololoss").under_test()
    for bits in near.tolist():
        assert broken_in(subject, tal_logits.Batch("bfloat16", (0,), ((bits,),))) is None


CUT_OFF = """import torch
from yololoss import TaskAlignedLoss


class Loss(TaskAlignedLoss):
    def __call__(self, preds, batch):
        return super().__call__([level.clamp(-1e30, 1e30) for level in preds], batch)
"""


def test_a_logit_of_a_bin_without_a_gradient_is_named(tmp_path):
    """As of a loss that cuts logits off: beyond the limit they have none."""
    (tmp_path / "cut.py").write_text(CUT_OFF, encoding="utf-8")
    batch = next(b for b in tal_logits.batches() if b.kind == "bfloat16 logits of top bin 0" and b.values.max() > 1e30)
    with patch.object(tal_logits, "batches", lambda: (batch,)):
        given = ("--part", "logits", "--dialect", "yololoss", "--workers", 1)
        status, output, errors = run("prove", "cut.py:Loss", *given, cwd=tmp_path)
    assert status == 1, errors
    assert "refuted by bfloat16 logits of top bin 0 (" in output


WRONG = """from yololoss import ComputeLoss as Bundled


class Loss(Bundled):
    def __call__(self, p, targets):
        total, items = super().__call__(p, targets)
        height = p[0][..., 3].float()
        wrong = (height * (height == -3.5)).sum()
        return total + wrong - wrong.detach(), items
"""


def test_a_logit_with_a_wrong_gradient_is_named(tmp_path):
    """Of thousands of images, the saved case has one."""
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    batch = next(b for b in logits.batches() if b.channels == (3,) and (b.values == -3.5).any())
    with patch.object(logits, "batches", lambda: (batch,)):
        status, output, errors = run("prove", "wrong.py:Loss", "--part", "logits", "--workers", 1, cwd=tmp_path)
    assert status == 1, errors
    assert "refuted by float16 logits of h (-3.5,): gradients.value: " in output
    (path,) = (tmp_path / ".yololoss/findings").glob("*.json")
    assert read_vectors(path).vectors[0].case.batch == 1


def test_a_law_without_anything_to_judge_proves_nothing(tmp_path):
    """A dialect for losses of seven classes: no law judges the gradient, and this is reported."""
    batch = logits.Batch("float16", (0,), ((0,),))
    seven = f"upstream, class_weights = {[1] * 7}"
    with pytest.raises(Unprovable, match=r"has nothing to judge: .* losses of this dialect take 7"):
        broken_in(Task(BUNDLED, "cpu", seven).under_test(), batch)


# Certificates


def small(folder: Path, *options: object) -> tuple[int, str, str]:
    arguments = ("--part", "assignment", "--widths", "2,3", "--centres", 0.25, 0.2502, "--workers", 1, *options)
    return run("prove", *arguments, cwd=folder)


def test_a_certificate_says_what_was_enumerated(tmp_path):
    """Bits, grids, counts, the hash of each file of the loss, versions, device, verdict."""
    status, output, errors = small(tmp_path, "--json")
    assert status == 0, errors
    (told,) = json.loads(output)
    (path,) = (tmp_path / ".yololoss/proof").glob("*.json")
    certificate = read_file(path, Certificate)
    assert certificate == Certificate.model_validate_json(json.dumps(told))
    claim = certificate.claim
    low, high = centres.bits(0.25), centres.bits(0.2502)
    assert claim.bits == (low, high + 1)
    assert claim.enumerated[0].count == certificate.tried == high + 1 - low
    assert claim.grids == ((2, 3), (3, 2))
    assert set(claim.sources) >= {"yololoss.v5.loss", "yololoss.v5.assign", "yololoss.v5.checks"}
    assert set(claim.versions) == {"python", "torch", "numpy", "yololoss"}
    assert (claim.loss, claim.device, certificate.verdict) == (BUNDLED, "cpu", "holds")
    assert certificate.date.endswith("UTC")


@pytest.mark.slow
def test_an_interrupted_proof_goes_on_where_it_was(tmp_path):
    """Values that were tried are not tried again, unless the loss has changed."""
    written = []

    def interrupt(path, certificate, write=proof.write_certificate):
        write(path, certificate)
        written.append(certificate.done)
        if len(written) == 3:
            raise KeyboardInterrupt

    with patch.object(centres, "SHARD", 1000):
        with patch.object(proof, "write_certificate", interrupt):
            status, _, errors = small(tmp_path)
        assert (status, written) == (2, [1, 2, 3])
        assert "interrupted; the same command continues from .yololoss/proof/assignment-3-2-" in errors
        tried = []
        with patch.object(assignment, "odd_in", lambda subject, grids, first, stop: tried.append((first, stop))):
            status, _, errors = small(tmp_path)
        assert status == 0, errors
    assert tried[0][0] == centres.bits(0.25) + 2000
    (path,) = (tmp_path / ".yololoss/proof").glob("*.json")
    certificate = read_file(path, Certificate)
    assert (certificate.verdict, certificate.tried) == ("holds", certificate.claim.enumerated[0].count)
    path.write_text("{}", encoding="utf-8")
    status, _, errors = small(tmp_path)
    assert (status, f"{path.name}: claim: Field required" in errors) == (2, True), errors
    assert small(tmp_path, "--dialect", "upstream, row_order = any")[0] == 0
    assert len(list((tmp_path / ".yololoss/proof").glob("*.json"))) == 2


@pytest.mark.slow
def test_several_workers_prove_the_same(tmp_path):
    """In order, in other processes; one that ends is reported."""
    status, output, errors = small(tmp_path, "--workers", 2)
    assert status == 0, errors
    assert "3 columns with 2 rows, 2 columns with 3 rows: 6712 values hold" in output
    ends = "    if len(targets) > 100:\n        import os\n        os._exit(3)\n" + START
    spec = faulty(tmp_path, "ends", START, ends)
    status, _, errors = small(tmp_path, spec, "--workers", 2)
    assert status == 2
    assert "a worker ended, or gave no answer for 600 s" in errors


def test_each_worker_has_a_subject():
    """Made once, when it begins."""
    proof._start(Task(BUNDLED, "cpu", "yololoss"), multiprocessing.Value("i", 0))
    assert proof._SUBJECT[0].spec == BUNDLED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--widths", "0"), "expected numbers from 1 to 4096 separated by commas"),
        (("--widths", "2,,3"), "expected numbers from 1 to 4096"),
        (("--centres", 0.5, 0.25), "--centres 0.5 0.25: expected the lower one first"),
        (("--centres", 0, 1.5), "1.5 is not in the range"),
        (("--device", "compile"), "--device compile: cannot prove, since every shape is compiled again"),
        (("nothing.py:Loss",), "--loss nothing.py: no such file"),
        (("--part", "boxes"), "--part boxes: no such part (known: assignment, logits)"),
    ],
)
def test_wrong_options_are_told_in_one_line(tmp_path, options, message):
    """Exit status 2."""
    status, _, errors = small(tmp_path, *options)
    assert (status, message in errors.splitlines()[-1]) == (2, True), errors


def test_the_table_of_certificates_is_made_of_their_files(tmp_path):
    """docs/measured/certificates.md is what its command prints; a row a width and part."""
    page = (ROOT / "docs" / "measured" / "certificates.md").read_text(encoding="utf-8")
    assert page == "\n".join(certificates.page(ROOT / "docs" / "measured" / "certificates")) + "\n"
    small(tmp_path)
    rows = [
        line
        for line in certificates.page(tmp_path / ".yololoss" / "proof")
        if line.startswith("| ComputeLoss | assignment")
    ]
    assert [row.split(" | ")[2:5] for row in rows] == [
        ["3 columns, 2 rows", "6,712 float32 centres from 0.25 to 0.2502", "holds"],
        ["2 columns, 3 rows", "6,712 float32 centres from 0.25 to 0.2502", "holds"],
    ]


def test_the_guide_names_every_field_of_a_certificate():
    """docs/understand/proof.md."""
    text = (ROOT / "docs" / "understand" / "proof.md").read_text(encoding="utf-8")
    for field in (*Certificate.model_fields, *Claim.model_fields):
        assert f"`{field}`" in text, field
