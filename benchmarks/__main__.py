"""How fast the loss is, as ratios within one run on one machine.

``python -m benchmarks`` measures all and writes ``docs/measured/benchmarks.md``, its plot and
``benchmarks/recorded.json``;
``python -m benchmarks --check`` measures one setting, and ends with 1 if a ratio is more than half above the
recorded one. ``python -m benchmarks --against SPEC`` times another loss beside it, such as the one that you replace.
``python -m benchmarks --family tal`` prints the same of the task-aligned loss, with or without ``--against``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

from benchmarks.against import table
from benchmarks.memory import beyond_the_gradient
from benchmarks.settings import FLOOR, LOSSES, SWEEPS, USUAL
from benchmarks.tal import report

HERE = Path(__file__).parent
ROOT = HERE.parent
RECORDED = HERE / "recorded.json"
PAGE, PLOT = ROOT / "docs" / "measured" / "benchmarks.md", ROOT / "docs" / "measured" / "benchmarks.svg"
WORSE = 1.5  # times the recorded ratio, which is a failure
RUNS = 3  # in which it must be so: a machine that others use is slow for seconds at a time
# What is measured against what: of a step the least that must be done, and of all the plain loss.
RATIOS = (
    ("step", "loss", FLOOR),
    ("step", "loss, checks off", FLOOR),
    ("step", "plain", FLOOR),
    ("step", "loss", "plain"),
    ("step", "loss, checks off", "plain"),
    ("forward", "loss", "plain"),
    ("assignment", "loss", "plain"),
)
Seconds = dict[tuple[str, str, str], float]  # of a call, by setting, what is done, and name
Ratios = dict[str, dict[str, float]]  # by setting, then by ratio


def measure(only: str) -> Seconds:
    """Run the benchmarks whose names fit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seconds.json"
        command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider", "-k", only]
        options = ["--benchmark-warmup=on", "--benchmark-max-time=0.5", "--benchmark-min-rounds=10"]
        shown = ["--benchmark-columns=min,median,rounds", f"--benchmark-json={path}"]
        subprocess.run([*command, *options, *shown], cwd=ROOT, check=True, stdout=sys.stderr)
        found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    # The least of the rounds: whatever else the machine does can only add to it.
    return {tuple(map(b["extra_info"].get, ("setting", "what", "name"))): b["stats"]["min"] for b in found}


def least(*measured: Seconds) -> Seconds:
    """The minimum of several runs."""
    return {key: min(each[key] for each in measured if key in each) for key in {k: 0 for m in measured for k in m}}


def divided(seconds: Seconds) -> Ratios:
    """The ratios of `RATIOS`, by setting."""
    return {
        setting: {
            f"{what}, {name} / {other}": round(seconds[setting, what, name] / seconds[setting, what, other], 3)
            for what, name, other in RATIOS
        }
        for setting in dict.fromkeys(setting for setting, *_ in seconds)
    }


def complaints(now: Ratios, recorded: Ratios) -> Iterator[str]:
    """The ratios that have become worse."""
    for setting, ratios in now.items():
        for name, ratio in ratios.items():
            if ratio > WORSE * recorded[setting][name]:
                yield f"{setting}: {name} is {ratio:.2f}; it was {recorded[setting][name]:.2f}"


def plot(ratios: Ratios, path: Path) -> None:
    """Steps as multiples of the floor, and of the plain loss, over each sweep."""
    mpl.rcParams["svg.hashsalt"] = "yololoss"  # the same picture again is the same file
    figure, axes = plt.subplots(1, len(SWEEPS), figsize=(14, 3.8), sharey=True, layout="constrained")
    for axis, (field, settings) in zip(axes, SWEEPS.items(), strict=True):
        x = [getattr(s, field) for s in settings]
        for name in LOSSES:
            axis.plot(x, [ratios[str(s)][f"step, {name} / {FLOOR}"] for s in settings], marker="o", label=name)
        axis.axhline(1, color="grey", linewidth=0.8, label=FLOOR)
        axis.set(xscale="symlog" if 0 in x else "log", xlabel=field, yscale="log")
        axis.set_xticks(x, labels=list(map(str, x)))
        axis.minorticks_off()
    axes[0].set_ylabel("forward + backward, times the floor")
    axes[0].legend()
    figure.savefig(path, metadata={"Date": None})


