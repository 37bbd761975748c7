"""What watching a training run costs, and what it tells: ``python -m tests.training_trial``."""

import random
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from click.testing import CliRunner
from torch import Tensor

from examples.training.train import Detector, batch, train
from properties.v5.training import Training
from tests.faults import Fault, plant
from tests.faults.catalogue import FAULTS
from yololoss import ComputeLoss, watch
from yololoss.harness.cases.vectors import make_vector, write_vectors
from yololoss.harness.cli import main as command
from yololoss.harness.devices import mirror
from yololoss.harness.subjects.load import find_device, import_loss

STEPS, WIDTH, SIZE, IMAGES = 40, 64, 320, 8  # of the run whose cost is measured
PARTS = ("assign", "gather", "boxes", "objectness", "classes", "totals", "gradients")
HELD = "no law broke"
COUNT, SEED, TRIED = 10, 7, 5  # faults, and steps of a run that are judged


class Told(NamedTuple):
    """A trouble, and what explain told of the step that was saved for it."""

    trouble: str
    step: int | None  # at which something was saved
    right: bool  # whether that is where the trouble began, and what was told is what it is
    told: str
    targets: int | None  # of the smallest case


def unchecked(model: Any) -> ComputeLoss:
    """The bundled loss, which then refuses no input."""
    return ComputeLoss(model, checks=False)


def cost() -> tuple[float, float]:
    """Milliseconds of a training step, and what a watched one takes in addition, as a share; medians of pairs."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Detector(WIDTH)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001)
    images, targets = batch(1, IMAGES, SIZE)

    def step(loss: Any) -> float:
        began = time.perf_counter()
        total, _ = loss(model(images), targets)
        optimiser.zero_grad()
        total.sum().backward()
        optimiser.step()
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        plain, watched = unchecked(model), watch(unchecked(model), model, folder=folder)
        step(plain), step(watched)
        pairs = [(step(plain), step(watched)) for _ in range(STEPS)]
    return 1000 * statistics.median(a for a, _ in pairs), statistics.median(b / a for a, b in pairs) - 1


def own_time() -> float:
    """Milliseconds that the recorder itself takes of such a step: without the model, and a loss that does nothing."""
    predictions = [each.detach().requires_grad_() for each in Detector(WIDTH)(batch(1, IMAGES, SIZE)[0])]
    targets = batch(1, IMAGES, SIZE)[1]

    def nothing(p: list[Tensor], targets: Tensor) -> Any:
        return sum((each * 0).sum() for each in p), torch.zeros(3)

    def step(loss: Any) -> float:
        began = time.perf_counter()
        loss([each * 1 for each in predictions], targets)[0].backward()
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        watched = watch(nothing, Detector(WIDTH), folder=folder)
        pairs = [(step(nothing), step(watched)) for _ in range(STEPS)]
    return 1000 * statistics.median(b - a for a, b in pairs)


def waits() -> int:
    """How often a watched step waits for the simulated accelerator more than one that is not watched."""
    device = find_device(mirror.NAME)
    targets = batch(1)[1].to(device)
    predictions = [each.detach().to(device).requires_grad_() for each in Detector()(batch(1)[0])]

    def loss(p: list[Tensor], targets: Tensor) -> Any:
        return sum(each.sum() for each in p), torch.zeros(3, device=device)

    with tempfile.TemporaryDirectory() as folder, torch.autograd.set_multithreading_enabled(False):
        watched = watch(loss, Detector(), folder=folder)
        watched(predictions, targets)
        mirror.MIRROR.begin(0)
        for _ in range(10):
            watched([each * 1 for each in predictions], targets)[0].backward()
        return sum(mirror.MIRROR.waits.values())


def told_of(trouble: str, folder: Path, begins: int, expected: str, loss: str = "") -> Told:
    """What explain tells of the first saved step."""
    found = sorted(folder.glob("*-step-*.json"), key=lambda path: int(re.findall(r"-step-(\d+)-", path.name)[0]))
    if not found:
        return Told(trouble, None, False, "nothing was saved", None)
    step = int(re.findall(r"-step-(\d+)-", found[0].name)[0])
    own = ["--loss", loss, "--dialect", "yololoss"] if loss else []
    said = CliRunner().invoke(command, ["explain", str(found[0]), "--findings", str(folder), *own]).output
    rows = re.search(r"image  class .*\n((?: +\d.*\n)*)", said)
    law = re.search(r"^(\S+) broke", said, re.MULTILINE)
    what = law[1] if law else next((line.strip() for line in said.splitlines() if "invalid:" in line), HELD)
    count = len(rows[1].splitlines()) if rows else None
    return Told(trouble, step, step == begins and re.search(expected, said) is not None, what, count)


def run(folder: Path, make: Callable[[Any], Any], spoil: Any = None, **options: Any) -> None:
    """A watched training run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(
            lambda model: watch(make(model), model, folder=folder),
            60,
            spoil or (lambda step, p, targets: None),
            **options,
        )


