"""What a subject does besides its work is noted, and undone as far as it can be."""

import atexit
import builtins
import faulthandler
import gc
import io
import locale
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd.graph import register_multi_grad_hook

from yololoss.harness.subjects.watching import MOST, SETTINGS, Inputs, watched


def nothing(*_):
    """A function that does nothing."""


OTHER = {
    "torch.set_default_dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch.set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "torch.set_autocast_dtype of cpu": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "torch.set_warn_always": lambda: torch.set_warn_always(True),
    "torch.backends.cudnn.enabled": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "torch.backends.cudnn.allow_tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "torch.backends.mkldnn.set_flags": lambda: torch.backends.mkldnn.set_flags(_enabled=False),
    "torch.autograd.set_multithreading_enabled": lambda: torch.autograd.set_multithreading_enabled(
        not torch._C._is_multithreading_enabled()
    ),
    "torch.multiprocessing.set_sharing_strategy": lambda: torch.multiprocessing.set_sharing_strategy("file_system"),
    "torch.set_printoptions": lambda: torch.set_printoptions(precision=7),
    "numpy.set_printoptions": lambda: np.set_printoptions(precision=7),
    "numpy.seterr": lambda: np.seterr(all="raise"),
    "gc.enable": gc.disable,
    "gc.set_threshold": lambda: gc.set_threshold(7),
    "sys.setrecursionlimit": lambda: sys.setrecursionlimit(2345),
    "sys.path": lambda: sys.path.append("x"),
    "sys.excepthook": lambda: setattr(sys, "excepthook", print),
    "sys.setswitchinterval": lambda: sys.setswitchinterval(0.125),
    "sys.settrace": lambda: sys.settrace(nothing),
    "sys.setprofile": lambda: sys.setprofile(nothing),
    "builtins.print": lambda: setattr(builtins, "print", nothing),
    "faulthandler.enable": lambda: faulthandler.disable() if faulthandler.is_enabled() else faulthandler.enable(2),
    "socket.setdefaulttimeout": lambda: socket.setdefaulttimeout(7),
    "os.chdir": lambda: os.chdir("/"),
    "os.umask": lambda: os.umask(0o123),
    "os.environ": lambda: os.environ.update(YOLOLOSS_TEST="é"),
    "locale.setlocale": lambda: locale.setlocale(locale.LC_ALL, other_locale()),
    "logging.disable": lambda: logging.disable(10),
    "level of the root logger": lambda: logging.root.setLevel(3),
    "handlers of the root logger": lambda: logging.root.addHandler(logging.NullHandler()),
    "signal.signal of SIGTERM": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "signal.signal of SIGCHLD": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
}


def other_locale():
    """Another locale than that of this process."""
    return "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C"


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_is_told_and_restored(name):
    """Once, by its name."""
    get, _ = SETTINGS[name]
    before = get()
    with watched() as conduct:
        OTHER[name]()
    told = [each.detail for each in conduct.troubles]
    assert (len(told), told[0].partition("(")[0]) == (1, name)
    assert get() == before


def test_denormal_numbers_that_are_flushed_are_told_with_float64_as_default():
    """1e-40 is no denormal number in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        with watched() as conduct:
            torch.set_flush_denormal(True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert [each.detail for each in conduct.troubles] == ["torch.set_flush_denormal(True)"]
    assert float(torch.full((), 1e-40) * 1) > 0


def test_gc_that_was_off_stays_off():
    """What is restored is what was there."""
    gc.disable()
    try:
        with watched() as conduct:
            gc.enable()
        assert [each.detail for each in conduct.troubles] == ["gc.enable(True)"]
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("warnings.filters", lambda: warnings.simplefilter("ignore")),
        ("warnings.showwarning", lambda: setattr(warnings, "showwarning", nothing)),
        ("warnings.showwarning", lambda: logging.captureWarnings(True)),
    ],
)
def test_what_becomes_of_warnings_is_told_and_restored(name, change):
    """Which of them are shown, and how, is the caller's."""
    before = warnings.showwarning
    for _ in range(2):
        with watched() as conduct:
            change()
        assert [each.detail for each in conduct.troubles] == [name]
        assert warnings.showwarning is before
        with warnings.catch_warnings():
            change()  # as where a law runs the loss with warnings of its own
    with warnings.catch_warnings():
        logging.captureWarnings(False)


def test_warnings_that_the_caller_has_logged_are_logged_after_the_loss():
    """A run takes them for itself, and gives them back."""
    logging.captureWarnings(True)
    try:
        before = warnings.showwarning
        with watched() as conduct:
            logging.captureWarnings(True)
            warnings.warn("a", UserWarning, stacklevel=1)
        assert (conduct.warnings, conduct.troubles) == (["UserWarning: a"], [])
        assert warnings.showwarning is before
    finally:
        logging.captureWarnings(False)


@pytest.mark.parametrize("on", [True, False])
def test_what_faults_of_the_process_show_is_as_before(on):
    """Whether it was on or off."""
    before = faulthandler.is_enabled()
    try:
        (partial(faulthandler.enable, 2) if on else faulthandler.disable)()
        with watched() as conduct:
            OTHER["faulthandler.enable"]()
        assert [each.detail for each in conduct.troubles] == [f"faulthandler.enable({not on})"]
        assert faulthandler.is_enabled() == on
    finally:
        (partial(faulthandler.enable, 2) if before else faulthandler.disable)()


