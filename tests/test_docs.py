"""What the docs claim is what happens."""

import re
import subprocess
import sys
from datetime import date

from tests.all_laws import LAWS, ROOT
from yololoss.harness.config import check_waivers, read_config

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_readmes_python_runs_and_prints_what_it_says():
    """The drop-in example, and the two sentences of the explanation that it quotes."""
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    quoted = re.search(r"# (target 0 .+) \.\.\. (row 0: .+)$", code, re.MULTILINE)
    assert quoted
    assert quoted[1] == lines[0]
    assert quoted[2] in lines


def test_two_commands_do_all_the_set_up():
    """One installs and verifies the bundled loss, one installs and tests; .ci/run runs both as they stand."""
    commands = blocks("sh")
    assert len(commands) == 2
    assert all(c.startswith("python -m pip install -c constraints.txt ") for c in commands)
    assert "readme_command 1" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "readme_command 2" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_pictures_are_those_that_the_command_makes(tmp_path):
    """docs/make_pictures.py makes the files in docs/, byte for byte."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from make_pictures import make  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    for path in make(tmp_path):
        assert path.read_bytes() == (ROOT / "docs" / path.name).read_bytes()


def test_the_readmes_settings_are_read(tmp_path):
    """The [tool.yololoss] example is valid, and its waiver names a law."""
    (settings,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    config = read_config(tmp_path)
    check_waivers(config, LAWS, date(2027, 1, 1))
    assert config.waiver("assign.row-order")


def test_every_option_in_the_readme_is_one(pytestconfig):
    """Each --option of ours that README names exists."""
    named = set(re.findall(r"(?<![\w-])--([a-z]+)", README))
    assert {"loss", "device", "family", "profile", "cases", "replay"} <= named
    assert not [name for name in named if not hasattr(pytestconfig.option, name)]


def test_links_lead_somewhere():
    """Every relative link of README and docs is a file."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page, target)
