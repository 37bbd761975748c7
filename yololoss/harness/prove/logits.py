"""Every 16-bit logit of some channels: ordinary cases of many images, judged by some laws on one execution.

A family says what a case of these logits is (`Batch.case`), which channels there are, and which laws judge them.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Self, override

from yololoss.harness.cases.case import DTYPES, Case
from yololoss.harness.engine.guard import UNWATCHED, is_watched
from yololoss.harness.engine.judge import Task, Told, judged
from yololoss.harness.laws.exam import Law, LawBroken, Run
from yololoss.harness.laws.law import find_laws
from yololoss.harness.prove.certificate import Enumerated, claimed
from yololoss.harness.prove.proof import Proof, Unprovable, subject
from yololoss.harness.subjects.family import LossUnderTest

Half = Literal["float16", "bfloat16"]
HALVES: tuple[Half, ...] = ("float16", "bfloat16")
MOST = 4096  # images per case
LIMIT = 300.0  # seconds that a case may take: it is as large as hundreds of others


@dataclass(frozen=True)
class Batch(ABC):
    """Some logits of one kind: their channels, and for each image their bits."""

    NAMES: ClassVar[tuple[str, ...]]  # of the channels
    # The laws that judge a case, in three groups: the last one only if no logit is so large that a total may be
    # infinite. If those of MUST cannot judge, nothing is proven.
    ENDS: ClassVar[tuple[str, ...]] = ("run.no-exception", "run.time-limit", "run.no-exit")
    OF_GRADIENTS: ClassVar[tuple[str, ...]]
    OF_VALUES: ClassVar[tuple[str, ...]]
    MUST: ClassVar[tuple[str, ...]] = ("gradients.value",)
    LARGEST: ClassVar[float]  # the largest logit for which totals must be finite

    dtype: Half
    channels: tuple[int, ...]
    bits: tuple[tuple[int, ...], ...] = field(repr=False)  # (n, channels)

    @property
    @abstractmethod
    def case(self) -> Case:
        """The case, with one image for each logit or pair."""

    @property
    def values(self) -> NDArray[np.float64]:
        """The logits, (n, channels)."""
        return value(np.array(self.bits, dtype=np.uint16), self.dtype)

    @property
    def kind(self) -> str:
        """What its logits are, in words."""
        return f"{self.dtype} logits of {' and '.join(self.NAMES[channel] for channel in self.channels)}"

    @property
    def halves(self) -> tuple[Self, ...]:
        """The batch in two halves; empty if it has only one image."""
        middle = len(self.bits) // 2
        parts = (self.bits[:middle], self.bits[middle:]) if middle else ()
        return tuple(replace(self, bits=part) for part in parts)

    @property
    def laws(self) -> tuple[str, ...]:
        """The laws that judge it."""
        within = bool((abs(self.values) <= self.LARGEST).all())
        return (*self.ENDS, *self.OF_GRADIENTS, *(self.OF_VALUES if within else ()))

    @classmethod
    def of(cls, dtype: Half, channels: tuple[int, ...], bits: Sequence[tuple[int, ...]]) -> Iterator[Self]:
        """All these logits, in batches of similar magnitude: in a mean, a large loss hides a small one."""
        large = np.any(abs(value(np.array(bits, dtype=np.uint16), dtype)) > cls.LARGEST, axis=1)
        for chosen in (~large, large):  # apart: with one too large for a total, laws cannot judge the others
            some = [each for each, take in zip(bits, chosen, strict=True) if take]
            for i in range(0, len(some), MOST):
                yield cls(dtype, channels, tuple(some[i : i + MOST]))

    @classmethod
    def singles(cls) -> Iterator[Self]:
        """Every finite logit of every channel."""
        for dtype in HALVES:
            for channel in range(len(cls.NAMES)):
                yield from cls.of(dtype, (channel,), [(bits,) for bits in finite(dtype)])


def value(bits: NDArray[np.uint16], dtype: Half) -> NDArray[np.float64]:
    """The numbers of these bits."""
    numbers = torch.from_numpy(bits.astype(np.int16, casting="unsafe")).view(DTYPES[dtype])
    return np.asarray(numbers.double().numpy())


@cache
def finite(dtype: Half) -> tuple[int, ...]:
    """The bits of every finite number of a dtype, both zeros included, small numbers first."""
    every = np.arange(2**16, dtype=np.uint16)
    numbers = value(every, dtype)
    ordered = every[np.argsort(abs(numbers), kind="stable")]
    return tuple(ordered[np.isfinite(value(ordered, dtype))].tolist())


class OfLogits(Proof[int]):
    """The proof about all 16-bit logits. A part is the number of a batch."""

    statement: ClassVar[str]

    def __init__(self, task: Task) -> None:
        own, batches = task.under_test(), self.batches()
        sizes: Counter[str] = Counter()
        for each in batches:
            sizes[each.kind] += len(each.bits)
        enumerated = tuple(Enumerated(what=kind, count=count) for kind, count in sizes.items())
        every = (*batches[0].ENDS, *batches[0].OF_GRADIENTS, *batches[0].OF_VALUES)
        laws = tuple(name for name in every if find_laws(own.family)[name].assumes(own) is None)
        claim = claimed(task, "logits", self.statement, laws=laws, enumerated=enumerated)
        super().__init__(task, claim, range(len(batches)))

    @classmethod
    @abstractmethod
    def batches(cls) -> Sequence[Batch]:
        """All batches."""

    @classmethod
    @override
    def prove(cls, part: int) -> tuple[Batch, Told] | None:
        """The smallest batch on which a law breaks, and how."""
        return broken_in(subject(), cls.batches()[part])

    @override
    def size(self, part: int) -> int:
        return len(self.batches()[part].bits)

    @override
    def told(self, subject: LossUnderTest, odd: tuple[Batch, Told]) -> tuple[str, LawBroken]:
        batch, told = odd
        shown = ", ".join(str(tuple(v)) for v in batch.values[:3].tolist()) + (", ..." if len(batch.bits) > 3 else "")
        line = f"{batch.kind} {shown}: {told.law}: {told.what}: expected {told.expected}"
        return f"{line}, observed {told.observed}", told.broken(find_laws(subject.family)[told.law], batch.case)


def broken_in(subject: LossUnderTest, batch: Batch) -> tuple[Batch, Told] | None:
    """The first law that breaks on these logits, with a smallest batch that shows it. Raises Unprovable."""
    laws, run = find_laws(subject.family), Run(replace(subject, limit=LIMIT), batch.case)
    for name in (each for each in laws if each in batch.laws):
        told = _judged(laws[name], run, batch)
        if told is not None:
            return _smaller(laws[name], run.subject, batch, told)
    return None


def _judged(law: Law, run: Run, batch: Batch) -> Told | None:
    is_watched(UNWATCHED * LIMIT)
    reason = law.assumes(run.subject)
    law.tally.clear()
    told = judged(law, run)[0] if reason is None else None
    if told is None and not law.tally.judged and law.id in batch.MUST:
        raise Unprovable(f"{law.id} has nothing to judge: {reason or next(iter(law.tally.not_applicable), 'no value')}")
    return told


def _smaller(law: Law, subject: LossUnderTest, batch: Batch, told: Told) -> tuple[Batch, Told]:
    """Halve the batch as long as one half also breaks the law."""
    for half in batch.halves:
        found = _judged(law, Run(subject, half.case), half)
        if found is not None:
            return _smaller(law, subject, half, found)
    return batch, told