def test_what_is_to_be_done_at_exit_is_told():
    """At every call, it would become more and more."""
    with watched() as conduct:
        atexit.register(nothing)
    atexit.unregister(nothing)
    assert [each.detail.partition("(")[0] for each in conduct.troubles] == ["atexit.register"]


def test_what_an_import_changes_is_restored_and_not_told(monkeypatch):
    """A module does so once, when it is imported first."""
    before = list(sys.path)
    with watched() as conduct:
        monkeypatch.setitem(sys.modules, "made_by_this_test", sys)
        warnings.simplefilter("ignore")
        sys.path.append("x")
    assert (conduct.troubles, sys.path) == ([], before)


def test_what_reaches_out_of_the_process_is_told(tmp_path):
    """Files that are written, processes; but no file that is read, nothing in another thread, nothing afterwards."""
    path = tmp_path / "a.txt"
    with watched() as conduct:
        path.write_text("a", encoding="utf-8")
        path.read_text(encoding="utf-8")
        Path(os.devnull).write_text("a", encoding="utf-8")
        os.fdopen(os.dup(2), "ab").close()
        thread = threading.Thread(target=path.unlink)
        thread.start()
        thread.join()
        subprocess.run(["true"], check=True)
    (tmp_path / "b.txt").touch()
    assert [each.split(" ")[0] for each in conduct.outside] == ["open", "subprocess.Popen"]
    assert str(path) in conduct.outside[0]


def test_what_is_done_at_every_call_is_kept_once_and_not_without_end(tmp_path):
    """Else it looks like memory that the loss keeps."""
    with watched() as conduct:
        for n in range(2 * MOST):
            (tmp_path / "a").touch()
            (tmp_path / f"{n}").touch()
    assert len(set(conduct.outside)) == len(conduct.outside) == MOST


def test_a_file_that_torch_writes_past_python_is_told(tmp_path):
    """It is written; what is saved into memory is no effect."""
    path = tmp_path / "x.pt"
    with watched() as conduct:
        torch.save(1, path)
        torch.save(1, io.BytesIO())
    assert [each for each in conduct.outside if each.startswith("torch.save")] == [f"torch.save {path}"]
    assert torch.load(path) == 1


def test_what_torch_compiles_is_no_effect(tmp_path):
    """A loss that is compiled, or imports a module, writes to caches."""
    scope = {"__name__": "torch._inductor.codecache", "path": tmp_path / "a"}
    with watched() as conduct:
        exec("path.touch()", scope)
    assert conduct.outside == []


def test_warnings_are_noted_but_those_about_versions():
    """A deprecation is between the loss and torch."""
    with watched() as conduct:
        warnings.warn("a", UserWarning, stacklevel=1)
        warnings.warn("b", FutureWarning, stacklevel=1)
    assert (conduct.warnings, conduct.troubles) == (["UserWarning: a"], [])


IN_GRAPH = "the graph of predictions[0] has a new hook"


def leaf(x):
    """The node of the tensor that this one was made from."""
    return x.grad_fn.next_functions[0][0]


def inputs():
    p = [torch.zeros(1, 2, 2, 2, 6, requires_grad=True) * 1]
    targets = torch.zeros(2, 6)
    return p, targets


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda p, t: t.add_(1), ["targets", "targets was written to"]),
        (lambda p, t: t.add_(0), ["targets was written to"]),
        (lambda p, t: t.requires_grad_(), ["targets has another requires_grad"]),
        (lambda p, t: p[0].register_hook(torch.nan_to_num), ["predictions[0] has a new hook"]),
        (lambda p, t: p[0].grad_fn.register_hook(nothing), [IN_GRAPH]),
        (lambda p, t: p[0].grad_fn.register_prehook(nothing), [IN_GRAPH]),
        (lambda p, t: leaf(p[0]).register_prehook(nothing), [IN_GRAPH]),
        (
            lambda p, t: p[0].grad_fn.register_prehook(lambda grads: 1 / 0),
            [IN_GRAPH],
        ),
        (lambda p, t: p[0].grad_fn.register_hook(nothing).remove(), []),
        (
            lambda p, t: (p[0].register_hook(lambda grad: 1 / 0), leaf(p[0]).register_prehook(nothing)),
            ["predictions[0] has a new hook"],
        ),
        (lambda p, t: (p[0] * 2).grad_fn.register_hook(nothing), []),
        (lambda p, t: register_multi_grad_hook(p, nothing), ["predictions[0] has a new hook"]),
        (
            lambda p, t: leaf(p[0]).variable.register_post_accumulate_grad_hook(nothing),
            ["predictions[0] has a new hook"],
        ),
        (lambda p, t: p[0].retain_grad(), ["retain_grad() was called on predictions[0]"]),
        (lambda p, t: p[0].sum().backward(), ["a gradient is left in predictions[0].grad"]),
        (lambda p, t: setattr(p[0], "seen", True), ["predictions[0] has a new attribute"]),
        (lambda p, t: setattr(t, "data", t.clone()), ["targets has other memory"]),
    ],
)
def test_what_is_left_in_an_input_is_told(act, told):
    """Values, and all that autograd and others hold in a tensor."""
    p, targets = inputs()
    before = Inputs(p, targets)
    assert list(before.troubles()) == []
    with watched() as conduct:
        act(p, targets)
    assert [each.detail for each in before.troubles(list(conduct.hooks.values()))] == told
    assert told == ["a gradient is left in predictions[0].grad"] or leaf(p[0]).variable.grad is None
