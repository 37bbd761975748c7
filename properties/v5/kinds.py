"""Losses of other kinds, recognised by what they ask for: what each is, and what of it can be judged."""

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from torch import Tensor, nn

from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.forms import ADAPTERS, required
from yololoss.harness.subjects.outcome import Trouble
from yololoss.harness.subjects.subject import CalledSo, Calling
from yololoss.v5.hyp import Hyperparameters

from .case import SeededLogits
from .trials import SINGLES, case_of

TRIED = 4  # predictions that should have the same rows


class Kind(NamedTuple):
    """A kind of loss, and the names that only such losses have."""

    names: str  # a regular expression of arguments and keys, and of attributes, which begin with a point
    what: str
    judged: str


def _without(term: str) -> str:
    return f"An adapter that leaves out the {term} term can have the box, objectness and class terms judged"


WITHOUT_ANCHORS = "a loss without anchors, like YOLOv8's"
KINDS = (
    Kind(r"masks|segments|protos?", "a segmentation loss", _without("mask")),
    Kind(r"thetas?(_\w+)?|angles?", "a loss of boxes with an angle", _without("angle")),
    Kind(r"(\w+_)?(landmark|lmk|kpt|keypoint)s?(_\w+)?", "a loss of landmarks or keypoints", _without("point")),
    Kind(
        r"\.?(reg_max|use_dfl)",
        WITHOUT_ANCHORS,
        "If it is called with (preds, batch), the laws of another family are about it",
    ),
)
# by the arguments of its call alone: a name that may mean anything else where a loss looks it up
OF_BATCH = Kind(r"batch", WITHOUT_ANCHORS, "Its call, or its constructor, is not that of YOLOv8")
OTA = Kind(
    r"im(g|age)s?",
    "an OTA loss, whose predictions choose the rows",
    "An adapter that shows the rows can have all but their choice judged",
)
# What an exception says of the model that a loss wants, or of what it returned; and what to do.
SAID = (
    (
        rf"AttributeError: 'dict' object has no attribute '({'|'.join((*Hyperparameters.model_fields, 'giou'))})'",
        "it reads hyp.{}{at}, but YOLOv5's hyp is a dict",
        "An adapter can build it from a model whose hyp is a namespace",
    ),
    (
        r"AttributeError: the loss looked for (model\S*), which is not there(.*)",
        "it reads {}{at}, which YOLOv5's model does not have{}",
        "An adapter can build it from a model that has it",
    ),
    (
        r"UnknownForm: (.*, got [^.]*).*",
        "its result has another form: {}",
        "An adapter can make a total and items of it",
    ),
)


def by_arguments(found: Any) -> str | None:
    """What a class or function is, by the arguments that it requires; None if they do not tell."""
    if inspect.isclass(found):
        return _by_names([*required(found), *_required_by_call(found)], (*KINDS, OF_BATCH))
    return _by_names(required(found), (*KINDS, OTA))


def by_what_it_does(subject: LossUnderTest, raised: Trouble | None) -> str | None:
    """What a loss is, by what it asks for; None if nothing tells. ``raised``: what it raises on every case, if it does.

    A loss that takes images is judged like any other, unless its rows follow its predictions.
    """
    if not isinstance(subject.make, partial):  # an adapter, whose author knows
        return None
    found = subject.make.keywords["called"]
    if raised is None:
        images = _required_by_call(found)[2:] if inspect.isclass(found) else []
        return _told(OTA, images[0]) if images and _follows_predictions(subject) else None
    missing = re.findall(r"^KeyError: '(\w+)'$| attribute '(\w+)'$|\.(\w+), which is not there", raised.detail)
    names = [*filter(None, sum(missing, ())), *_names(found)]
    return _by_names(names, KINDS, raised) or _by_exception(raised) or _by_inputs(subject, raised)


def _by_names(names: Iterable[str], kinds: Iterable[Kind], raised: Trouble | None = None) -> str | None:
    pairs = ((kind, name) for kind in kinds for name in names if re.fullmatch(kind.names, name))
    return next((_told(kind, name, raised) for kind, name in pairs), None)


