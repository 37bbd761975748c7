"""One fault, one finding: what explains that a law broke, and which findings are one fault."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from properties.v5.case import Case as V5Case
from properties.v5.case import SeededLogits
from properties.v5.causes import without
from properties.v5.items import OF_RIGHT_TOTAL
from tests.faults import Fault, plant, texts_of
from tests.faults.catalogue import BY_NAME
from tests.judging import Made, made, on_its_device
from tests.test_fuzz import BUNDLED, orders, settings
from tests.together import tell
from yololoss import TaskAlignedLoss
from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.engine import clerk, session, worker
from yololoss.harness.engine.faults import explaining, grouped, groups, with_explained
from yololoss.harness.engine.judge import ALIVE, OFTEN, Answer, Judge, Task, Told, assumes_in_vain, judged
from yololoss.harness.engine.plan import Counts, Origin, Plan
from yololoss.harness.engine.raw import Raw, raw_path, read_raw, write_raw
from yololoss.harness.engine.session_summary import verdict_of
from yololoss.harness.findings.finding import Finding, keep
from yololoss.harness.laws.exam import ELSEWHERE, Run


def planted(folder, name: str, *laws: str) -> Plan:
    """The plan for a fault of the catalogue, and these laws."""
    return Plan(laws, on_its_device(plant(BY_NAME[name], folder), "cpu"))


def broke(plan: Plan, law: str, cases: list[Made]) -> list[tuple[Case, Told]]:
    """The cases that break a law, and how."""
    told = ((each.case, judged(plan.laws[law], Run(plan.subject, each.case), plan)[0]) for each in cases)
    return [(case, found) for case, found in told if found is not None]


def test_a_law_is_explained_by_an_earlier_one_that_breaks_on_what_it_ran(tmp_path):
    """Not by one that holds there, nor by a later one."""
    plan = planted(tmp_path, "distance_not_squared", "boxes.item", "boxes.gradient", "classes.item")
    cases = [each for each in made(plan, range(60)) if each.case.dtype == "float32"]
    assert {told.explained for _, told in broke(plan, "boxes.item", cases)} == {""}
    assert {told.explained for _, told in broke(plan, "boxes.gradient", cases)} >= {"boxes.item"}
    assert not broke(plan, "classes.item", cases)


USUAL = {name: V5Case.model_fields[name].default for name in ("hyp", "options", "dtype", "targets_dtype", "layout")}
ROWS = ("assign", "boxes.item", "objectness.gradient")


def one_case(folder: Path, *names: str, laws: tuple[str, ...] = ROWS, numbers: int = 40) -> tuple[Plan, list[Made]]:
    """The plan for these faults together, and some cases that have rows."""
    *others, last = (BY_NAME[name] for name in names)
    subject = on_its_device(plant(last, folder, texts=texts_of(others)), "cpu")
    plan = Plan(laws, subject)
    cases = [
        each for each in made(plan, range(numbers)) if each.case.dtype != "float16" and each.case.options.calls == 1
    ]
    return plan, cases


def test_a_later_step_is_judged_by_the_rows_that_the_loss_built(tmp_path):
    """So a wrong assignment alone breaks no law about boxes, and hides no wrong overlap."""
    plan, cases = one_case(tmp_path, "no_neighbours")
    assert broke(plan, "assign.neighbours", cases)
    assert not broke(plan, "boxes.item", cases)
    plan, cases = one_case(tmp_path, "no_neighbours", "distance_not_squared")
    told = [told for _, told in broke(plan, "boxes.item", cases)]
    assert {each.explained for each in told} == {""}
    assert any(each.what == "box item, given the rows that it built" for each in told)
    told = [told for _, told in broke(plan, "objectness.gradient", cases)]
    assert {each.explained for each in told} == {"boxes.item"}


def test_items_that_are_not_those_of_a_right_total_are_one_fault(tmp_path):
    """The laws of the items say nothing then. Of a wrong total it is not said."""
    plan = planted(tmp_path, "items_times_batch", "totals.sum", "boxes.item", "objectness.item", "classes.item")
    cases = [each for each in made(plan, range(60)) if each.case.batch > 1]
    ((case, told), *_) = broke(plan, "totals.sum", cases)
    (finding,) = findings(plan, tmp_path, ("totals.sum", case))
    assert (told.what, finding.title.partition(", with")[0]) == (
        OF_RIGHT_TOTAL,
        "The items are not those of the total, which is right",
    )
    assert not any(broke(plan, law, cases) for law in ("boxes.item", "objectness.item", "classes.item"))
    plan = planted(tmp_path, "no_batch", "totals.sum", "boxes.item")
    assert {told.what for _, told in broke(plan, "totals.sum", cases)} == {"total"}


def test_rows_outside_the_grid_judge_nothing(tmp_path):
    """Then the assignment explains the later step, as far as it gives a result."""
    plan, cases = one_case(tmp_path, "no_neighbours")
    runs = (Run(plan.subject, each.case) for each in cases)
    run = next(each for each in runs if any(map(len, each.outcome.rows)))
    assert run.as_shown is not None
    other = Run(plan.subject, run.case)
    other.outcome = replace(run.outcome, rows=tuple(replace(rows, image=rows.image + 99) for rows in run.outcome.rows))
    assert other.as_shown is None


def test_nothing_explains_a_law_that_does_not_apply():
    """Such as one about an accelerator, by which a saved case is replayed on a CPU."""
    plan = Plan((), on_its_device("yololoss:ComputeLoss", "cpu"))
    assert plan.explaining("devices.rows") == ()
    assert [law.id for law in plan.explaining("classes.gradient")][:2] == [
        "assign.clamped-indices",
        "assign.image-and-class",
    ]


def test_what_rounding_hides_explains_as_well(tmp_path):
    """In float16 a wrong overlap is within the tolerance of the box item, but not of the objectness gradient."""
    plan = planted(tmp_path, "distance_not_squared", "boxes.item", "objectness.gradient")
    halves = [each for each in made(plan, range(60)) if each.case.dtype == "float16"]
    hidden = [
        told
        for case, told in broke(plan, "objectness.gradient", halves)
        if judged(plan.laws["boxes.item"], Run(plan.subject, case))[0] is None
    ]
    assert {told.explained for told in hidden} == {"boxes.item"}


def test_a_law_about_two_calls_is_explained_by_a_call_that_raises_by_itself(tmp_path):
    """The loss keeps no state: it has an error on what the law calls it on in between."""
    plan = planted(tmp_path, "sorting_needs_two_rows", "run.no-exception", "state.after-other-sizes")
    number = 15  # of a case on which the law breaks
    found = next(
        told for n in range(number, 400) for _, told in broke(plan, "state.after-other-sizes", [*made(plan, [n])])
    )
    assert found.explained == "run.no-exception"


class InFloat32(TaskAlignedLoss):
    """A wrong total, and an error where another dtype is the default."""

    def __call__(self, preds: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.get_default_dtype() != torch.float32:
            raise RuntimeError("expected Float, got Double")
        total, items = super().__call__(preds, batch)
        return 1.5 * total, items


def test_a_wrong_value_explains_no_error_of_another_run():
    """They are two faults, though both laws break on the same cases."""
    plan = Plan(("totals.value", "state.default-dtype"), on_its_device(f"{__name__}:InFloat32", "cpu"))
    cases = [*made(plan, range(20))]
    assert broke(plan, "totals.value", cases)
    assert {told.explained for _, told in broke(plan, "state.default-dtype", cases)} == {""}


@pytest.mark.parametrize(
    ("name", "why", "law"),
    [
        ("scales_targets_in_place", "state.inputs-unchanged", "state.keeps-caller-settings"),
        ("adds_up_losses", "state.repeated-calls", "state.deep-copy"),
    ],
)
def test_what_a_loss_keeps_or_writes_explains_an_error_of_another_run(tmp_path, name, why, law):
    """It may raise only since an earlier call wrote to what it is given, or kept something."""
    plan = planted(tmp_path, name, why, law)
    cases = ([each] for each in made(plan, range(99)) if not each.case.options.autobalance)  # where calls differ anyway
    found = [told for case in cases for _, told in broke(plan, law, case) if told.what == ELSEWHERE or "copy" in law]
    assert {told.explained for told in found} == {why}


def test_a_law_about_a_setting_alone_is_one_fault_with_what_needs_it(tmp_path):
    """An item that is wrong only with autobalance, and a law about autobalance."""
    laws = ("objectness.item", "totals.autobalance-first-call")
    plan = planted(tmp_path, "autobalance_too_soon", *laws)
    cases = [[each] for each in made(plan, range(99))]
    found = findings(
        plan, tmp_path, *((law, next(each[0].case for each in cases if broke(plan, law, each))) for law in laws)
    )
    assert [fault.laws for fault in grouped(found, Task(plan.subject.spec, "cpu", "yololoss"), plan)] == [laws]


def test_a_worker_writes_no_finding_that_a_known_one_explains(tmp_path):
    """It counts them, and a law that another one has explained is not run where that one breaks."""
    spec = plant(BY_NAME["distance_not_squared"], tmp_path)
    laws = ("boxes.item", "boxes.gradient")
    worker.run(orders(tmp_path, loss=spec, laws=laws, gate=True, cases=60))
    found = [read_raw(path).told for path in (tmp_path / "raw").iterdir()]
    assert {told.law for told in found if not told.explained} >= {"boxes.item"}
    notes = json.loads(worker.notes_path(tmp_path, 0).read_text(encoding="utf-8"))
    assert notes["boxes.gradient"]["explained"]["boxes.item"] >= 1
    assert notes["boxes.item"]["explained"] == {}


def test_a_wrong_gradient_explains_no_wrong_value(tmp_path):
    """It explains the wrong gradient of a law that compares both: another fault may be behind the value."""
    law, without = "totals.large-sizes", "objectness_gradient_forgotten"
    laws = ("objectness.gradient", law)
    plan, cases = one_case(tmp_path, without, "class_in_a_byte", laws=laws, numbers=80)
    told = [told for _, told in broke(plan, law, cases)]
    assert {(each.what.split("[")[0], each.explained) for each in told} == {
        ("total", ""),
        ("gradient at image, anchor, row, column, channel", laws[0]),
    }


def test_a_worker_notes_an_earlier_law_that_broke_on_a_case_made_for_another(tmp_path):
    """Only such a case has so many images: the later law breaks there for two reasons, and one is new."""
    names = ("objectness_gradient_forgotten", "class_in_a_byte")
    spec = plant(BY_NAME[names[1]], tmp_path, texts=texts_of([BY_NAME[names[0]]]))
    laws = ("assign.image-and-class", "objectness.gradient", "totals.very-large-sizes")
    made = (tmp_path / "raw").iterdir
    worker.run(orders(tmp_path, loss=spec, laws=laws, gate=True, cases=40))
    found = [read_raw(path).told for path in made()]
    assert {told.law for told in found if not told.explained} >= set(laws[:2])


# What the public package does (docs/use/downstream.md): a box without width and height, and one without height; a power
# of 0; one row to sort; a layer without objectness loss; a box that fits exactly.
UPSTREAMS = ("angle_by_division", "power_of_zero", "sorting_needs_two_rows", "autobalance_without_floor")
EXACT_FIT = Fault(
    "alpha_unbounded", "IOU", "missing step", "totals.finite", "boxes", ".clamp(min=eps)).detach()", ").detach()"
)


@pytest.mark.slow
def test_the_six_faults_of_the_public_package_are_told_once_each():
    """Three of them break one law, and no law about two calls is told beside them."""
    told = tell((*(BY_NAME[name] for name in UPSTREAMS), EXACT_FIT), 1500)
    assert told.faults == ("totals.finite",) * 2 + ("gradients.finite",) * 2 + ("run.no-exception",) * 2


@pytest.mark.slow
def test_a_loss_that_changes_its_input_is_told_so_first():
    """Whatever else breaks because of it: a loss that scales its targets gives other rows when it is called again."""
    told = tell((BY_NAME["scales_targets_in_place"],), 300)
    assert told.faults[0] == "state.inputs-unchanged"


def explained_raw(made: session.Session, law: str, by: str) -> Raw:
    """What a worker writes of a law that an earlier one explains."""
    told = Told(law, "total", "1", "2", "none", explained=by)
    return Raw(told, made.plan.case(Origin(0, bytes(made.plan.domains[0].size))), Origin(0, bytes(500)))


@pytest.mark.parametrize("known", ["a finding", "waived", "explained itself", None])
def test_an_explained_law_is_a_finding_only_if_nothing_else_shows_the_fault(tmp_path, known):
    """The first of several: it stands for the law that explains it, which broke on no case of the session."""
    laws = ("totals.sum", "totals.value", "totals.items-detached", "totals.finite")
    begun = session.begin(tmp_path, settings(laws=laws, waived=("totals.sum",) if known == "waived" else (), gate=True))
    for law in ("totals.value", "totals.items-detached"):
        write_raw(tmp_path, BUNDLED, explained_raw(begun, law, "totals.sum"))
    if known in ("a finding", "explained itself"):
        law = "totals.sum" if known == "a finding" else "totals.finite"
        write_raw(tmp_path, BUNDLED, explained_raw(begun, law, ""))
        (path,) = (each for each in (tmp_path / "raw").iterdir() if read_raw(each).told.law == law)
        clerk.give_up(clerk.Duty(begun.settings, tmp_path, 0.0), path, begun.subject)
        begun._take_record(path)
    if known == "explained itself":
        notes = {"totals.sum": {"notes": {}, "not_applicable": {}, "explained": {"totals.finite": 3}}}
        worker.notes_path(tmp_path, 0).write_text(json.dumps(notes), encoding="utf-8")
    waiting = begun._waiting()
    assert [raw.told.law for _, raw in waiting] == ([] if known else ["totals.value"])
    assert len(list((tmp_path / "raw").iterdir())) == len(waiting)


def test_a_finding_stands_for_the_law_that_explains_it(tmp_path):
    """Laws that the same one explains are listed with it."""
    begun = session.begin(tmp_path, settings(laws=("totals.sum", "totals.value", "totals.finite")))
    write_raw(tmp_path, BUNDLED, explained_raw(begun, "totals.value", "totals.sum"))
    ((path, raw),) = begun._waiting()
    clerk.attend(clerk.Duty(begun.settings, tmp_path, 0.0), path)
    begun._take_record(path)
    notes = {"totals.finite": {"notes": {}, "not_applicable": {}, "explained": {"totals.sum": 3}}}
    worker.notes_path(tmp_path, 0).write_text(json.dumps(notes), encoding="utf-8")
    (fault,) = verdict_of(begun).faults
    assert (raw.told.law, fault.law, fault.explains) == ("totals.value", "totals.value", ("totals.finite",))


def test_a_finding_stands_for_that_law_even_if_its_clerk_dies(tmp_path):
    """So no second one does."""
    begun = session.begin(tmp_path, settings(laws=("totals.sum", "totals.value")))
    write_raw(tmp_path, BUNDLED, explained_raw(begun, "totals.value", "totals.sum"))
    ((path, _),) = begun._waiting()
    begun._take_record(path)
    assert begun.records[path.stem].explained == "totals.sum"


@pytest.mark.parametrize(("raised", "first"), [(2, "boxes.item"), (3, "run.no-exception")])
def test_exceptions_come_first_where_most_cases_raise(tmp_path, monkeypatch, raised, first):
    """Another law may break by chance, on the few cases that do not, as a transposed box fits if there are four."""
    laws = ("boxes.item", "run.no-exception")
    begun = session.begin(tmp_path, settings(laws=laws))
    for law in laws:
        write_raw(tmp_path, BUNDLED, explained_raw(begun, law, ""))
    for path in list((tmp_path / "raw").iterdir()):
        clerk.give_up(clerk.Duty(begun.settings, tmp_path, 0.0), path, begun.subject)
        begun._take_record(path)
    named = Counter({"judged run.no-exception": 2, "broke run.no-exception": raised})
    monkeypatch.setattr(begun, "counts", lambda: Counts(named, Counter(), Counter(), Counter()))
    monkeypatch.setattr("yololoss.harness.engine.session_summary.grouped", lambda findings, *_: tuple(findings))
    assert verdict_of(begun).faults[0].law == first


def test_findings_are_one_fault_if_they_are_the_same_as_the_first():
    """Each is compared with the first of every group."""
    asked = []
    assert groups([True] * 4, lambda first, later: asked.append((first, later)) or later == 1) == [[0, 1], [2], [3]]
    assert asked == [(0, 1), (0, 2), (0, 3), (2, 3)]


def findings(plan: Plan, folder: Path, *cases: tuple[str, Case]) -> list[Finding]:
    """Of these laws on these cases, as a clerk keeps them."""
    found = []
    for law, case in cases:
        told, _ = judged(plan.laws[law], Run(plan.subject, case))
        assert told is not None
        found.append(keep(told.broken(plan.laws[law], case), plan.subject, folder, {}, drawn=False))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "together"), [(["logits_capped"], True), (["last_row_has_no_gradient", "logits_capped"], False)]
)
def test_a_wrong_gradient_is_the_fault_of_the_wrong_value_if_both_mostly_break_together(tmp_path, names, together):
    """Even if the second case shows the gradient alone."""
    *others, last = (BY_NAME[name] for name in names)
    plan = Plan(("boxes.item", "boxes.gradient"), on_its_device(plant(last, tmp_path, texts=texts_of(others)), "cpu"))
    cases: dict[str, Case] = {}
    for each in made(plan, range(900)):
        broken = [law for law in plan.laws if broke(plan, law, [each])]
        if len(broken) == 1:
            cases.setdefault(*broken, each.case)
        if len(cases) == 2:
            break
    found = findings(plan, tmp_path, *sorted(cases.items(), reverse=True))
    told = grouped(found, Task(plan.subject.spec, "cpu", "yololoss"), plan)
    assert [fault.laws for fault in told] == (
        [("boxes.item", "boxes.gradient")] if together else [("boxes.item",), ("boxes.gradient",)]
    )


def test_findings_of_two_parts_that_need_one_setting_are_one_fault(tmp_path):
    """Objectness and classes have one criterion. Of a law that holds for its own cases alone, all settings stay."""
    plan = planted(tmp_path, "focal_without_alpha", "objectness.item", "classes.item", "classes.gradient-sign")
    hyp = USUAL["hyp"].model_copy(update={"fl_gamma": 2.0})
    cases = ([each._replace(case=each.case.changed(**USUAL | {"hyp": hyp}))] for each in made(plan, range(99)))
    focal = next(each[0].case for each in cases if all(broke(plan, law, each) for law in plan.laws))
    assert list(focal.simpler) == ["fl_gamma"]
    task = Task(plan.subject.spec, "cpu", "yololoss")
    found = findings(plan, tmp_path, ("objectness.item", focal), ("classes.item", focal))
    assert [fault.laws for fault in grouped(found, task, plan)] == [("objectness.item", "classes.item")]
    found = findings(plan, tmp_path, ("objectness.item", focal), ("classes.gradient-sign", focal))
    assert len(grouped(found, task, plan)) == 2


def test_a_law_that_breaks_without_the_result_of_another_part_has_a_reason_of_its_own(tmp_path):
    """Even where the other part is wrong as well: a wrong overlap does not explain a wrong cell of objectness."""
    laws = ("boxes.item", "objectness.item")
    for names, explained in ((["alpha_is_one"], {"boxes.item"}), (["alpha_is_one", "flat_index_by_width"], {""})):
        plan, cases = one_case(tmp_path, *names, laws=laws)
        wrong = [each for each in cases if broke(plan, "boxes.item", [each])]
        assert {told.explained for _, told in broke(plan, "objectness.item", wrong)} == explained


def test_a_fault_that_an_earlier_law_shows_without_its_part_too_explains(tmp_path):
    """Class targets with a gradient are a fault of no overlap; its law shows their gradient of a box all the same."""
    plan, cases = one_case(tmp_path, "class_target_attached", laws=("boxes.gradient", "gradients.value"))
    assert {told.explained for _, told in broke(plan, "gradients.value", cases)} == {"boxes.gradient"}


def test_a_gradient_of_another_cell_is_the_fault_of_reading_it(tmp_path):
    """With the same logits in every cell the values are right, but the gradient goes to the cell that was read."""
    plan, cases = one_case(tmp_path, "row_column_swapped", laws=("gather.own-cell", "boxes.gradient"))
    assert {told.explained for _, told in broke(plan, "boxes.gradient", cases)} == {"gather.own-cell"}


def test_a_law_that_was_explained_often_is_not_judged_where_both_break(tmp_path):
    """So a session does not run a case again for each law that is wrong for the same reason."""
    plan, cases = one_case(tmp_path, "alpha_is_one", laws=("boxes.item", "objectness.item"))
    law = plan.laws["objectness.item"]
    runs = [Run(plan.subject, case) for case, _ in broke(plan, "boxes.item", cases)]
    law.tally.clear()
    law.tally.explained["boxes.item"] = OFTEN - 1
    assert not assumes_in_vain(plan, law, runs[0])
    law.tally.explained["boxes.item"] = OFTEN
    assert assumes_in_vain(plan, law, runs[0])


def test_a_law_that_nearly_breaks_explains_as_well(tmp_path):
    """The objectness gradient of a single cell is sharper than the box item, which is a mean."""
    plan, cases = one_case(tmp_path, "alpha_without_overlap", numbers=150)
    nearly = [
        told.explained
        for case, told in broke(plan, "objectness.gradient", cases)
        if judged(plan.laws["boxes.item"], Run(plan.subject, case))[0] is None
    ]
    assert set(nearly) == {"boxes.item"}


def test_cells_that_are_read_wrongly_are_one_fault_though_some_cases_do_not_show_it(tmp_path):
    """Rows may read each other's cells. What is wrong with the same logits in every cell is another fault."""
    laws = ("gather.own-cell", "boxes.item")
    for names, numbers, faults in ((["row_column_swapped"], 250, 1), (["row_column_swapped", "alpha_is_one"], 20, 2)):
        plan, cases = one_case(tmp_path, *names, laws=laws, numbers=numbers)
        cases = [each._replace(case=each.case.changed(**USUAL)) for each in cases]
        shown = broke(plan, laws[0], cases)[0][0]
        own = [case for case, told in broke(plan, laws[1], cases) if not told.explained]
        found = findings(plan, tmp_path, (laws[0], shown), (laws[1], own[0]))
        assert len(grouped(found, Task(plan.subject.spec, "cpu", "yololoss"), plan)) == faults


