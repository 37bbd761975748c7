"""A saved case as a test of its own, for the suite of the loss's project."""

from yololoss.harness.laws.exam import Law
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import import_loss

from ..shared.exporting import cannot, refuse, rendered
from . import forms
from .budget import Budget
from .case import Case, Head

ITEMS = {"boxes.item": 0, "classes.item": 1, "third.item": 2}
TEST = """\
{% extends "test" %}
{% block model %}
class Options:
    box, cls, dfl, epochs = {{ case.gains.values | join(", ") }}, {{ head.epochs if head else 100 }}


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
{% if head and head.updates %}
    for _ in range({{ head.updates }}):
        loss.update()
{% endif %}
{% endblock %}
{% block call %}
    batch = {"batch_idx": targets[:, 0], "cls": targets[:, 1:2], "bboxes": targets[:, 2:6]}
{% if mapping %}

    def in_form(p):
        joined = torch.cat([x.flatten(2) for x in p], dim=2)
        boxes, scores = joined.split(({{ 4 * case.reg_max }}, {{ case.classes }}), dim=1)
        return {"boxes": boxes, "scores": scores, "feats": [x[:, :1] for x in p]}

{% endif %}
    preds = {{ "in_form(p)" if mapping else "p" }}
{% if head %}
    silent = [torch.full_like(x, {{ silent_class }}) for x in p]  # with these the other head adds nothing
    for x in silent:
        x[:, :{{ 4 * case.reg_max }}] = {{ silent_side }}
    other = {{ "in_form(silent)" if mapping else "silent" }}
    preds = {"{{ head.name }}": preds, "{{ "one2one" if head.name == "one2many" else "one2many" }}": other}
{% endif %}
{% endblock %}
{% block result %}
        items = list(items.values()) if isinstance(items, dict) else items
{% endblock %}
"""


def exported(law: Law, case: Case, title: str, under_test: LossUnderTest) -> str:
    """The text of the test. Raises UsageError if the case or the law does not allow one."""
    found, _ = import_loss(under_test.spec)
    reason = cannot(law, case) or ("its inputs are invalid" if case.invalid else None)
    if reason is not None:
        raise refuse(law, reason)
    budget = Budget(case, under_test.dialect)
    if not budget.decided:
        raise refuse(law, "rounding decides which anchors its targets get")
    given = {name: value for name in ("topk", "topk2") if (value := getattr(case, name)) is not None}
    head = case.head or Head() if forms.taken_forms(found).two_heads else None
    # items are those of the other head
    shown = 0 if head is not None and head.name == "one2many" else len(ITEMS)
    items = [*zip(budget.reference.calls[0].items, budget.items[0], strict=True)][:shown]
    return rendered(
        TEST,
        law,
        case,
        title,
        under_test,
        budget,
        options="".join(f", tal_{name}={value}" for name, value in given.items()),
        head=head,
        silent_side=forms.SILENT_SIDE,
        silent_class=forms.SILENT_CLASS,
        mapping=forms.form_for(found, case) == "mapping",
        call="loss(preds, batch)",
        items=[(n, float(value), float(off)) for n, (value, off) in enumerate(items)],
        named=ITEMS,
    )