def _told(kind: Kind, name: str, raised: Trouble | None = None) -> str:
    because = f" ({raised.said})" if raised else ""
    return _line(f"{kind.what}: it asks for {name.removeprefix('.')}{because}", kind.judged)


def _line(what: str, do: str) -> str:
    return f"{what}{'' if what.endswith('?') else '.'} {do}: {ADAPTERS}"


def _by_exception(raised: Trouble) -> str | None:
    place = f" at {raised.place}" if raised.place else ""
    found = ((re.fullmatch(said, raised.detail), what, do) for said, what, do in SAID)
    return next((_line(what.format(*match.groups(), at=place), do) for match, what, do in found if match), None)


def _by_inputs(subject: LossUnderTest, raised: Trouble) -> str | None:
    """By calling it with other inputs: a dict that keeps what is looked up in it, raw convolution maps, more layers."""
    targets: Any = _Lookups()
    _runs(subject, lambda inner, p, _: inner.loss(p, targets))
    if targets.keys_asked:
        what = f"it reads targets[{targets.keys_asked[0]!r}], but YOLOv5's targets are a tensor (N, 6)"
        return _line(f"{what} ({raised.said})", "An adapter can make the dict")
    if _runs(subject, lambda inner, p, targets: inner.loss([*map(_raw, p)], targets)):
        what = "it takes raw convolution maps (B, A (5 + C), H, W), but YOLOv5's predictions are (B, A, H, W, 5 + C)"
        return _line(f"{what} ({raised.said})", "An adapter can change the shape")
    if _runs(subject, lambda inner, p, targets: inner.loss([*p, *p], targets)):
        what = "it takes twice as many predictions as the head has layers, as of auxiliary heads"
        do = (
            "An adapter that gives those of the head twice, and leaves out the auxiliary term, can have the rest judged"
        )
        return _line(f"{what} ({raised.said})", do)
    return None


class _Lookups(dict[str, Any]):
    """An empty dict, and the names that were looked up in it."""

    def __init__(self) -> None:
        super().__init__()
        self.keys_asked: list[str] = []

    def __missing__(self, key: str) -> Any:
        self.keys_asked.append(key)
        raise KeyError(key)


def _runs(subject: LossUnderTest, calling: Calling) -> bool:
    """Whether the loss returns something that can be read, if it is called so."""
    called = replace(subject, make=lambda case, device: CalledSo(subject.make(case, device), calling))
    return bool(execute(called, case_of(SINGLES[:3], batch=3)).calls)


def _raw(x: Tensor) -> Tensor:
    return x.permute(0, 1, 4, 2, 3).flatten(1, 2)


def _required_by_call(found: Any) -> list[str]:
    """What an object of a class requires when it is called."""
    try:
        return required(found.forward if issubclass(found, nn.Module) else found.__call__)[1:]
    except (TypeError, ValueError):  # no signature, as of a builtin
        return []


def _follows_predictions(subject: LossUnderTest) -> bool:
    """Whether other predictions give other rows for the same targets, and the same predictions the same rows."""
    made = [case_of(SINGLES, batch=len(SINGLES), predictions=SeededLogits(seed=seed)) for seed in range(TRIED)]
    seen = [execute(subject, case).rows for case in (made[0], *made)]
    built = [str([sorted(row.whole) for row in rows]) for rows in seen if rows is not None]
    return built[:1] == built[1:2] and len({*built}) > 1


def _names(found: Any) -> Iterator[str]:
    """The keys, and the attributes after a point, in the code of a function, or of the methods of a class.

    An attribute says less than a key: SIoU has an angle and CIoU may have one, and neither asks for it.
    """
    methods = [found]
    if inspect.isclass(found):
        own = (each for each in found.__mro__ if not each.__module__.startswith("torch."))
        methods = [method for each in own for method in vars(each).values()]
    for method in methods:
        if isinstance(method, FunctionType):
            yield from _names_in(method.__code__)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from (f".{name}" for name in code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _names_in(constant)
