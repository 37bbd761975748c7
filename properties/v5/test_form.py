"""Form: what trainers do with a loss besides calling it.

They build it from a model that may be wrapped for several devices, build a second one for validation, and set its
attributes between calls.
"""

from typing import Any

from torch import Tensor, nn

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject, Unsupported

from ..shared.comparing import also_twice, close
from .budget import BECAUSE
from .case import Options
from .forms import Hyp
from .pools import HYPS, ONE_CALL
from .strategies import ANY, cases

ATTRIBUTES = (
    *("sort_obj_iou", "gr", "balance", "autobalance", "anchors", "na", "nc", "nl", "hyp"),
    *("cp", "cn", "ssi", "device", "BCEcls", "BCEobj"),
)
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@law("form.model-unchanged", title="Building the loss changes the model", source="DESIGN", cases=ANY, again=True)
def test_a_second_loss_of_the_same_model_is_the_same(exam: Exam) -> None:
    """Building a loss does not change the model: a second loss built from it gives the same results."""
    states = []

    def again(model: Any) -> nn.Module:
        model.train().requires_grad_(True)
        states.append((model, state(model)))
        return model  # type: ignore[no-any-return]

    _ = exam.calls
    close(exam, exam.on(exam.case, lambda subject: subject.rebuild(again)), "built from the same model again")
    for model, before in states:
        exam.expect_equal("the model's mode, hyperparameters, parameters and buffers", before, state(model))


@law(
    "form.wrapped-model",
    title="A model inside DataParallel gives other results",
    source="SPEC, drop-in form",
    cases=ANY,
    only={"drop_in": "yes"},
    again=True,
)
def test_a_wrapped_model_gives_the_same_loss(exam: Exam) -> None:
    """Built from a model inside DataParallel or DistributedDataParallel, the loss gives the same results."""
    kind: Any = WRAPPERS[exam.case.layers % len(WRAPPERS)]

    def wrapped(model: Any) -> nn.Module:
        # the constructor would move the model to an accelerator, or need other processes
        outer: Any = kind.__new__(kind)
        nn.Module.__init__(outer)
        outer.module = model
        outer.hyp, outer.nc, outer.gr = model.hyp, model.nc, model.gr
        if exam.case.batch % 2:  # some trainers set hyp only on the wrapper, others on the model as well
            del model.hyp
        return outer  # type: ignore[no-any-return]

    _ = exam.calls
    close(exam, exam.on(exam.case, lambda subject: subject.rebuild(wrapped)), "built from a wrapped model")


@law(
    "form.tuple-of-predictions",
    title="A tuple of predictions gives other results than a list",
    source="DESIGN",
    cases="a few",
    again=True,
)
def test_a_tuple_of_predictions_is_as_good_as_a_list(exam: Exam) -> None:
    """Models return their layers as a list or as a tuple. The loss gives the same results for both."""

    def calling(subject: Subject, p: Any, targets: Tensor) -> tuple[Tensor, Any]:
        return subject.loss(tuple(p), targets)  # type: ignore[arg-type]  # that is what is tried

    _ = exam.calls
    close(exam, exam.on(exam.case, calling=calling), "of a tuple of predictions")


def state(model: nn.Module) -> list[str]:
    """The model's mode, its hyperparameters, and each parameter and buffer: its dtype, values and requires_grad."""
    named = {"hyp": getattr(model, "hyp", None), **dict(model.named_parameters()), **dict(model.named_buffers())}
    return [f"training: {model.training}", *(f"{name}: {value!r}" for name, value in named.items())]


@law(
    "form.missing-label-smoothing",
    title="Without label_smoothing in the hyperparameters, the loss fails or smooths",
    source="SPEC, hyperparameters",
    cases=cases(hyps=[h for h in HYPS if h.label_smoothing == 0]),
    only={"drop_in": "yes"},
    again=True,
)
def test_label_smoothing_may_be_missing(exam: Exam) -> None:
    """If the hyperparameters lack label_smoothing, as in older files, it counts as 0."""

    def without(model: Any) -> nn.Module:
        model.hyp.pop("label_smoothing", None)  # a loss that takes it away itself is another law's
        return model  # type: ignore[no-any-return]

    _ = exam.calls
    close(exam, exam.on(exam.case, lambda subject: subject.rebuild(without)), "without label_smoothing in hyp")


