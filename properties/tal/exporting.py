"""A saved case as a test of its own, for the suite of the loss's project."""

from yololoss.harness.laws.exam import Law
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import import_loss

from ..shared.exporting import cannot, refuse, rendered
from . import forms
from .budget import Budget
from .case import Case

ITEMS = {"boxes.item": 0, "classes.item": 1, "third.item": 2}
TEST = """\
{% extends "test" %}
{% block model %}
class Options:
    box, cls, dfl, epochs = {{ case.gains.values | join(", ") }}, 100


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.nc, self.reg_max, self.nl, self.no = {{ case.classes }}, {{ case.reg_max }}, {{ case.levels }}, \
{{ case.channels }}
        self.stride = tensor({{ case.strides }})


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.args, self.nc = Options(), {{ case.classes }}
        self.weight = nn.Parameter(torch.zeros(1))
        self.model = nn.Sequential(Head())
{% if case.class_weights %}
        self.register_buffer("class_weights", tensor({{ case.class_weights }}))
{% endif %}
{% endblock %}
{% block inputs %}
    loss = {{ name }}(Model(){{ options }})
{% endblock %}
{% block call %}
    batch = {"batch_idx": targets[:, 0], "cls": targets[:, 1:2], "bboxes": targets[:, 2:6]}
{% if mapping %}
    joined = torch.cat([x.flatten(2) for x in p], dim=2)
    boxes, scores = joined.split(({{ 4 * case.reg_max }}, {{ case.classes }}), dim=1)
    preds = {"boxes": boxes, "scores": scores, "feats": [x[:, :1] for x in p]}
{% else %}
    preds = p
{% endif %}
{% endblock %}
{% block result %}
        items = list(items.values()) if isinstance(items, dict) else items
{% endblock %}
"""


def exported(law: Law, case: Case, title: str, under_test: LossUnderTest) -> str:
    """The text of the test. Raises UsageError if the case or the law does not allow one."""
    found, _ = import_loss(under_test.spec)
    two_heads = "its loss has two heads" if forms.taken_forms(found).two_heads else None
    reason = two_heads or cannot(law, case) or ("its inputs are invalid" if case.invalid else None)
    if reason is not None:
        raise refuse(law, reason)
    budget = Budget(case, under_test.dialect)
    if not budget.decided:
        raise refuse(law, "rounding decides which anchors its targets get")
    given = {name: value for name in ("topk", "topk2") if (value := getattr(case, name)) is not None}
    items = zip(budget.reference.calls[0].items, budget.items[0], strict=True)
    return rendered(
        TEST,
        law,
        case,
        title,
        under_test,
        budget,
        options="".join(f", tal_{name}={value}" for name, value in given.items()),
        mapping=forms.form_for(found, case) == "mapping",
        call="loss(preds, batch)",
        items=[(n, float(value), float(off)) for n, (value, off) in enumerate(items)],
        named=ITEMS,
    )
