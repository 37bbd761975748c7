"""A loss of another kind is told in one line what it is and what to do; a fault of an ordinary loss is not a kind."""

import re
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from properties.v5.kinds import by_arguments
from tests.all_laws import LAWS, ROOT
from tests.judging import search
from tests.test_cli import run
from yololoss.harness.cli.options import under_test
from yololoss.harness.config import Settings
from yololoss.harness.engine import held
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.load import load_loss
from yololoss.harness.subjects.outcome import Trouble

CPU = torch.device("cpu")

FILE = "tests/subjects/kinds.py"
PAGE = "docs/use/adapters.md"


def adapter(term: str) -> str:
    """What to do about a loss with one more term."""
    return f"An adapter that leaves out the {term} term can have the box, objectness and class terms judged"


def line(spec: str) -> str:
    """What a command says of a loss, without another process."""

    def asked(task: Any, look: Any, *given: Any) -> Any:
        pipe = Mock()
        look(pipe, task, *given)
        return pipe.send.call_args[0][0]

    chosen = Settings(loss=spec, device="cpu", dialect="upstream", baseline=None)
    with pytest.MonkeyPatch.context() as monkey:
        monkey.chdir(ROOT)
        monkey.setattr(held, "_asked", asked)
        with pytest.raises(UsageError) as told:
            held.found_if_unnamed(chosen, under_test(chosen))
    lines = re.sub(r"(kinds\.py:)\d+", r"\1#", str(told.value))
    return lines.replace("(expected 4, got 5)", "(expected 4)")  # newer Pythons say more


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "WithImages",
            "an OTA loss, whose predictions choose the rows: it asks for imgs. "
            "An adapter that shows the rows can have all but their choice judged",
        ),
        ("WithMasks", f"a segmentation loss: it asks for masks. {adapter('mask')}"),
        (
            "WithAngles",
            "a loss of boxes with an angle: it asks for theta_pw (KeyError: 'theta_pw', at kinds.py:# in __init__). "
            f"{adapter('angle')}",
        ),
        (
            "with_landmarks",
            "a loss of landmarks or keypoints: it asks for landmark (RuntimeError: The size of tensor a (6) must match "
            "the size of tensor b (16) at non-singleton dimension 1, at kinds.py:# in with_landmarks). "
            f"{adapter('point')}",
        ),
        (
            "WithoutAnchors",
            "a loss without anchors, like YOLOv8's: it asks for reg_max (AttributeError: the loss looked for "
            "model.args, which is not there, at kinds.py:# in __init__). "
            "If it is called with (preds, batch), the laws of another family are about it",
        ),
        (
            "DictOfTargets",
            "it reads targets['batch_idx'], but YOLOv5's targets are a tensor (N, 6) (IndexError: too many indices for "
            "tensor of dimension 2, at kinds.py:# in __call__). An adapter can make the dict",
        ),
        (
            "OtherConstructor",
            "expected a constructor with one required argument, the model, got (anchors, strides, num_classes, hyp). "
            "An adapter can build and call it",
        ),
        (
            "other_function",
            "expected a function of (p, targets, model), got (preds, targets, cfg, device). "
            "An adapter can build and call it",
        ),
        (
            "OtherReturn",
            "its result has another form: expected (total, items) or only the total, got dict of 3. "
            "An adapter can make a total and items of it",
        ),
        (
            "RenamedHead",
            "it reads model.detect_head at kinds.py:# in __init__, which YOLOv5's model does not have; did you mean "
            "'detection'? An adapter can build it from a model that has it",
        ),
        (
            "OtherHead",
            "it reads model.model[-1].cells at kinds.py:# in __init__, which YOLOv5's model does not have. "
            "An adapter can build it from a model that has it",
        ),
        (
            "Namespace",
            "it reads hyp.label_smoothing at kinds.py:# in __init__, but YOLOv5's hyp is a dict. "
            "An adapter can build it from a model whose hyp is a namespace",
        ),
        (
            "RawMaps",
            "it takes raw convolution maps (B, A (5 + C), H, W), but YOLOv5's predictions are (B, A, H, W, 5 + C) "
            "(ValueError: too many values to unpack (expected 4), at kinds.py:# in __call__). "
            "An adapter can change the shape",
        ),
        (
            "AuxiliaryHeads",
            "it takes twice as many predictions as the head has layers, as of auxiliary heads (IndexError: list index "
            "out of range, at kinds.py:# in __call__). An adapter that gives those of the head twice, and leaves out "
            "the auxiliary term, can have the rest judged",
        ),
    ],
)
def test_a_loss_of_another_kind_is_told(name, told):
    """What it is, by what it asks for, what to do, and the page about adapters."""
    assert line(f"{FILE}:{name}") == f"--loss {FILE}:{name}: {told}: {PAGE}"


