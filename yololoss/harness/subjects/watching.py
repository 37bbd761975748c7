"""Watches what a subject does besides its work: to its inputs, to the process, and to all that is outside it."""

import atexit
import builtins
import faulthandler
import gc
import io
import locale
import logging
import operator
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn, TypeAlias
from unittest.mock import patch
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from yololoss.harness.subjects.outcome import Trouble


def _environment() -> dict[bytes, bytes]:
    """The environment as bytes: os.environ decodes each value, which takes as long as all other settings."""
    return dict(vars(os.environ)["_data"])


def _put_environment(before: dict[bytes, bytes]) -> None:
    os.environ.clear()
    os.environ.update({os.fsdecode(key): os.fsdecode(value) for key, value in before.items()})


def _put_handlers(before: list[logging.Handler]) -> None:
    logging.root.handlers[:] = before


def _put_path(before: list[str]) -> None:
    sys.path[:] = before


def _umask() -> int:
    """The permissions that new files do not get. There is no way to read them but to set others for a moment."""
    os.umask(mask := os.umask(0o077))
    return mask


def _print_options() -> dict[str, Any]:
    return dict(vars(torch._tensor_str.PRINT_OPTS))


def _put_print_options(before: dict[str, Any]) -> None:
    vars(torch._tensor_str.PRINT_OPTS).update(before)


def _put_faulthandler(before: bool) -> None:
    if before:
        faulthandler.enable(2)  # the descriptor: sys.stderr may have none
    else:
        faulthandler.disable()


# Settings that a subject must not leave changed: how to read each, and how to restore it.
SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch.set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.set_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.use_deterministic_algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch.autograd.set_detect_anomaly": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch.set_float32_matmul_precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch.set_default_device": (torch.get_default_device, torch.set_default_device),
    "torch.set_warn_always": (torch.is_warn_always_enabled, torch.set_warn_always),
    # torch has no getter: compute with a number below the smallest normal one of float32
    "torch.set_flush_denormal": (
        lambda: float(torch.full((), 1e-40, dtype=torch.float32) * 1) == 0,
        torch.set_flush_denormal,
    ),
    **{
        f"torch.backends.cudnn.{name}": (
            partial(getattr, torch.backends.cudnn, name),
            partial(setattr, torch.backends.cudnn, name),
        )
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    },
    **{
        f"torch.set_autocast_enabled of {kind}": (
            partial(torch.is_autocast_enabled, kind),
            partial(torch.set_autocast_enabled, kind),
        )
        for kind in ("cpu", "cuda")
    },
    **{
        f"torch.set_autocast_dtype of {kind}": (
            partial(torch.get_autocast_dtype, kind),
            partial(torch.set_autocast_dtype, kind),
        )
        for kind in ("cpu", "cuda")
    },
    "torch.backends.mkldnn.set_flags": (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    "torch.autograd.set_multithreading_enabled": (
        torch._C._is_multithreading_enabled,
        torch._C._set_multithreading_enabled,
    ),
    "torch.multiprocessing.set_sharing_strategy": (
        torch.multiprocessing.get_sharing_strategy,
        torch.multiprocessing.set_sharing_strategy,
    ),
    "torch.set_printoptions": (_print_options, _put_print_options),
    "numpy.set_printoptions": (np.get_printoptions, lambda before: np.set_printoptions(**before)),
    "numpy.seterr": (np.geterr, lambda before: np.seterr(**before)),
    "gc.enable": (gc.isenabled, lambda before: gc.enable() if before else gc.disable()),
    "gc.set_threshold": (gc.get_threshold, lambda before: gc.set_threshold(*before)),
    "sys.setrecursionlimit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "sys.path": (lambda: list(sys.path), _put_path),
    "sys.excepthook": (lambda: sys.excepthook, partial(setattr, sys, "excepthook")),
    "sys.setswitchinterval": (sys.getswitchinterval, sys.setswitchinterval),
    "sys.settrace": (sys.gettrace, sys.settrace),
    "sys.setprofile": (sys.getprofile, sys.setprofile),
    "builtins.print": (lambda: builtins.print, partial(setattr, builtins, "print")),
    "faulthandler.enable": (faulthandler.is_enabled, _put_faulthandler),
    "socket.setdefaulttimeout": (socket.getdefaulttimeout, socket.setdefaulttimeout),
    # what is registered cannot be told from what was there before, and stays
    "atexit.register": (atexit._ncallbacks, lambda before: None),
    "os.chdir": (os.getcwd, os.chdir),
    "os.umask": (_umask, os.umask),
    "os.environ": (_environment, _put_environment),
    "locale.setlocale": (
        partial(locale.setlocale, locale.LC_ALL),
        partial(locale.setlocale, locale.LC_ALL),
    ),
    "logging.disable": (lambda: logging.root.manager.disable, logging.disable),
    "level of the root logger": (lambda: logging.root.level, logging.root.setLevel),
    "handlers of the root logger": (lambda: list(logging.root.handlers), _put_handlers),
    **{
        f"signal.signal of {signal.Signals(number).name}": (
            partial(signal.getsignal, number),
            partial(signal.signal, number),
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD)
    },
}


