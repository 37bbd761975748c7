"""Watches a loss in a training run: a step in which something is wrong is saved as a case.

Whether a step is right is computed where its tensors are, and read later, without waiting for the device. Until then
the recorder keeps what the step was given: the predictions of one step, of a few if the host runs ahead.
"""

import atexit
import copyreg
import inspect
import os
import subprocess
import sys
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import torch
from torch import Tensor, nn

from yololoss import _suite
from yololoss.harness.cases.files import LARGEST
from yololoss.harness.cases.vectors import make_vector, write_vectors
from yololoss.harness.errors import UsageError, short
from yololoss.harness.subjects.family import find_family
from yololoss.harness.subjects.forms import total_and_items

L = TypeVar("L", bound=Callable[..., Any])
FOLDER = Path(".yololoss") / "steps"
LOW = 19  # the priority of the process that judges a sample
KEEP = 10  # files of each kind of trouble
AHEAD = 3  # steps that wait to be looked at; a host that runs further ahead of its device loses the oldest
# What may be wrong in a step, and the law that its case is saved under.
VALUE, GRADIENT, TARGET, ERROR = "value", "gradient", "target", "error"
LAWS = {VALUE: "totals.finite", GRADIENT: "gradients.finite", TARGET: "totals.finite", ERROR: "run.no-exception"}
INVALID = "  invalid: "  # how explain begins a line about invalid input
FLAGS = (VALUE, GRADIENT, TARGET)  # those that are found on the device; a step is saved under the first


class StepWarning(RuntimeWarning):
    """Something is wrong in a step of a training run, or the steps of the run cannot be watched."""


def watch(
    loss: L,
    model: nn.Module | None = None,
    *,
    folder: str | Path = FOLDER,
    keep: int = KEEP,
    targets: bool = True,
    every: int = 0,
    dialect: str | None = None,
    names: Callable[[], Iterable[Any]] | None = None,
    family: str | None = None,
) -> L:
    """Watch a loss in a training run, and save each step in which something starts to go wrong, as a case file.

    Returns the same object, or for a function one that calls it. Use it as before::

        loss = yololoss.watch(ComputeLoss(model))

    A step is saved if its total, an item or a gradient of a prediction is not finite while that of the step before
    was, if a target is invalid, or if the loss raises. With float16 predictions, gradients are looked at while the
    scale of the total is 1 or less, since ``GradScaler`` itself skips a step that overflows. A saved step is a case
    like any other: ``yololoss explain FILE --loss ...`` says what is wrong, and ``replay`` runs it again.

    ``model``: what the loss was built from, if the loss does not keep what is needed of it: ``hyp`` and ``anchors``, of
    a task-aligned loss ``hyp``, ``stride``, ``nc`` and ``reg_max``. ``family``: of the loss; None: the first that fits.
    ``folder``: where steps are saved. ``keep``: how many files of each kind of trouble are kept, the latest.
    ``targets``: whether invalid targets are looked for. ``every``: each so many steps, another process of low priority
    judges a step by all laws that need one run, in this ``dialect``; 0: no step. Such a step waits for the device.
    ``names``: called at each step, gives the names of the images of the batch, such as their paths. A copy or a pickle
    of the loss is not watched.

    Raises UsageError if the loss cannot be watched. In the run itself nothing is raised: what goes wrong there is a
    `StepWarning`. The file is of the usual format (golden/README.md): data, at most a few megabytes, no images.
    """
    reader = _reader(loss, model, family)
    options = Settings(Path(folder), keep, targets, every, dialect, names, _spec(loss))
    recorder = Recorder(reader, options)
    if inspect.isroutine(loss):
        return _calling(loss, recorder)  # type: ignore[return-value]  # it is called like the loss
    kind: Any = type(loss)

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        return recorder.call(partial(kind.__call__, self), *args, **kwargs)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        """A copy is of the class as it was."""
        made = kind.__reduce_ex__(self, protocol)
        if isinstance(made, str):
            return made
        make = kind.__new__ if made[0] is copyreg.__newobj__ else made[0]  # type: ignore[attr-defined]
        return make, tuple(kind if each is type(self) else each for each in made[1]), *made[2:]

    members = {"__call__": __call__, "__reduce_ex__": __reduce_ex__}
    about = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    try:
        loss.__class__ = type(kind.__name__, (kind,), members | about)
    except TypeError as error:
        raise UsageError(f"{kind.__name__}: calls of such an object cannot be watched: {error}") from error
    return loss


def _reader(loss: Any, model: nn.Module | None, family: str | None) -> Any:
    """What reads the steps of a loss: of that family, else of the first one that can."""
    known = _suite.FAMILIES if family is None else (family,)
    told = []
    for name in known:
        try:
            return find_family(name).training(loss, model)
        except UsageError as error:
            told.append(str(error) if name == known[0] else f"as a loss of the family {name}: {error}")
    raise UsageError("; ".join(told))


def _calling(function: Callable[..., Any], recorder: "Recorder") -> Callable[..., Any]:
    @wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        return recorder.call(function, *args, **kwargs)

    return watched