@pytest.mark.parametrize(
    ("name", "raised"),
    [
        ("OrdinaryFault", "KeyError: 'cls', at kinds.py:# in __call__"),
        (
            "OrdinaryFaultWithImages",
            "AttributeError: 'list' object has no attribute 'detach', at kinds.py:# in __call__",
        ),
        ("OrdinaryAttribute", "AttributeError: 'dict' object has no attribute 'total', at kinds.py:# in __call__"),
    ],
)
def test_a_fault_of_an_ordinary_loss_is_no_kind(name, raised):
    """What it raised and what it is given, as of any loss that cannot be called."""
    assert line(f"{FILE}:{name}") == (
        f"{FILE}:{name} cannot be called: raised in loss on each of 20 cases: {raised}. It is given a model like "
        "YOLOv5's (a dict hyp, gr, nc, a head model[-1]), then predictions and targets; a loss that wants other things "
        f"needs an adapter: {PAGE}"
    )


@pytest.mark.parametrize("name", ["ImageLoss", "OlderLoss", "compute_loss", "ModuleLoss", "DictAdapter"])
def test_a_loss_of_a_known_form_is_of_no_other_kind(name):
    """With images too, if its rows come from the targets; an adapter is what its author says."""
    subject = load_loss(f"tests.subjects.forms:{name}", CPU)
    assert subject.family.other_kind(subject, None) is None


@pytest.mark.parametrize("name", ["pasted:SIoU", "conforming:Pieces", "conforming:Scripted", "forms:BlackBox"])
def test_an_angle_of_an_overlap_is_no_angle_of_boxes(name):
    """Whatever such a loss raises: it asks for no other targets or predictions."""
    subject = load_loss(f"tests.subjects.{name}", CPU)
    assert subject.family.other_kind(subject, Trouble("raised in loss", "RuntimeError: some fault")) is None


def test_an_adapter_that_raises_is_of_no_other_kind():
    """Whatever its names are: who writes an adapter knows the kind."""
    subject = load_loss("tests.subjects.kinds:MasksLeftOut", CPU)
    raised = Trouble("raised in construction", "KeyError: 'theta_pw'")
    assert subject.family.other_kind(subject, raised) is None


def test_a_class_whose_call_has_no_signature_tells_nothing():
    """As one that is called by a builtin."""
    assert by_arguments(type("Loss", (), {"__call__": dict.fromkeys})) is None


@pytest.mark.parametrize("name", ["MasksLeftOut", "AnglesLeftOut", "LandmarksLeftOut", "Named", "Raw"])
def test_what_is_said_of_adapters_holds(name):
    """Laws of each term judge the loss through an adapter as the line says, and hold."""
    subject = load_loss(f"tests.subjects.kinds:{name}", CPU)
    for law in ("boxes.item", "objectness.item", "classes.item", "totals.sum", "gradients.value"):
        assert search(LAWS[law], subject, 8) is None
        assert LAWS[law].tally.judged > 0


@pytest.mark.parametrize("command", ["check", "fuzz", "replay"])
def test_every_command_says_it_in_one_line(command, tmp_path):
    """On standard error, with exit status 2; nothing is written."""
    case = ROOT / "golden" / "v5" / "upstream-5081342f04fb.json"
    loss = f"{ROOT}/{FILE}:WithAngles"
    given = (case, "--loss", loss) if command == "replay" else (loss,)
    status, output, errors = run(command, *given, cwd=tmp_path)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(
        f"yololoss: --loss {loss}: a loss of boxes with an angle: it asks for theta_pw (KeyError: "
    )
    assert errors.endswith(f": {PAGE}\n")
    assert list(tmp_path.iterdir()) == []