def troubles() -> Iterator[Told]:
    """The four that a run meets most."""

    def no_height(step: int, p: list[Tensor], targets: Tensor) -> None:
        if step == 50:
            targets[5, 5] = 0

    def no_size(step: int, p: list[Tensor], targets: Tensor) -> None:
        if step == 30:
            with torch.no_grad():
                p[0][2, ..., 2:4] = -100

    def in_half(step: int, p: list[Tensor], targets: Tensor) -> None:
        if step == 40:
            with torch.no_grad():
                p[0].copy_((p[0] * 1e6).half())

    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(n)) for n in range(4)]
        run(folders[0], unchecked, no_height)
        yield told_of(
            "a box of no height at step 50", folders[0], 50, r"invalid: target 5 \(image 1, box 2\) has height 0"
        )
        run(folders[1], unchecked, rate=lambda step: 1e30 if step == 20 else 0.01)
        yield told_of("a learning rate that explodes at step 20", folders[1], 21, "usual causes  1. A learning rate")
        run(folders[2], unchecked, in_half)
        yield told_of(
            "an overflow of float16 inside the network at step 40", folders[2], 40, "2. An overflow of float16"
        )
        spec = plant(next(fault for fault in FAULTS if fault.name == "angle_by_division"), Path(name))
        run(folders[3], import_loss(spec)[0], no_size)
        trouble = "predicted boxes without a size at step 30, and a loss that divides by it"
        yield told_of(trouble, folders[3], 30, "box item is NaN", spec)


def shown(fault: Fault) -> bool:
    """Whether a fault changes the total or a gradient in one of the first steps of a run."""
    with tempfile.TemporaryDirectory() as name:
        spec = plant(fault, Path(name))
        try:
            return any(not _same(import_loss(spec)[0], number) for number in range(1, TRIED + 1))
        except Exception:
            return True


def _same(kind: Any, number: int) -> bool:
    model, (images, targets) = train(unchecked, number - 1), batch(number)
    found = []
    for loss in (unchecked(model), kind(model)):
        predictions = model(images)
        total = loss(predictions, targets)[0].sum()
        found.append((total, *torch.autograd.grad(total, predictions)))
    return all(torch.allclose(*pair, rtol=1e-4, atol=0) for pair in zip(*found, strict=True))


def chosen() -> Iterator[Fault]:
    """Random faults that a law about one run should notice, and that a run shows; the same each time."""
    usual = [fault for fault in FAULTS if fault.device == "cpu" and fault.law.startswith(PARTS)]
    random.Random(SEED).shuffle(usual)
    return islice(filter(shown, usual), COUNT)


def of_fault(fault: Fault) -> Told:
    """What explain tells of the first steps of a run with this fault, as it is asked with ``every``."""
    with tempfile.TemporaryDirectory() as name:
        spec, folder = plant(fault, Path(name)), Path(name, "steps")
        told = Told(fault.name, None, False, "nothing", None)
        for number in range(1, TRIED + 1):
            model, (images, targets) = train(unchecked, number - 1), batch(number)
            reader = Training(unchecked(model), model)
            case, _, _ = reader.case(reader.step((model(images), targets), None))
            path = folder / str(number) / f"a-step-{number}-sample.json"
            write_vectors(path, {}, [make_vector(case, id="sample", comment=f"step {number}")])
            part = fault.law.partition(".")[0]
            told = told_of(fault.name, path.parent, number, rf"(?m)^{part}\.\S+ broke", spec)
            if told.told != HELD:
                break
        return told


def rows(told: list[Told]) -> Iterator[str]:
    """The table."""
    yield "| trouble | saved at step | told | targets in its smallest case | right |"
    yield "|---|---:|---|---:|---|"
    for each in told:
        right, count = each.right and (each.targets or 0) <= 3, "" if each.targets is None else each.targets
        yield f"| {each.trouble} | {each.step or ''} | {each.told} | {count} | {'yes' if right else 'no'} |"


def page() -> Iterator[str]:
    """The Markdown page."""
    yield "# What watching a training run costs, and what it tells\n"
    yield "Made by `python -m tests.training_trial`. [Watch a training run](../use/training.md) is the guide.\n"
    (milliseconds, share), own = cost(), own_time()
    yield f"A detector of {WIDTH} channels, {IMAGES} images of {SIZE} x {SIZE}, one CPU core, medians of {STEPS} pairs:"
    yield f"a step takes {milliseconds:.1f} ms, a watched one {share:+.2%} of that. The recorder itself takes"
    yield f"{own:.2f} ms, {own / milliseconds:.2%} of a step. On the simulated accelerator, 10 watched steps wait for"
    yield f"the device {waits()} times more than others.\n"
    yield f"Four troubles of a run of 60 steps, and {COUNT} random faults of the catalogue (seed {SEED}) that change a"
    yield f"total or a gradient in its first {TRIED} steps, each planted into the bundled loss. Right: saved where it"
    yield "began, a law of the part at fault told first, or the invalid input, and at most three targets left.\n"
    yield from rows([*troubles(), *map(of_fault, chosen())])


if __name__ == "__main__":
    print("\n".join(page()))
    sys.exit(0)