@law(
    "form.hyperparameter-names",
    title="The loss reads a hyperparameter under a name that models of its dialect do not have",
    source="DIALECTS, box gain key",
    cases="a few",
    again=True,
)
def test_hyperparameters_have_the_names_of_the_dialect(exam: Exam) -> str | None:
    """The loss reads the box gain under the name that it has in models of its dialect.

    Names for which it has a default, and which are not in the hyperparameters, are noted.
    """
    looked: list[Hyp] = []
    other = {"box": "giou", "giou": "box"}[exam.subject.dialect.box_gain]

    def named(model: Any) -> nn.Module:
        model.hyp = Hyp({name: value for name, value in model.hyp.items() if name != other})
        looked.append(model.hyp)
        return model  # type: ignore[no-any-return]

    _ = exam.calls
    close(exam, exam.on(exam.case, lambda subject: subject.rebuild(named)), "with hyp as models of its dialect have it")
    missed = {name for hyp in looked for name in hyp.missed}
    return f"not in hyp: {', '.join(sorted(missed))}" if missed else None


@law(
    "form.set-options",
    title="gr or sort_obj_iou, set between calls, has no effect",
    source="SPEC, drop-in form",
    cases=cases(min_targets=1, options=[o for o in ONE_CALL if o != Options()]),
    again=True,
)
def test_options_may_be_set_between_calls(exam: Exam) -> None:
    """gr and sort_obj_iou, set between calls, take effect from the next call."""

    def later(subject: Subject) -> None:
        subject.loss(*exam.case.inputs(subject.device))
        for name, value in exam.case.options:
            if value != getattr(usual, name):
                subject.set_option(name, value)

    usual = Options()
    _ = exam.calls
    also_twice(exam)
    close(exam, exam.on(exam.case.changed(options=usual), later), "with options set after a call")


@law(
    "form.set-hyperparameters",
    title="Hyperparameters that are set between calls have no effect",
    source="SPEC, drop-in form",
    cases=cases(),
    only={"drop_in": "yes"},
    again=True,
)
def test_gains_and_the_ratio_limit_may_be_set(exam: Exam) -> None:
    """Hyperparameters with other gains and another anchor_t, set between calls, take effect from the next call."""
    hyp = exam.case.hyp
    others = {name: 2 * getattr(hyp, name) for name in ("box", "obj", "cls")}
    others["anchor_t"] = 8.0 if hyp.anchor_t < 4 else 1.5

    def later(subject: Subject) -> None:
        p, targets = exam.case.inputs(subject.device)
        subject.loss(p, targets.repeat(2, 1))  # not as many: what is kept by their number is another fault
        subject.set_option("hyp", hyp.model_dump())

    _ = exam.calls
    also_twice(exam)
    close(exam, exam.on(exam.case.changed(hyp=hyp.model_copy(update=others)), later), "with hyp set after a call")


@law(
    "form.interface",
    title="The loss lacks a part of the usual interface",
    source="SPEC, drop-in form",
    cases=ANY,
    only={"interface": "whole"},
    again=True,
)
def test_the_loss_has_upstreams_whole_interface(exam: Exam) -> None:
    """The loss has upstream's attributes, accepts autobalance, and build_targets returns upstream's four lists."""
    try:
        rows = exam.outcome.rows
    except Unsupported as option:
        exam.fail("the loss's interface", "all of upstream's", f"no {option}")
    exam.expect(rows is not None, "what build_targets gives", "four lists: classes, boxes, indices, anchors", "none")
    missing: set[str] = set()

    def look(loss: Any) -> Any:
        missing.update(name for name in ATTRIBUTES if not hasattr(loss, name))
        # users set this option on the class, for all losses
        if exam.case.options == Options() and "sort_obj_iou" in getattr(loss, "__dict__", ()):
            missing.add("sort_obj_iou of the class")
        return loss

    _ = exam.on(exam.case, lambda subject: subject.put_through(look)).calls
    exam.expect(not missing, "attributes of the loss", "all of upstream's", f"no {', '.join(sorted(missing))}")


@law(
    "form.set-balance",
    title="A balance that is set between calls has no effect",
    source="SPEC, drop-in form",
    cases=cases(),
    again=True,
)
def test_the_balance_may_be_set(exam: Exam) -> None:
    """Doubling the balance of every layer doubles the objectness item and does not change the others."""

    def doubled(subject: Subject) -> None:
        table = subject.state()
        if table is None:
            raise Unsupported("balance")
        subject.set_option("balance", [2 * b for b in table])

    factors = (1, 2, 1)
    want, off = exam.items * factors, exam.budget.items[-1] * factors
    exam.expect_close("items (box, obj, cls)", want, exam.on(exam.case, doubled).items, 2 * off, BECAUSE)
