"""The docs' claims are true."""

import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import click
import pytest
import yaml

from tests import where_time_goes
from tests.all_laws import LAWS, ROOT
from tests.fork import EDITS, GIOU, copy_fork, said
from yololoss.harness.cli import main
from yololoss.harness.config import check_waivers, read_config
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import find_family

DOCS = ROOT / "docs"
USE = DOCS / "use"
# Guides: what they say of commands and options is tested.
PAGES = (
    ROOT / "README.md",
    *sorted({*USE.glob("*.md")} - {USE / "cli.md"}),  # which a command makes
    DOCS / "understand" / "laws.md",
    DOCS / "understand" / "proof.md",
    ROOT / "examples" / "fork" / "README.md",
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
BEGINNING = 120  # lines of README: what a reader with little time reads


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_readme_is_short():
    """A reader finds everything else by its links."""
    assert len(README.splitlines()) <= BEGINNING


def test_the_readme_counts_the_laws():
    """Of both families, with the laws that they share."""
    v5, tal = (len(find_laws(find_family(name))) for name in ("v5", "tal"))
    assert f"YOLOv5-style detection loss by {v5} laws" in README
    assert f"(docs/understand/task-aligned.md)\nby {tal}." in README


@pytest.mark.parametrize("code", blocks("python", (USE / "drop-in.md").read_text(encoding="utf-8")))
def test_the_drop_in_examples_run_and_print_what_they_say(code):
    """docs/use/drop-in.md, and the sentences of the explanation that it quotes."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    quoted = re.search(r"^# (target 0.+?)(?: \.\.\. (row 0: .+))?$", code, re.MULTILINE)
    assert quoted
    assert quoted[1] == lines[0]
    assert quoted[2] is None or quoted[2] in lines


# What docs/use/adapters.md adapts: the bundled loss in the form of a detection head.
HEAD = """
from yololoss import ComputeLoss, Hyperparameters


class DetectionHead:
    def __init__(self, anchors, strides, classes, hyp):
        self.hyp = Hyperparameters(**hyp)
        self.inner = ComputeLoss.from_parts(anchors, strides, classes, self.hyp, device=anchors.device)

    def loss_by_feat(self, p, targets):
        gains = (self.hyp.box, self.hyp.obj, self.hyp.cls)
        terms = (gain * term * len(p[0]) for gain, term in zip(gains, self.inner.terms(p, targets)))
        return dict(zip(("loss_box", "loss_obj", "loss_cls"), terms))
"""


@pytest.mark.slow
def test_the_adapter_of_the_guide_adapts(tmp_path):
    """docs/use/adapters.md: laws of every term judge the head that it is for, and hold."""
    (code,) = blocks("python", (USE / "adapters.md").read_text(encoding="utf-8"))
    (tmp_path / "adapter.py").write_text(code, encoding="utf-8")
    (tmp_path / "head.py").write_text(HEAD, encoding="utf-8")
    laws = "--laws '*.item' --laws totals.sum --laws gradients.value"
    status, output = said(f"yololoss check adapter.py:Adapter {laws} --cases 10 --workers 1", tmp_path)
    assert (status, "5 laws hold" in output) == (0, True), output


@pytest.mark.slow
def test_a_law_of_ones_own_project_runs(tmp_path):
    """docs/develop/add-a-law.md: the last example, by pytest with the plugin's options."""
    *_, code = blocks("python", (DOCS / "develop" / "add-a-law.md").read_text(encoding="utf-8"))
    (tmp_path / "test_my_laws.py").write_text(code, encoding="utf-8")
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider -p yololoss.harness.plugin test_my_laws.py"
    status, output = said(f"{command} --loss {ROOT}/tests/subjects/plain.py:PlainLoss", tmp_path)
    assert (status, "laws: 1 of 1 held, 100 cases" in output) == (0, True), output


def test_two_commands_do_all_the_set_up():
    """One installs and verifies the bundled loss, one installs and tests; .ci/run runs both as they stand."""
    commands = blocks("sh")
    assert len(commands) == 2
    assert all(c.startswith("python -m pip install -c constraints.txt ") for c in commands)
    assert "readme_command 1" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "readme_command 2" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_pictures_are_those_that_the_command_makes(tmp_path):
    """docs/make_pictures.py makes the files in docs/use/, byte for byte."""
    sys.path.insert(0, str(DOCS))
    try:
        from make_pictures import make  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    for path in make(tmp_path):
        assert path.read_bytes() == (USE / path.name).read_bytes()


def test_the_readmes_settings_are_read(tmp_path):
    """The [tool.yololoss] example is valid, and its waiver names a law."""
    (settings,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    config = read_config(tmp_path)
    check_waivers(config, LAWS, date(2027, 1, 1))
    assert [waiver.law for waiver in config.waivers] == ["assign.row-order"]


def test_every_option_in_readme_and_guides_is_one():
    """Each --option that they name is one of a command, and README's pytest takes it as well."""
    known = {option for command in main.commands.values() for each in command.params for option in each.opts}
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])(--[a-z]+(?:-[a-z]+)*)", page.read_text(encoding="utf-8")))
        assert named <= known, page


