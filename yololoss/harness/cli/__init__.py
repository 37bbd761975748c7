"""The command line: check, mend, fuzz, prove, replay, explain, corpus, record, diff, history, draw, laws, dialects.

Exit status of every command: 0, success; 1, a law broke, or two losses differ; 2, the command could not run, and prints
why in one line. Modules that import torch are imported when a command runs, so that help is quick.
"""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from typing_extensions import override

from yololoss._suite import VERSION
from yololoss.harness.cli.check import check
from yololoss.harness.cli.compare import diff, record
from yololoss.harness.cli.corpus import corpus
from yololoss.harness.cli.explain import explain
from yololoss.harness.cli.fuzz import fuzz
from yololoss.harness.cli.history import history
from yololoss.harness.cli.look import dialects, draw, laws
from yololoss.harness.cli.mend import mend
from yololoss.harness.cli.prove import prove
from yololoss.harness.cli.replay import replay
from yololoss.harness.errors import USAGE, UsageError, closest, printable


class Group(click.Group):
    """The commands. A `UsageError` or `OSError` ends any of them with one line and exit status 2."""

    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _refuse(str(error))
        except OSError as error:
            _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))

    @override
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands:
            _refuse(f"{args[0]}: no such command{closest(args[0], self.commands)} (known: {', '.join(self.commands)})")
        return super().resolve_command(ctx, args)


def _refuse(problem: str) -> NoReturn:
    click.echo(f"yololoss: {printable(problem)}", err=True)
    sys.exit(USAGE)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="yololoss")
def main() -> None:
    """Test a YOLOv5-style detection loss.

    LOSS is path/to/file.py:Name or package.module:Name, a class or a function. A loss file is code: naming it runs it.
    Case, vector and settings files are data: nothing in them is run.

    \b
    Examples:
      yololoss check utils/loss.py:ComputeLoss
      yololoss fuzz utils/loss.py:ComputeLoss --for 2h
      yololoss replay .yololoss/findings/assign.rows-476c810e.json
      yololoss laws gradients.finite

    Exit status: 0 success; 1 a law broke, or two losses differ; 2 the command could not run.
    """
    # Hypothesis keeps a cache, by default in a folder .hypothesis where the command runs, among the user's own files
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(".yololoss", "hypothesis").absolute()))


for command in (check, mend, fuzz, prove, replay, explain, corpus, record, diff, history, draw, laws, dialects):
    main.add_command(command)
