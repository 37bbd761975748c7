"""A subject with a compiled loss (``torch.compile``)."""

import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from yololoss.harness.subjects.subject import Subject, Wrapped

NAME = "compile"
TIME_LIMIT = 600.0  # seconds that a case may take, most of them for compilation


def backend() -> str:
    """Inductor if there is a C++ compiler, else the backend that only traces (``aot_eager``)."""
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl")
    return "inductor" if any(map(shutil.which, compilers)) else "aot_eager"


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide the compiler's own warnings: a run that turns warnings into errors would fail on them."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


class Compiled(Wrapped):
    """The subject with its loss compiled."""

    def __init__(self, inner: Subject) -> None:
        super().__init__(inner)
        torch._dynamo.reset()  # each case is compiled again
        self._loss = torch.compile(inner.loss, backend=backend())

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        with _quietly():
            return self._loss(p, targets)


def graph_breaks(subject: Subject, p: list[Tensor], targets: Tensor) -> list[str]:
    """Where the graph of a call breaks: each file:line once, in order."""
    torch._dynamo.reset()
    with _quietly():
        explained = torch._dynamo.explain(subject.loss)(p, targets)
    frames = [reason.user_stack[-1] for reason in explained.break_reasons if reason.user_stack]
    return list(dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames))
