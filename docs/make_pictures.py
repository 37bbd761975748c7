"""Make the pictures of the docs: ``python docs/make_pictures.py``. The report's need a browser, Chromium or Chrome."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.findings.draw import draw

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "use"
FORK = ROOT / "examples" / "fork"
BROWSERS = ("chromium", "google-chrome", "chromium-browser", "chrome")
# An edit of the example fork's loss that the report is shown for: the neighbours on a grid line.
BEFORE, AFTER = "far = (inv % 1 < 0.5) & (inv > 1)", "far = (gxy % 1 > 0.5) & (inv > 1)"
# name, width, colour scheme
SHOTS = (("report-desktop", 1280, "light"), ("report-dark", 1280, "dark"), ("report-phone", 390, "light"))


def find_browser() -> str | None:
    """A browser that is installed here."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def launch(playwright: object) -> Browser:
    """Start it."""
    return playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])


def make(folder: Path) -> list[Path]:
    """Draw every picture of a case that the docs show into ``folder``."""
    (vector,) = read_vectors(ROOT / "golden" / "v5" / "article.json").vectors
    path = folder / "guided-example.svg"
    draw(vector.case, path, "The guided example: targets (dotted: no matching anchor) and the cells assigned to them")
    return [path]


def make_report(folder: Path) -> Path:
    """Check the example fork after a careless edit; its report and findings lie in ``folder``."""
    fork = folder / "fork"
    shutil.copytree(FORK, fork)
    loss = fork / "utils" / "loss.py"
    loss.write_text(loss.read_text(encoding="utf-8").replace(BEFORE, AFTER), encoding="utf-8")
    command = [sys.executable, "-m", "yololoss", "check", "--report", "report.html"]
    subprocess.run(command, cwd=fork, check=False)
    return fork / "report.html"


def shoot(report: Path, folder: Path) -> list[Path]:
    """Photograph the report in a browser, and keep the picture of its first finding."""
    made = []
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name, width, scheme in SHOTS:
            page = browser.new_page(viewport={"width": width, "height": 1100}, color_scheme=scheme)
            page.goto(report.as_uri())
            page.screenshot(path=folder / f"{name}.png")
            made.append(folder / f"{name}.png")
        browser.close()
    return made


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        report = make_report(Path(scratch))
        pictures = sorted((report.parent / ".yololoss" / "findings").glob("assign.*.png"))[:1]
        kept = [Path(shutil.copy(path, PICTURES / "finding.png")) for path in pictures]
        for made in (*make(PICTURES), *shoot(report, PICTURES), *kept):
            print(made)