def test_links_lead_somewhere():
    """Every relative link of README and docs is a file; the docs site checks those between its pages as well."""
    for page in {*PAGES, *DOCS.glob("**/*.md"), ROOT / "CONTRIBUTING.md"}:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page, target)


# What makes a guide's command quick, where its page shows the whole.
QUICK = {
    "check": "--workers 1 --cases 60 --laws assign.neighbours --laws boxes.item --laws baseline",
    "record": "--laws boxes.item",
    "diff": "--cases 20",
}
# Exit statuses other than 0, of the fork after the edit that the guides are about.
STATUS = {"first-ten-minutes.md": 1, "changed-on-purpose.md": 0}
DIFFER = "yololoss diff"  # GIoU is not CIoU


def guided(page: Path) -> list[str]:
    """The commands of a page's consoles, without pip's."""
    consoles = re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line[2:] for text in consoles for line in text.splitlines() if line.startswith("$ yololoss ")]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "change"), [("first-ten-minutes.md", EDITS[0]), ("changed-on-purpose.md", GIOU)])
def test_the_guides_commands_do_what_they_say(tmp_path, page, change):
    """In a copy of the example fork, with the edit that the guide is about; what is found has the name it shows."""
    fork = copy_fork(tmp_path, change)
    commands = guided(USE / page)
    assert len(commands) >= 5
    for command in commands:
        verb = command.split()[1]
        status, output = said(f"{command} {QUICK.get(verb, '')}", fork)
        expected = 1 if command.startswith(DIFFER) else STATUS[page] if verb in ("check", "replay") else 0
        assert status == expected, (command, output)


def test_the_table_of_where_time_goes_has_every_part(capsys):
    """The command of docs/measured/performance.md, on few cases: each part takes some time; together they are all."""
    where_time_goes.main(20)
    rows = re.findall(r"^\| (.+?) \| (\d+)% \|", capsys.readouterr().out, re.MULTILINE)
    shares = {part: int(share) for part, share in rows}
    page = (DOCS / "measured" / "performance.md").read_text("utf-8")
    named = re.findall(r"^\| (.+?)(?:: .+)? \| \d+% \|", page, re.MULTILINE)
    assert set(shares) == set(named)
    assert shares["subject"] > 10
    assert 97 <= sum(shares.values()) - shares["all but the subject"] <= 103


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "loss", "cases", "told"),
    [
        ("downstream", "yololoss:ComputeLoss", 6, "no-size: totals.finite holds\n"),
        ("downstream-tal", "yololoss:TaskAlignedLoss", 5, "default-dtype: state.default-dtype holds\n"),
    ],
)
def test_the_bundled_loss_passes_what_upstream_does_not(page, loss, cases, told):
    """The cases of a page of docs/use; the script that finds them finds none on a loss without the faults."""
    files = " ".join(str(path) for path in sorted((USE / page).glob("*.json")))
    status, output = said(f"yololoss replay {files} --loss {loss}", ROOT)
    assert (status, output.count(": fixed")) == (0, cases), output
    status, output = said(f"{sys.executable} scripts/downstream_cases.py {loss} .", ROOT)
    assert (status, output) == (1, told)


def test_the_commands_of_readme_and_templates_are_understood():
    """Those that want a GPU, or a file of yours, are parsed: command, options and arguments are known."""
    examples = ROOT / "examples"
    workflows = [*(examples / "ci").iterdir(), *(examples / "fork" / ".github" / "workflows").iterdir()]
    for path in workflows:
        yaml.safe_load(path.read_text(encoding="utf-8"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in (*PAGES, *workflows))
    commands = re.findall(r"(?:\$ |run: |entry: |/bin/)(yololoss\"? [^\n`'#]+)", text)
    assert len(commands) >= 10
    for command in commands:
        _, verb, *arguments = shlex.split(command.replace('yololoss"', "yololoss"))
        top = click.Context(main, **main.context_settings)  # a command keeps the options that it first sees
        main.commands[verb].make_context(verb, arguments, parent=top)
