"""What the commands share: options, settings, progress, and printing."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from yololoss.harness.errors import printable

if TYPE_CHECKING:
    from yololoss.harness.config import Settings
    from yololoss.harness.findings.finding import Finding
    from yololoss.harness.subjects.family import LossUnderTest

BROKE = 1  # exit status
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def duration(text: str) -> float:
    """The seconds of a time such as 90s, 10m, 2h or 1h30m. A number without a unit means seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text if text[-1:].isalpha() else f"{text}s")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(map("".join, parts)).removesuffix("s") != text.removesuffix("s") or seconds <= 0:
        raise click.BadParameter(f"{text!r}: expected a time such as 90s, 10m, 2h or 1h30m")
    return seconds


device = click.option(
    "--device",
    metavar="NAMES",
    help="cpu, cuda, cuda:N, mps, mirror (a simulated accelerator), compile (torch.compile), several separated by "
    "commas, or auto: all available devices.  [default: cpu]",
)
one_device = click.option("--device", metavar="NAME", help="cpu, cuda, cuda:N, mps or mirror.  [default: cpu]")
dialect = click.option(
    "--dialect",
    metavar="NAME",
    help="The dialect of the loss, such as yolov5-4.0: its choices are no faults. An unknown name lists all "
    "dialects.  [default: check, fuzz, mend, explain and history find it out; else upstream]",
)
laws = click.option(
    "--laws",
    metavar="PATTERN",
    multiple=True,
    help="Only laws with this id, a prefix of it, or a pattern that it matches: boxes.gradient, assign, "
    "'totals.*-gain'. May be repeated.",
)
loss = click.option(
    "--loss",
    metavar="LOSS",
    help="path/to/file.py:Name or package.module:Name.  [default: from the settings, else the bundled loss]",
)
findings = click.option(
    "--findings",
    type=FOLDER,
    default=Path(".yololoss/findings"),
    show_default=True,
    help="Where failing cases and their pictures are saved.",
)
corpus = click.option(
    "--corpus", type=FOLDER, help="A folder of case files to judge first.  [default: from the settings]"
)
workers = click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes at the same time.  [default: one for each core, at most 8; fewer for few laws]",
)
long_workers = click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes at the same time.  [default: one for each GPU, else one for each core]",
)
limit = click.option(
    "--limit", type=duration, metavar="TIME", help="The most time that a case may take, with all laws.  [default: 30s]"
)
memory = click.option("--memory", type=click.IntRange(min=1), help="MiB that a process may use.  [default: 4096]")
export = click.option(
    "--export",
    type=click.Choice(["pytest"]),
    help="Also write each finding as a test file beside its case. The test needs only the loss, torch and pytest.",
)
mend_for = click.option(
    "--for",
    "mend_for",
    type=duration,
    metavar="TIME",
    default="60s",
    show_default=True,
    help="How long to look for what mends the faults, in all, once they are found.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print only JSON.")


def write_tests(findings: Iterable["Finding"], under_test: "LossUnderTest") -> Iterator[str]:
    """Write findings as tests. Yields for each a line: the path, or why there can be none."""
    from yololoss.harness.errors import UsageError  # noqa: PLC0415
    from yololoss.harness.findings.export import export  # noqa: PLC0415

    for finding in findings:
        try:
            yield f"test: {export(finding, under_test)}"
        except UsageError as error:
            yield f"no test: {error}"


def settings(**given: str | None) -> "Settings":
    """The values given, else those of the project's settings, else the defaults."""
    from yololoss.harness.config import read_config, settle  # noqa: PLC0415

    return settle(read_config(Path.cwd()), **given)


def under_test(chosen: "Settings") -> "LossUnderTest":
    """The loss of the settings, on the first device."""
    import torch  # noqa: PLC0415

    from yololoss.harness.subjects.load import find_devices, load_loss  # noqa: PLC0415

    torch.set_num_threads(1)  # cases are small: a second thread costs more time than it saves
    with chosen.blamed():
        found, _ = find_devices(chosen.device)
        name, where = next(iter(found.items()))
        return load_loss(chosen.loss, where, chosen.dialect, compiled=name == "compile")


def usual_workers(device: str) -> int:
    """Processes for a long command: one for each GPU, else one for each core."""
    import torch  # noqa: PLC0415

    return torch.cuda.device_count() or 1 if device == "cuda" else os.cpu_count() or 1


def say(text: str, style: str = "") -> None:
    """Print lines to standard output, in colour only on a terminal."""
    Console(highlight=False, soft_wrap=True).print(Text(printable(text, keep="\n"), style))


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on a terminal, else one line. On standard error: standard output has only the result."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal and not quiet:
        console.print(Text(what))
    columns = TextColumn(what, markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        yield bar