def test_a_small_error_of_float64_is_the_fault_of_a_wrong_value(tmp_path):
    """It is not float32's precision, though it is as small."""
    laws = ("boxes.item", "gradients.double-precision")
    plan, cases = one_case(tmp_path, "alpha_without_overlap", laws=laws, numbers=60)
    found = findings(plan, tmp_path, *((law, broke(plan, law, cases)[0][0]) for law in laws))
    (fault,) = grouped(found, Task(plan.subject.spec, "cpu", "yololoss"), plan)
    assert fault.laws == laws


def test_two_findings_of_one_law_that_need_the_same_dtype_are_one_fault(tmp_path):
    """A loss that cannot take float64 raises in more than one line."""
    plan = planted(tmp_path, "double_refused", "run.no-exception")
    cases = [each for each in made(plan, range(150)) if each.case.dtype == "float64"]
    told = {told.kind: case for case, told in broke(plan, "run.no-exception", cases)}
    assert len(told) == 2
    found = findings(plan, tmp_path, *(("run.no-exception", case) for case in told.values()))
    assert len(grouped(found, Task(plan.subject.spec, "cpu", "yololoss"), plan)) == 1


def test_a_loss_that_ends_its_process_is_not_asked_which_setting_it_needs(tmp_path, monkeypatch):
    """After the first answer of that kind: each takes a process, or its whole time limit."""
    plan = planted(tmp_path, "focal_without_alpha", "objectness.item", "classes.item")
    hyp = USUAL["hyp"].model_copy(update={"fl_gamma": 2.0, "cls_pw": 2.0})
    cases = ([each._replace(case=each.case.changed(**USUAL | {"hyp": hyp}))] for each in made(plan, range(99)))
    case = next(each[0].case for each in cases if all(broke(plan, law, each) for law in plan.laws))
    found = findings(plan, tmp_path, ("objectness.item", case), ("classes.item", case))
    asked: list[str] = []

    def ask(judge: Judge, vector: Any) -> Answer:
        asked.append(vector.law)
        return Answer(Told(vector.law, "the process", ALIVE, "killed by SIGSEGV", "none", died=True))

    monkeypatch.setattr(Judge, "ask", ask)
    assert len(grouped(found, Task(plan.subject.spec, "cpu", "yololoss"), plan)) == 2
    assert asked.count("objectness.item") == 1
    assert len(case.simpler) == 2


