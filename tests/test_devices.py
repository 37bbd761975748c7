"""Notes on a run on a device, and its surroundings."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from properties.v5.dialects import UPSTREAM
from tests.all_laws import LAWS, V5
from tests.judging import on_its_device, search
from tests.test_case import CASE
from yololoss.harness.devices.devices import Around, Wait
from yololoss.harness.subjects import compiled
from yololoss.harness.subjects.compiled import Compiled, graph_breaks
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import find_device, load_loss
from yololoss.harness.subjects.subject import Subject

CASE = CASE.changed(targets=((0.0, 0.0, 0.5, 0.5, 0.3, 0.4),))


PLAIN = Around()


class Sum(Subject):
    """The sum of all logits, with what a loss may do on the way."""

    def on_the_way(self, p: list[Tensor], targets: Tensor) -> None:
        """Nothing."""

    def loss(self, p, targets):
        self.on_the_way(p, targets)
        return sum(x.sum() for x in p), None


def run(on_the_way, around: Around = PLAIN, device: str = "mirror"):
    loss = type("Loss", (Sum,), {"on_the_way": on_the_way})
    return execute(LossUnderTest("here", loss, find_device(device), V5, UPSTREAM, around=around), CASE)


def test_waits_are_those_of_the_last_call():
    """Where in the loss, what, and how often; what the harness itself reads is not counted."""

    def reads(self, p, targets):
        for x in p:
            x.sum().item()

    outcome = run(reads)
    assert [(w.what, w.times) for w in outcome.waits] == [("item", CASE.layers)]
    assert outcome.waits[0].place.startswith("test_devices.py:")
    assert outcome.waits == (Wait(outcome.waits[0].place, "item", CASE.layers),)
    assert not run(lambda *_: None).waits


def test_waits_in_the_backward_pass_are_told_as_such():
    """A function of torch's own that waits there has no line of the loss."""

    def reads(self, p, targets):
        p[0].register_hook(lambda gradient: gradient * float(gradient.isfinite().all()))

    assert [w.what for w in run(reads).waits] == ["item"]


def test_a_wait_of_torchs_own_backward_has_no_line_of_the_loss():
    """Its place is the backward pass; what the harness and the family's call forms do is never a line of the loss."""

    class Masked(Sum):
        def loss(self, p, targets):
            return p[0][p[0] > 0].sum(), None

    outcome = execute(LossUnderTest("here", Masked, find_device("mirror"), V5, UPSTREAM), CASE)
    assert {w.place.partition(":")[0] for w in outcome.waits} == {"test_devices.py", "backward"}


def test_what_is_made_elsewhere_is_noted_where_that_is_asked_for():
    """Tensors with dimensions on the CPU; not those on the device, and no plain numbers."""

    def makes(self, p, targets):
        torch.zeros(2), torch.tensor([1.0]), torch.tensor(1.0), torch.ones(2, device=p[0].device)

    noted = run(makes, Around(watched=True)).elsewhere
    assert [line.partition(" at ")[0] for line in noted] == ["zeros", "lift_fresh"]
    assert all(" at test_devices.py:" in line for line in noted)
    assert not run(makes).elsewhere
    assert not run(makes, Around(watched=True), "cpu").elsewhere


def test_an_assertion_on_the_device_ends_the_case_and_no_more():
    """The outcome has a trouble; the next case has a working mirror."""

    def reads_beyond(self, p, targets):
        p[0].flatten()[torch.tensor([10**6], device=p[0].device)]

    troubles = run(reads_beyond).troubles
    assert [t.kind for t in troubles] == ["raised in loss", "killed the device"]
    assert "device-side assertion failed" in troubles[1].detail
    assert not run(lambda *_: None).troubles


def test_surroundings_are_as_asked_for_and_put_back():
    """Autocast, deterministic algorithms, targets on the host."""
    seen = []

    def looks(self, p, targets):
        kind = p[0].device.type
        seen.append(
            (torch.is_autocast_enabled(kind), torch.are_deterministic_algorithms_enabled(), targets.device.type)
        )

    for around in (Around(), Around(autocast="bfloat16", deterministic=True, targets_on_host=True)):
        run(looks, around)
    assert seen == [(False, False, "mirror"), (True, True, "cpu")]
    assert not torch.are_deterministic_algorithms_enabled()


FORMS = ("OlderLoss", "compute_loss", "ImageLoss", "ModuleLoss", "BlackBox", "DictAdapter")


@pytest.mark.parametrize("name", ["plain:PlainLoss", "in_place:InPlace", *(f"forms:{name}" for name in FORMS)])
def test_every_call_form_runs_on_the_mirror(name):
    """Forward and backward, unchanged, with the values of the CPU."""
    under_test = load_loss(f"tests.subjects.{name}", find_device("mirror"))
    there, here = execute(under_test, CASE), execute(replace(under_test, device=torch.device("cpu")), CASE)
    assert not there.troubles
    assert there.calls[0].total == pytest.approx(here.calls[0].total, rel=1e-6)
    for got, want in zip(there.gradients, here.gradients, strict=True):
        assert got == pytest.approx(want, rel=1e-4, abs=1e-9)


def test_a_subject_is_compiled_and_its_graph_breaks_are_found(monkeypatch):
    """Without a C++ compiler the loss is still traced."""
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert compiled.backend() == "aot_eager"

    def breaks(self, p, targets):
        assert p[0].sum().item() != torch.pi

    loss = type("Loss", (Sum,), {"on_the_way": breaks})
    subject = loss(CASE, torch.device("cpu"))
    given = CASE.inputs(torch.device("cpu"))
    wrapped = Compiled(subject)
    assert wrapped.loss(*given)[0].item() == pytest.approx(subject.loss(*given)[0].item(), rel=1e-5)
    assert wrapped.rows(*given) is None
    assert wrapped.state() is None
    (place,) = graph_breaks(subject, *given)
    assert place.startswith("test_devices.py:")


def test_a_loss_that_is_otherwise_when_compiled_is_found(monkeypatch):
    """On the pseudo-device compile only the laws of compilation judge it, and they judge nowhere else."""
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    under_test = on_its_device("tests.test_devices:Halved", "compile")
    assert "total of call 0" in str(search(LAWS["compile.values"], under_test))
    assert LAWS["totals.sum"].assumes(under_test) == "is not about compilation"


class Halved(Sum):
    """Compiled, it gives half of the loss."""

    def loss(self, p, targets):
        total, items = super().loss(p, targets)
        return total * (0.5 if torch.compiler.is_compiling() else 1.0), items