def _same_numpy(one: Any, two: Any) -> bool:
    (kind, words, *rest), (other_kind, other_words, *other_rest) = one, two
    return (kind, rest) == (other_kind, other_rest) and np.array_equal(words, other_words)


# The global generators: how to read the state of each, how to restore it, and whether two states are the same.
GENERATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any, Any], bool]]] = {
    "torch": (torch.get_rng_state, torch.set_rng_state, torch.equal),
    "numpy": (np.random.get_state, np.random.set_state, _same_numpy),
    "random": (random.getstate, random.setstate, operator.eq),
}
# Audit events of Python (its table of audit events) by which a process changes what is outside it: files by their path,
# besides opening them; and all else.
PATHS = (
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
    *("os.utime", "os.setxattr", "os.removexattr"),
)
BEYOND = (
    *("os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.kill", "os.killpg"),
    *("signal.pthread_kill", "subprocess.Popen", "sqlite3.connect"),
    *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"),
)
HEARD = frozenset((*PATHS, *BEYOND, "open"))  # the hook runs at every event
MOST = 50  # things of these that are kept of a run
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
# A loss may import something, or be compiled; both write their caches, and a compiler is a process.
MAY_WRITE = (
    *("importlib._bootstrap", "torch._inductor", "torch._dynamo", "torch._functorch", "torch.utils.cpp_extension."),
    *("triton.", "numba."),
)
REGISTER = Function._register_hook
Hooks: TypeAlias = OrderedDict[int, Any]
VERSIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)  # of torch, not what the loss does


class Stopped(BaseException):
    """A subject was stopped. Not an Exception, so that one that catches every Exception does not catch this."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.trouble = Trouble(kind, detail)


class Conduct:
    """What a subject did besides its work."""

    def __init__(self) -> None:
        self.troubles: list[Trouble] = []
        self.warnings: list[str] = []
        self.outside: list[str] = []  # what it did to what is outside the process
        # Those of nodes of autograd's graph to which it added one. What it frees is not kept here.
        self.hooks: WeakValueDictionary[int, Hooks] = WeakValueDictionary()


class _Listener:
    """Python's audit hook: it cannot be removed, so there is one, and it hears something only while a subject runs."""

    __cantrace__ = True  # else Python switches tracing off in a hook, so that coverage does not see it

    def __init__(self) -> None:
        self.heard: list[str] | None = None
        self.thread = 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Note an event by which the subject changes what is outside."""
        if self.heard is None or event not in HEARD or threading.get_ident() != self.thread:
            return
        if event == "open" and not (_names_a_file(args[0]) and writes(args)):
            return
        if not _by_machinery(sys._getframe(1)):
            self.hear(f"{event} {args[0]!s:.200}" if args else event)

    def hear(self, what: str) -> None:
        """Keep what was done, once, and not without end: what is kept of every call would look like the loss's own."""
        if self.heard is not None and what not in self.heard and len(self.heard) < MOST:
            self.heard.append(what)


