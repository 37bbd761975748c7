"""A saved case as a test of its own, for the suite of the loss's project: torch and pytest are all that it needs."""

import inspect
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from yololoss.harness.errors import UsageError, printable
from yololoss.harness.laws.exam import Law
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.forms import required
from yololoss.harness.subjects.load import ALONE, import_loss

from .budget import Budget
from .case import Case

LARGEST = 4096  # logits; nobody reads a longer test
ITEMS = {"boxes.item": 0, "objectness.item": 1, "classes.item": 2}
FINITE = ("run.no-exception", "totals.finite", "gradients.finite")
TEST = '''\
"""{{ title }}.

{{ law.statement }}
({{ law.id }}, {{ law.source }}; made by yololoss from the smallest case that broke it)
"""

from math import isfinite

import torch
from torch import nn, tensor

from {{ module }} import {{ name }}


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.na, self.nc, self.nl, self.no = {{ case.anchors[0] | length }}, {{ case.classes }}, {{ case.layers }}, \
{{ 5 + case.classes }}
        self.register_buffer("anchors", tensor({{ case.anchors }}))  # in cells
        self.stride = tensor({{ case.strides }})


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.hyp = {{ case.hyp.model_dump() }}
        self.nc, self.gr = {{ case.classes }}, {{ case.options.gr }}
        self.weight = nn.Parameter(torch.zeros(1))
        self.model = nn.Sequential(Head())


def test_{{ law.id | replace(".", "_") | replace("-", "_") }}():
    model = Model()
{% if a_class %}
    loss = {{ name }}(model{{ ", autobalance=True" if case.options.autobalance }})
{% for option, usual in (("sort_obj_iou", False), ("gr", 1.0), ("balance", None)) if case.options[option] != usual %}
    loss.{{ option }} = {{ case.options[option] }}
{% endfor %}
{% endif %}
    p = [
{% for x in case.logits %}
        tensor({{ x.flatten().tolist() }}, dtype={{ x.dtype }}).reshape({{ x.shape | list }}).requires_grad_(),
{% endfor %}
    ]
    targets = tensor({{ case.target_rows.tolist() }}, dtype={{ case.target_rows.dtype }}).reshape(-1, 6)
{% if rows %}
    built = loss.build_targets(p, targets)
    rows = [
        [(*map(int, (*index, c)), *box.tolist(), *sides.tolist()) for c, box, *index, sides in zip(cls, boxes, *at, wh)]
        for cls, boxes, at, wh in zip(*built[:4])
    ]  # of each layer: image, anchor, grid row, grid column, class, x, y, w, h, the anchor's sides
    assert [{{ order }}(layer) for layer in rows] == [
{% for layer in rows %}
        {{ layer }},
{% endfor %}
    ]
{% else %}
    for wanted, off in {{ totals }}:
        total, items = {{ call }}
{% if finite %}
        assert isfinite(total.detach()) and all(isfinite(item) for item in items)
{% elif not item %}
        assert abs(float(total.detach()) - wanted) <= off
{% endif %}
{% if item %}
    assert abs(float(items[{{ item[0] }}]) - {{ item[1] }}) <= {{ item[2] }}
{% else %}
    gradients = torch.autograd.grad(total.sum(), p)
{% if finite %}
    assert all(gradient.isfinite().all() for gradient in gradients)
{% else %}
    wanted = [
{% for values, off in gradients %}
        (
            {{ values }},
            {{ off }},  # what rounding may do
        ),
{% endfor %}
    ]
    for gradient, (values, off) in zip(gradients, wanted):
        assert ((gradient.double().flatten() - tensor(values).double()).abs() <= tensor(off).double()).all()
{% endif %}
{% endif %}
{% endif %}
'''


def exported(law: Law, case: Case, title: str, under_test: LossUnderTest) -> str:
    """The text of the test. Raises UsageError if the case, the law or the loss does not allow one."""
    reason = _cannot(law, case, under_test)
    if reason is not None:
        raise UsageError(f"{law.id}: no test can be exported, since {reason}; replay judges its saved case")
    budget: Any = under_test.family.budget_of(under_test, case)
    found, module = import_loss(under_test.spec)
    template = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(TEST)
    return template.render(
        law=law,
        case=case,
        title=printable(title).replace("\\", "\\\\").replace('"', "'"),  # within a string of the test
        module=module.__name__.removeprefix(ALONE),
        name=found.__name__,
        a_class=inspect.isclass(found),
        call=_call(found, case),
        order="list" if law.id == "assign.row-order" else "sorted",
        rows=_rows(law, budget),
        totals=[(call.total, float(off)) for call, off in zip(budget.reference.calls, budget.totals, strict=True)],
        finite=law.id in FINITE,
        item=_item(law, budget, under_test.dialect.item_order == "classes first"),
        gradients=[
            (_numbers(g), _numbers(off)) for g, off in zip(budget.reference.gradients, budget.gradients, strict=True)
        ],
    )


def _cannot(law: Law, case: Case, under_test: LossUnderTest) -> str | None:
    if law.again or law.on or law.cases is None:
        return "this law compares several runs of the loss"
    if law.id.partition(".")[0] in ("state", "form", "run") and law.id not in FINITE:
        return "this law is about what the loss does beside its work"
    if case.layout != "contiguous":
        return f"the predictions of its case are {case.layout}"
    if sum(x.numel() for x in case.logits) > LARGEST:
        return f"its case has more than {LARGEST} logits"
    if under_test.dialect.taken or under_test.dialect.added_term != "none":
        return "a part of this loss has no specification"
    return None


def _call(found: Any, case: Case) -> str:
    if not inspect.isclass(found):
        return f"{found.__name__}(p, targets, model)"
    (rows, columns), stride = case.grids[0], case.strides[0]
    size = (case.batch, 3, int(rows * stride), int(columns * stride))
    images = len(required(getattr(found, "forward", None) or found.__call__)) > 3
    return f"loss(p, targets, torch.zeros({size}))" if images else "loss(p, targets)"


def _rows(law: Law, budget: Budget) -> list[list[tuple[float, ...]]]:
    """The rows of each layer, if the law is about them."""
    if not law.id.startswith("assign.") or law.id == "assign.no-targets":
        return []
    layers = [[(*map(int, row[:5]), *row[5:]) for row in rows.whole] for rows in budget.reference.rows]
    return layers if law.id == "assign.row-order" else [sorted(layer) for layer in layers]


def _item(law: Law, budget: Budget, reverse: bool) -> tuple[int, float, float] | None:
    """The index of the item that the law is about, its value and its tolerance."""
    at = ITEMS.get(law.id)
    if at is None:
        return None
    return (2 - at if reverse else at), float(budget.reference.calls[-1].items[at]), float(budget.items[-1][at])


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{v:.9g}" for v in np.ravel(values)) + "]"
