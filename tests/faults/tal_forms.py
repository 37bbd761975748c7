"""Other right ways to write the plain task-aligned loss (`tests.subjects.plain_tal`): no law may accuse them.

Each is some edits of its text. What they change is a rounding, which of equal ones is taken, or the order of operations.
"""

from itertools import count
from pathlib import Path

import tests.subjects.plain_tal as plain

PLAIN, AS_PLAIN = "tests.subjects.plain_tal:PlainTal", "yololoss, bad_input = any"  # and the dialect of its choices
FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "last_of_equal_overlaps": ((
        "winner = overlap.masked_fill(~candidate, -1).argmax(1)",
        "winner = overlap.shape[1] - 1 - overlap.masked_fill(~candidate, -1).flip(1).argmax(1)",
    ),),
    "best_by_sorting": (("metric.topk(min(k, metric.shape[2]), dim=2).indices",
                         "metric.argsort(dim=2, descending=True, stable=True)[..., :k]"),),
    "last_of_equal_metrics": (("metric.topk(min(k, metric.shape[2]), dim=2).indices",
                               "metric.shape[2] - 1 - metric.flip(2).argsort(dim=2, descending=True, stable=True)[..., :k]"),),
    "powers_by_products": (("score**0.5 * overlap**6", "score.sqrt() * (overlap * overlap * overlap).square()"),),
    "powers_by_logarithms": (("score**0.5 * overlap**6", "(0.5 * score.log() + 6 * overlap.log()).exp()"),),
    "assignment_in_float64": (("(predicted * stride[:, None]).detach().float()",
                               "(predicted * stride[:, None]).detach().double()"),),
    "bce_by_softplus": (("torch.nn.functional.binary_cross_entropy_with_logits(scores, wanted, reduction=\"none\")",
                         "torch.nn.functional.softplus(scores, threshold=40) - scores * wanted"),),
    "bce_by_log_sigmoid": (("torch.nn.functional.binary_cross_entropy_with_logits(scores, wanted, reduction=\"none\")",
                            "-wanted * torch.nn.functional.logsigmoid(scores)"
                            " - (1 - wanted) * torch.nn.functional.logsigmoid(-scores)"),),
    "distance_by_einsum": (("(shares.softmax(2) * bins[:, None]).sum(2)",
                            "torch.einsum('bsra,r->bsa', shares.softmax(2), bins)"),),
    "softmax_by_hand": (("shares.softmax(2)", "(shares - shares.logsumexp(2, keepdim=True)).exp()"),),
    "arctangent_of_quotients": (("torch.atan2(w2, h2) - torch.atan2(w1, h1)",
                                 "torch.atan(w2 / h2) - torch.atan(w1 / h1)"),),
    "alpha_as_before": (("v / (1 - iou + v + EPS)", "v / ((v - iou) + (1 + EPS))"),),
    "sums_by_image": (("cls.sum()", "sum(each.sum() for each in cls)"),),
    "weights_divided_first": (("weight, total = t[image, anchor], t.sum().clamp(min=1)",
                               "weight, total = t[image, anchor] / t.sum().clamp(min=1), t.sum().clamp(min=1)"),
                              ("torch.stack((fit, cls.sum(), third)) / total", "torch.stack((fit, cls.sum() / total, third))")),
    "one_target_more_than_any": (("max(counts, default=0))", "max(counts, default=0) + 1)"),),
}  # fmt: skip
_PLANTED = count()


def plant_form(name: str, folder: Path) -> str:
    """Write the plain loss in that form into ``folder``; return its --loss spec."""
    text = Path(plain.__file__).read_text(encoding="utf-8")
    for old, new in FORMS[name]:
        if text.count(old) != 1:
            raise ValueError(f"{name}: its text occurs {text.count(old)} times in plain_tal.py")
        text = text.replace(old, new)
    path = folder / f"{name}_{next(_PLANTED)}.py"
    path.write_text(text, encoding="utf-8")
    return f"{path}:PlainTal"