def writes(opened: tuple[Any, ...]) -> bool:
    """Whether a file is opened to be written to, by the arguments of the event: path, mode and flags."""
    return bool((opened[2] or 0) & WRITES)


def _names_a_file(name: Any) -> bool:
    """Whether what is opened is a file by its name, and keeps what is written to it."""
    return isinstance(name, str | bytes) and os.fsdecode(name) != os.devnull


def _by_machinery(frame: FrameType | None) -> bool:
    while frame is not None:
        if f"{frame.f_globals.get('__name__')}.".startswith(MAY_WRITE):
            return True
        frame = frame.f_back
    return False


LISTENER = _Listener()
sys.addaudithook(LISTENER)


@contextmanager
def watched() -> Iterator[Conduct]:
    """Record what is done besides the work, and restore what was changed in the process."""
    conduct, printed = Conduct(), io.StringIO()
    troubles = conduct.troubles
    settings = {name: get() for name, (get, _) in SETTINGS.items()}
    modules = len(sys.modules)
    logged = _to_logging()
    for draw in (torch.rand, np.random.random, lambda _: random.random()):
        draw(1)  # each run starts with other generator states, so seeding them again is visible
    states = {name: get() for name, (get, _, _) in GENERATORS.items()}
    LISTENER.heard, LISTENER.thread = conduct.outside, threading.get_ident()
    try:
        with (
            redirect_stdout(printed),
            redirect_stderr(printed),
            patch("os._exit", _exit_asked),
            patch.object(Function, "_register_hook", staticmethod(partial(_note_hook, REGISTER, conduct.hooks))),
            patch("torch.save", partial(_save, torch.save)),
            patch("logging.lastResort", logging.StreamHandler(printed)),
            warnings.catch_warnings(record=True) as warned,
        ):
            # Whether warnings are errors is a setting of the run, for its own code.
            warnings.simplefilter("always")
            if not logged:
                logging.captureWarnings(False)  # it may still take them for captured, after an earlier run
            before = _of_warnings()
            yield conduct
            changed = [name for name, now in _of_warnings().items() if now != before[name]]
            if len(sys.modules) == modules:
                troubles += [Trouble("changed a setting of the process", name) for name in changed]
    finally:
        LISTENER.heard = None
    conduct.warnings += [_said(each) for each in warned if not issubclass(each.category, VERSIONS)]
    if printed.getvalue():
        troubles.append(Trouble("printed", repr(printed.getvalue()[:200])))
    for name, (get, set_back, same) in GENERATORS.items():
        if not same(get(), states[name]):
            troubles.append(Trouble("used the global generator", name))
            set_back(states[name])
    for name, (get, put_back) in SETTINGS.items():
        if (now := get()) != settings[name]:
            # What an import changes, as of a compiler, it changes once: without it the next run tells.
            if len(sys.modules) == modules:
                troubles.append(Trouble("changed a setting of the process", f"{name}({_changed(now, settings[name])})"))
            put_back(settings[name])


def _of_warnings() -> dict[str, Any]:
    """What is restored with the warnings module: filters, and how a warning is shown."""
    return {"warnings.filters": list(warnings.filters), "warnings.showwarning": warnings.showwarning}


def _to_logging() -> bool:
    """Whether warnings go to logging."""
    return getattr(warnings.showwarning, "__module__", None) == logging.__name__


def _said(warning: warnings.WarningMessage) -> str:
    return f"{warning.category.__name__}: {str(warning.message).strip():.200}"