def _spec(loss: Any) -> str:
    """The loss as ``--loss`` takes it, as far as that can be known."""
    found = loss if inspect.isroutine(loss) else type(loss)
    return f"{found.__module__}:{found.__qualname__}"


class _Pending(NamedTuple):
    """A step whose flags are not read yet."""

    number: int
    step: Any
    names: list[str]  # of its images
    flags: Tensor  # (3,) bool, where the step's tensors are
    read: list[tuple[Tensor, torch.Event]]  # their copy on the host, and when it is there; empty before it is asked for

    @property
    def ready(self) -> bool:
        """Whether the flags can be read without waiting. Asks for a copy first, if they are on a device."""
        if self.flags.device.type == "cpu":
            return True
        if not self.read:
            copy = self.flags.to("cpu", non_blocking=True)
            event = torch.Event(device=self.flags.device)
            event.record()
            self.read.append((copy, event))
        return self.read[0][1].query()

    @property
    def found(self) -> list[str]:
        """What is wrong in the step."""
        flags = self.read[0][0] if self.read else self.flags
        return [name for name, wrong in zip(FLAGS, flags.tolist(), strict=True) if wrong]


class Settings(NamedTuple):
    """What a recorder does, as `watch` takes it, and the loss as ``--loss`` takes it."""

    folder: Path
    keep: int
    targets: bool
    every: int
    dialect: str | None
    names: Callable[[], Iterable[Any]] | None
    loss: str


class _Sample(NamedTuple):
    """A step that another process judges."""

    number: int
    path: Path
    said: Path  # what that process prints
    process: psutil.Popen


