"""Losses that misbehave on few cases. A hash of the inputs decides on which; a derived class sets how few."""

import ctypes
import os
from os import _exit as leave  # as a loss has it that the harness cannot keep from leaving
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from tests.subjects.plain import PlainLoss


class Rarely(PlainLoss):
    """The plain loss, but on one case in so many."""

    one_in = 50

    def act(self) -> None:
        """What it does then."""
        raise NotImplementedError

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        if self.chosen(p, targets):
            self.act()
        return super().__call__(p, targets)

    def chosen(self, p: list[Tensor], targets: Tensor) -> bool:
        """Whether this is such a case."""
        values = [*(x.detach().double().sum().item() for x in p), targets.double().sum().item()]
        return crc32(repr(values).encode()) % self.one_in == 0


class Segfaults(Rarely):
    def act(self) -> None:
        """Read from an invalid address."""
        ctypes.string_at(8)


class Leaves(Rarely):
    def act(self) -> None:
        """End the process, past what the harness watches."""
        leave(3)


class Loops(Rarely):
    def act(self) -> None:
        """Never return, and catch every exception."""
        while True:
            try:
                while True:
                    pass
            except BaseException:
                continue


class Allocates(Rarely):
    def act(self) -> None:
        """Ask for memory without end, and use it."""
        held: list[Any] = []
        while True:
            held.append(torch.ones(2**22))


class Raises(Rarely):
    def act(self) -> None:
        """Raise."""
        raise IndexError("index 8 is out of bounds for dimension 3 with size 8")


class Attached(Rarely):
    """Breaks one law: the items of a chosen case have a gradient."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        total, items = PlainLoss.__call__(self, p, targets)
        return total, items + 0 * total if self.chosen(p, targets) else items


class Killed(Rarely):
    """Kills its own process, as the system does if memory is short."""

    def act(self) -> None:
        """Be killed."""
        os.kill(os.getpid(), 9)
