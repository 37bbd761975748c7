"""A saved case as a test of its own, for the suite of the loss's project."""

import inspect
from typing import Any

from yololoss.harness.laws.exam import Law
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.forms import required
from yololoss.harness.subjects.load import import_loss

from ..shared.exporting import cannot, refuse, rendered
from .budget import Budget
from .case import Case

ITEMS = {"boxes.item": 0, "objectness.item": 1, "classes.item": 2}
TEST = """\
{% extends "test" %}
{% block model %}
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
{% endblock %}
{% block inputs %}
    model = Model()
{% if a_class %}
    loss = {{ name }}(model{{ ", autobalance=True" if case.options.autobalance }})
{% for option, usual in (("sort_obj_iou", False), ("gr", 1.0), ("balance", None)) if case.options[option] != usual %}
    loss.{{ option }} = {{ case.options[option] }}
{% endfor %}
{% endif %}
{% endblock %}
{% block checks %}
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
{{ super() }}
{%- endif %}
{% endblock %}
"""


def exported(law: Law, case: Case, title: str, under_test: LossUnderTest) -> str:
    """The text of the test. Raises UsageError if the case, the law or the loss does not allow one."""
    reason = cannot(law, case)
    if reason is None and (under_test.dialect.taken or under_test.dialect.added_term != "none"):
        reason = "a part of this loss has no specification"
    if reason is not None:
        raise refuse(law, reason)
    budget: Any = under_test.family.budget_of(under_test, case)
    found, _ = import_loss(under_test.spec)
    return rendered(
        TEST,
        law,
        case,
        title,
        under_test,
        budget,
        a_class=inspect.isclass(found),
        call=_call(found, case),
        order="list" if law.id == "assign.row-order" else "sorted",
        rows=_rows(law, budget),
        items=_items(budget, under_test.dialect.item_order == "classes first"),
        named=ITEMS,
    )


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


def _items(budget: Any, reverse: bool) -> list[tuple[int, float, float]]:
    """Of each item its index in what the loss returns, its value and its tolerance."""
    values = zip(budget.reference.calls[-1].items, budget.items[-1], strict=True)
    return [(2 - n if reverse else n, float(value), float(off)) for n, (value, off) in enumerate(values)]