class Recorder:
    """Looks at each call of one loss, and saves those in which something is wrong."""

    def __init__(self, reader: Any, options: Settings) -> None:
        self._reader, self._options = reader, options
        self._run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self._pending: deque[_Pending] = deque(maxlen=AHEAD)
        self._number = 0
        self._state: Any = None  # of the loss, before this step
        self._before: list[str] = []  # what was wrong in the step before
        self._saved: dict[str, list[Path]] = {}
        self._sample: _Sample | None = None
        self._watches, self._samples = True, options.every > 0
        atexit.register(partial(_finish, weakref.ref(self)))

    def call(self, loss: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the loss, and look at what it was given and returned."""
        self._safely(self._begin)
        given, state = (*args, *kwargs.values()), self._state
        try:
            result = loss(*args, **kwargs)
        except Exception as error:
            self._safely(partial(self._raised, given, state, error))
            raise
        self._safely(partial(self._note, given, state, result))
        return result

    def _begin(self) -> None:
        self.look()
        self._number += 1
        self._state = self._reader.state()

    def look(self) -> None:
        """Save the steps in which something is wrong, of those whose flags can be read without waiting."""
        self._end_sample()
        while self._pending and self._pending[0].ready:
            pending = self._pending.popleft()
            found = pending.found
            new = [kind for kind in found if kind not in self._before]
            if new:
                what = "; ".join(self._reader.wrong(pending.step, kind) for kind in found)
                self._save(new[0], pending, what)
            self._before = found

    def _safely(self, work: Callable[[], None]) -> None:
        """Do this, unless it fails: a training run does not end because its steps cannot be watched."""
        if not self._watches:
            return
        try:
            work()
        except Exception as error:
            self._watches = False
            self._pending.clear()
            self._warn(f"the steps of this run are not watched any more: {type(error).__name__}: {error}")

    def _note(self, given: tuple[Any, ...], state: Any, result: Any) -> None:
        total, items = total_and_items(result)
        step = self._reader.step(given, state, total.detach(), items)
        with torch.no_grad():
            wrong = self._reader.invalid_targets(step) if self._options.targets else torch.tensor(False)
            value = _not_finite(total) | _there(_not_finite(step.items), total)
            flags = torch.stack((value, torch.zeros_like(value), _there(wrong, total)))
        _watch_gradients(self._reader.predictions(given), total, flags)
        self._pending.append(_Pending(self._number, step, self._names(), flags, []))
        if self._samples and self._sample is None and self._number % self._options.every == 0:
            self._begin_sample(self._pending[-1])

    def _names(self) -> list[str]:
        """The names of the images of this step, as far as the trainer gives them."""
        return [] if self._options.names is None else list(map(str, self._options.names()))

    def _raised(self, given: tuple[Any, ...], state: Any, error: Exception) -> None:
        step = self._reader.step(given, state)
        pending = _Pending(self._number, step, self._names(), torch.zeros(0), [])
        self._save(ERROR, pending, f"{type(error).__name__}: {error}")

    def _save(self, kind: str, pending: "_Pending", what: str) -> None:
        told = f"step {pending.number}: {what}"
        commands, left_out = [], ""
        try:
            for part, step in self._reader.parts(pending.step).items():
                path, left_out = self._written(kind, pending._replace(step=step), told, part)
                self._kept(f"{kind} {part}", path)
                commands.append(f"yololoss explain {path} --loss {self._options.loss}")
        except Exception as error:
            self._warn(f"{told}. It could not be saved: {short(str(error))}")
            return
        self._warn(f"{told}{left_out}. Saved; to see why: {'; or '.join(commands)}")

    def _written(self, kind: str, pending: "_Pending", told: str, part: str) -> tuple[Path, str]:
        """The file of a part of a step, and in words what was left out. Raises OSError, ValueError."""
        case, images, left_out = self._reader.case(pending.step)
        name = "-".join(filter(None, (f"{self._run}-step-{pending.number}-{kind}", part)))
        expected = None if left_out else self._reader.expected(pending.step)
        vector = make_vector(case, id=name, law=LAWS.get(kind), comment=f"{told}{left_out}", expected=expected)
        path = self._options.folder / f"{name}.json"
        own = {f"image {n}": pending.names[image] for n, image in enumerate(images) if image < len(pending.names)}
        write_vectors(path, {"loss": self._options.loss, "step": str(pending.number), **own}, [vector])
        if path.stat().st_size > LARGEST:
            path.unlink()
            raise OSError(f"its file would be larger than {LARGEST} bytes")
        return path, left_out

    def _kept(self, kind: str, path: Path) -> None:
        """Keep a file, and of its kind only the latest."""
        saved = self._saved.setdefault(kind, [])
        saved.append(path)
        for old in saved[: -self._options.keep]:
            old.unlink(missing_ok=True)
        del saved[: -self._options.keep]

    def _begin_sample(self, pending: "_Pending") -> None:
        parts = [*self._reader.parts(pending.step).items()]
        part, step = parts[pending.number // self._options.every % len(parts)]
        try:
            path, _ = self._written("sample", pending._replace(step=step), f"step {pending.number}", part)
        except Exception as error:
            self._no_more_samples(str(error))
            return
        command = [sys.executable, "-m", "yololoss", "explain", str(path), "--loss", self._options.loss]
        command += ["--findings", str(self._options.folder / "findings")]
        command += ["--dialect", self._options.dialect] if self._options.dialect else []
        said, surroundings = path.with_suffix(".txt"), os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        with said.open("wb") as output:
            process = psutil.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=surroundings
            )
        with suppress(psutil.Error):  # it has ended, or the system has no such priority
            process.nice(LOW)
        self._sample = _Sample(pending.number, path, said, process)

    def _end_sample(self) -> None:
        """Tell what the other process found, if it has ended."""
        sample = self._sample
        if sample is None or (status := sample.process.poll()) is None:
            return
        self._sample = None
        said = sample.said.read_text(encoding="utf-8", errors="replace").splitlines()
        broke = next((line for line in said if " broke: " in line), None)
        if broke is not None:
            self._kept("sample", sample.path)
            self._warn(f"step {sample.number}: {short(broke)}. More: {sample.said}")
            return
        for path in (sample.path, sample.said):
            path.unlink(missing_ok=True)
        if status != 0 and not any(line.startswith(INVALID) for line in said):
            self._no_more_samples(" ".join(said[-1:]))

    def _no_more_samples(self, why: str) -> None:
        self._samples = False
        self._warn(f"steps are not judged any more: {short(why)}")

    def end(self) -> None:
        """Look at the last step, and end the other process."""
        self._safely(self.look)
        if self._sample is not None:
            self._sample.process.kill()
            self._sample.process.wait()
            for path in (self._sample.path, self._sample.said):
                path.unlink(missing_ok=True)

    def _warn(self, text: str) -> None:
        warnings.warn(f"yololoss: {text}", StepWarning, stacklevel=2)


def _finish(recorder: "weakref.ref[Recorder]") -> None:
    """What is left to do when the process ends."""
    left = recorder()
    if left is not None:
        left.end()


def _not_finite(value: Any) -> Tensor:
    """Whether a number is not finite: of a tensor, on its device, or of a list of tensors and numbers; of None: no."""
    if isinstance(value, list | tuple):
        value = torch.stack([torch.as_tensor(each).detach().float().sum() for each in value])
    return torch.tensor(False) if value is None else ~torch.isfinite(torch.as_tensor(value).detach()).all()


def _there(flag: Tensor, other: Tensor) -> Tensor:
    """The flag on the device of another tensor. A copy from the host would wait; to fill it with a number does not."""
    return flag if flag.device == other.device else torch.full((), bool(flag), device=other.device)


def _watch_gradients(predictions: list[Tensor], total: Tensor, flags: Tensor) -> None:
    """Have the backward pass note whether a gradient of a prediction is not finite."""
    trained = [each for each in predictions if each.requires_grad]
    if not (trained and total.requires_grad):
        return
    scale: list[Tensor] = []
    if any(each.dtype == torch.float16 for each in trained):
        total.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: scale.append(gradient.detach().abs().max())
        )

    def note(gradient: Tensor) -> None:
        with torch.no_grad():
            wrong = ~torch.isfinite(gradient.sum(dtype=torch.float32))  # half the time of looking at each number
            wrong = wrong & (scale[-1] <= 1) if scale else wrong
            flags[FLAGS.index(GRADIENT)] |= wrong

    for each in trained:
        each.register_hook(note)  # type: ignore[no-untyped-call]