def test_findings_that_do_not_repeat_are_one_fault():
    """Of whatever part: the loss is random."""
    assert groups([False, True, False], lambda first, later: True) == [[0, 2], [1]]


def test_what_an_explained_law_explains_belongs_to_the_same_fault(tmp_path):
    """A chain ends at the finding; what leads to none belongs to no fault."""
    begun = session.begin(tmp_path, settings())
    raw = Raw(Told("totals.sum", "total", "1", "2", "none"), begun.plan.case(Origin(0, bytes(500))), None)
    write_raw(tmp_path, BUNDLED, raw)
    (path,) = (tmp_path / "raw").iterdir()
    clerk.give_up(clerk.Duty(begun.settings, tmp_path, 0.0), path, begun.subject)
    finding = clerk.read_records(tmp_path)[raw.kind].finding
    whys = {"totals.value": "boxes.item", "boxes.item": "totals.sum", "run.no-exit": "run.no-output"}
    rows = [{"id": id, "word": "explained", "why": why} for id, why in whys.items()]
    (fault,) = with_explained([finding], [*rows, {"id": "totals.finite", "word": "held", "why": None}], {})
    assert fault.explains == ("totals.value", "boxes.item")
    assert explaining(fault, ("totals.sum", "totals.value")) == fault
    many = explaining(fault, map(str, range(5)))
    assert "  explains   totals.value, boxes.item, 0, 1, and 3 more; a report lists all" in str(many)


