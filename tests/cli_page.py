"""The page of the command line: ``python -m tests.cli_page > docs/use/cli.md``."""

from collections.abc import Iterator

import click

from yololoss.harness.cli import main

WIDTH = 100


def help_of(name: str) -> str:
    """What ``--help`` prints."""
    top = click.Context(main, info_name="yololoss", terminal_width=WIDTH, **main.context_settings)
    if not name:
        return main.get_help(top)
    return main.commands[name].get_help(click.Context(main.commands[name], parent=top, info_name=name))


def page() -> Iterator[str]:
    """The Markdown page."""
    yield "# The command line\n"
    yield "What each command's `--help` prints; `python -m yololoss` is the same as `yololoss`. Made by"
    yield "`python -m tests.cli_page > docs/use/cli.md`, and compared by a test."
    for name in ("", *main.commands):
        yield f"\n## {f'yololoss {name}'.strip()}\n\n```text\n{help_of(name)}\n```"


if __name__ == "__main__":
    print("\n".join(page()))
