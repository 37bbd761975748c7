"""A saved case as a test of its own, for the suite of the loss's project: torch and pytest are all that it needs.

A family gives the template of what is its own, which extends "test": the model, the inputs, the call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import DictLoader, Environment, StrictUndefined

from yololoss.harness.errors import UsageError, printable
from yololoss.harness.laws.exam import Law
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import ALONE, import_loss

LARGEST = 4096  # logits; nobody reads a longer test
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


{% block model %}{% endblock %}


def test_{{ law.id | replace(".", "_") | replace("-", "_") }}():
{% block inputs %}{% endblock %}
    p = [
{% for x in case.logits %}
        tensor({{ x.flatten().tolist() }}, dtype={{ x.dtype }}).reshape({{ x.shape | list }}).requires_grad_(),
{% endfor %}
    ]
    targets = tensor({{ case.target_rows.tolist() }}, dtype={{ case.target_rows.dtype }}).reshape(-1, 6)
{% block call %}{% endblock %}
{% block checks %}
    for wanted, off in {{ totals }}:
        total, items = {{ call }}
{% block result %}{% endblock %}
{% if finite %}
        assert isfinite(total.detach().sum()) and all(isfinite(item) for item in items)
{% elif not item %}
        assert abs(float(total.detach().sum()) - wanted) <= off
{% endif %}
{% for at, value, off in (items if law.id == "totals.sum" else ()) %}
    assert abs(float(items[{{ at }}]) - {{ value }}) <= {{ off }}
{% endfor %}
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
{% endblock %}
'''


def cannot(law: Law, case: Any) -> str | None:
    """Why there can be no test of a law and a case of any family; None if there can."""
    if law.again or law.on or law.cases is None:
        return "this law compares several runs of the loss"
    if law.id.partition(".")[0] in ("state", "form", "run") and law.id not in FINITE:
        return "this law is about what the loss does beside its work"
    if case.layout != "contiguous":
        return f"the predictions of its case are {case.layout}"
    if case.numbers > LARGEST:
        return f"its case has more than {LARGEST} logits"
    return None


def refuse(law: Law, reason: str) -> UsageError:
    """The error that says why there is no test."""
    return UsageError(f"{law.id}: no test can be exported, since {reason}; replay judges its saved case")


def rendered(
    template: str,
    law: Law,
    case: Any,
    title: str,
    under_test: LossUnderTest,
    budget: Any,
    items: Sequence[tuple[int, float, float]],
    named: Mapping[str, int],
    **values: Any,
) -> str:
    """The text of a test, from a family's template.

    ``budget``: the case's, with its ``reference``. ``items``: of each its index in what the loss returns, its value and
    its tolerance. ``named``: which of them has a law of its own, by the law's id. ``values``: what the blocks name, and
    ``call``.
    """
    found, module = import_loss(under_test.spec)
    loader = DictLoader({"test": TEST, "of the family": template})
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader)
    return environment.get_template("of the family").render(
        law=law,
        case=case,
        title=printable(title).replace("\\", "\\\\").replace('"', "'"),  # within a string of the test
        module=module.__name__.removeprefix(ALONE),
        name=found.__name__,
        totals=[(call.total, float(off)) for call, off in zip(budget.reference.calls, budget.totals, strict=True)],
        finite=law.id in FINITE,
        items=items,
        item=items[named[law.id]] if law.id in named else None,
        gradients=[
            (_numbers(values), _numbers(off))
            for values, off in zip(budget.reference.gradients, budget.gradients, strict=True)
        ],
        **values,
    )


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{v:.9g}" for v in np.ravel(values)) + "]"