def test_a_minimised_case_keeps_no_setting_that_does_not_matter(tmp_path):
    """Settings are drawn together: what the fault needs of them stays, one by one."""
    spec = plant(BY_NAME["focal_without_alpha"], tmp_path)
    task = settings(loss=spec, laws=("objectness.item",), gate=True, shrink=True)
    begun = session.begin(tmp_path / "s", task)
    several = (
        each for each in made(begun.plan, range(400)) if each.case.hyp.cls_pw != 1 and each.case.hyp.fl_gamma > 0
    )
    law = begun.plan.laws["objectness.item"]
    found = ((each, judged(law, Run(begun.subject, each.case))[0]) for each in several)
    each, told = next((each, told) for each, told in found if told is not None)
    raw = Raw(told, each.case, each.origin, each.number)
    write_raw(tmp_path / "s", spec, raw)
    clerk.attend(clerk.Duty(task, tmp_path / "s", 0.5), raw_path(tmp_path / "s", raw.kind))
    case = read_vectors(Path(clerk.read_records(tmp_path / "s")[raw.kind].finding.path)).vectors[0].case
    assert case.hyp.fl_gamma > 0
    assert case.hyp.model_copy(update={"fl_gamma": 0.0}) == type(case.hyp)()


def test_a_case_without_the_result_of_a_part_is_as_before_otherwise():
    """Where there is none, or it would be too large, nothing is left out."""
    case = next(made(Plan(("boxes.item",), on_its_device(BUNDLED, "cpu")), [0])).case
    boxes = without("boxes", "totals", case)
    assert (boxes.hyp.box, boxes.options.gr, boxes.targets) == (0, 0, case.targets)
    assert without("boxes", "totals", boxes) == boxes
    assert all(layer.std((0, 1, 2, 3)).max() == 0 for layer in without("gather", "boxes", case).logits)
    assert without("gather", "form", case) is None
    assert without("gather", "boxes.gradient", case) is None  # it goes to the cell that is read
    assert without("objectness", "classes", case) is None  # they share a criterion
    grids = tuple((300, 300) for _ in case.grids)
    assert without("gather", "boxes", case.changed(grids=grids, predictions=SeededLogits(seed=1))) is None