def page(ratios: Ratios, memory: dict[str, dict[str, float]]) -> Iterator[str]:
    """The Markdown page."""
    usual = ratios[str(USUAL)]
    yield "# How fast the loss is\n"
    yield f"Made by `python -m benchmarks` (torch {torch.__version__}, {os.cpu_count()} cores, 2 threads, float32): the"
    yield "least of at least ten rounds of each, by pytest-benchmark, divided within one run on one machine; at the"
    yield "usual setting, the least of three runs."
    yield "`.ci/run` measures that one (`python -m benchmarks --check`), and fails where a ratio has become half as"
    yield "large again.\n"
    yield "`python -m benchmarks --against utils/loss.py:ComputeLoss` times your own loss beside the bundled one, in"
    yield "turn, in one process: medians of 15 rounds, with the quartiles of the ratios. `--compiled` adds a plain loss"
    yield "that torch compiles.\n"
    yield "- **floor**: zeros of the predictions' size, which whoever hands back a dense gradient must make."
    yield "- **plain**: a loss as losses in the wild are written, with autograd's own gradients"
    yield "  (`tests/subjects/in_place.py`)."
    yield "- **loss**: the bundled one; **checks off**: with a row for all that could be one, and no wait for the"
    yield "  device.\n"
    yield f"At the usual setting ({USUAL}), forward and backward of the loss take"
    yield f"**{usual[f'step, loss / {FLOOR}']:.2f} times the floor**, and the plain loss takes"
    yield f"**{1 / usual['step, loss / plain']:.2f} times** as long as it.\n"
    yield "![Forward and backward, times the floor](benchmarks.svg)\n"
    for field, settings in SWEEPS.items():
        yield f"## By {field}\n"
        yield f"Others as in: {settings[-1]}.\n" if field != "batch" else "Seven targets an image.\n"
        yield f"| {field} | " + " | ".join(f"{what}: {a} / {b}" for what, a, b in RATIOS) + " |"
        yield "|---:|" + "---:|" * len(RATIOS)
        for s in settings:
            yield f"| {getattr(s, field)} | " + " | ".join(f"{r:.2f}" for r in ratios[str(s)].values()) + " |"
        yield ""
    yield "## Memory\n"
    yield "The most that a step holds beyond its inputs and the gradient, as a share of the predictions' size"
    yield "(torch's profiler).\n"
    yield "| setting | " + " | ".join(LOSSES) + " |\n|---|" + "---:|" * len(LOSSES)
    for setting, shares in memory.items():
        yield f"| {setting} | " + " | ".join(f"{share:.1%}" for share in shares.values()) + " |"


def main() -> int:
    """Measure and write, or measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the usual setting with what is recorded")
    parser.add_argument("--against", metavar="SPEC", help="time this loss, FILE.py:NAME or MODULE:NAME, beside ours")
    parser.add_argument("--compiled", action="store_true", help="with --against: a compiled plain loss as well")
    parser.add_argument("--family", choices=("v5", "tal"), default="v5", help="whose loss is measured")
    parser.add_argument("--threads", type=int, default=2, help="of torch, with --against or --family tal")
    asked, seconds = parser.parse_args(), dict[tuple[str, str, str], float]()
    if asked.against or asked.family == "tal":
        torch.set_num_threads(asked.threads)
        lines = report(asked.against) if asked.family == "tal" else table(asked.against, compiled=asked.compiled)
        for line in lines:
            print(line, flush=True)
        return 0
    if asked.check:
        recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
        found = [""]
        for _ in range(RUNS):
            seconds = least(seconds, measure("usual"))
            found = list(complaints(divided(seconds), recorded))
            if not found:
                break
        print("\n".join(found) or "no ratio has become half as large again")
        return bool(found)
    ratios = divided(least(measure("test_speed"), *(measure("usual") for _ in range(RUNS - 1))))
    recorded = {str(USUAL): ratios[str(USUAL)]}
    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    plot(ratios, PLOT)
    largest = (USUAL, *(settings[-1] for settings in SWEEPS.values()))
    memory = {str(s): {name: beyond_the_gradient(name, s) for name in LOSSES} for s in largest}
    PAGE.write_text("\n".join(page(ratios, memory)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