def _changed(now: Any, before: Any) -> str:
    """The value; of an environment only what is new."""
    if isinstance(now, dict) and isinstance(before, dict):
        return ", ".join(sorted({os.fsdecode(key) for key, _ in now.items() ^ before.items()}))
    return str(now)


def _save(save: Callable[..., None], value: Any, file: Any, *rest: Any, **named: Any) -> None:
    """torch.save, which writes to a file past Python, so that no audit event tells."""
    if isinstance(file, str | bytes | os.PathLike):
        LISTENER.hear(f"torch.save {os.fsdecode(file)}")
    save(value, file, *rest, **named)


def _note_hook(register: Callable[..., Any], noted: WeakValueDictionary[int, Hooks], *given: Any) -> Any:
    """What torch calls to add a hook to a node of autograd's graph, which itself does not tell of its hooks."""
    hooks, handle = register(*given)
    noted[id(hooks)] = hooks
    return hooks, handle


def _exit_asked(status: int) -> NoReturn:
    raise Stopped("exited", f"os._exit({status})")


class Inputs:
    """The inputs of a call as they were: values, and all that autograd and others may hold in them."""

    def __init__(self, p: Sequence[Tensor], targets: Tensor) -> None:
        self._tensors = {**{f"predictions[{i}]": x for i, x in enumerate(p)}, "targets": targets}
        self._values = {name: x.detach().clone() for name, x in self._tensors.items()}
        self._before = {name: _held_by(x) for name, x in self._tensors.items()}

    def troubles(self, hooks: Sequence[Hooks] = ()) -> Iterator[Trouble]:
        """What is other than it was. ``hooks``: those of nodes to which one was added, in whatever graph."""
        for name, new in self._tensors.items():
            old = self._values[name]
            if not torch.equal(old, new) and not torch.equal(old.nan_to_num(), new.detach().nan_to_num()):  # NaN stays
                yield Trouble("changed its input", name)
            for (what, before), after in zip(self._before[name].items(), _held_by(new).values(), strict=True):
                if before != after:
                    yield Trouble("left something in its input", what.format(name))
            if any(hooks) and new.requires_grad and _runs(hooks, new):
                yield Trouble("left something in its input", f"the graph of {name} has a new hook")


def _runs(hooks: Sequence[Hooks], x: Tensor) -> bool:
    """Whether a backward pass of this tensor would run such hooks. One in their place tells. No gradient stays."""
    run: list[bool] = []
    leaf = _leaf(x)
    before, own = leaf.grad, [dict(each) for each in hooks]
    for each in filter(None, hooks):
        each.clear()
        each[0] = lambda *_: run.append(True)
    with suppress(Exception):  # a hook of the tensor itself may raise, or the loss has freed the graph
        torch.autograd.backward(x, torch.zeros_like(x), retain_graph=True)
    leaf.grad = before
    for each, back in zip(hooks, own, strict=True):
        each.clear()
        each.update(back)
    return bool(run)


def _leaf(x: Tensor) -> Tensor:
    """The tensor that an input was made from, which gets its gradient."""
    node: Any = x.grad_fn
    while node is not None and node.next_functions:
        node = node.next_functions[0][0]
    return x if node is None else node.variable


def _held_by(x: Tensor) -> dict[str, Any]:
    """What a tensor holds besides its values, by what is to be said if it has changed."""
    leaf: Any = _leaf(x)
    return {
        "retain_grad() was called on {}": x.retains_grad and not x.is_leaf,
        "{} was written to": x._version,
        "{} has another requires_grad": x.requires_grad,
        "{} has another grad_fn": id(x.grad_fn),
        "{} has other memory": x.data_ptr(),
        "{} has a new hook": [
            len(hooks or ()) for each in (x, leaf) for hooks in (each._backward_hooks, each._post_accumulate_grad_hooks)
        ],
        "a gradient is left in {}.grad": leaf.grad is not None,
        "{} has a new attribute": sorted(vars(x)),
    }
