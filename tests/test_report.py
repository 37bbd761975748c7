"""The report in a real browser: at the width of a desktop and of a phone, light, dark and printed."""

import sys
from collections.abc import Iterator

import pytest

from tests.all_laws import ROOT
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.test_cli import run
from yololoss.harness.findings.report import headline
from yololoss.harness.findings.verdict import Verdict

sys.path.insert(0, str(ROOT / "docs"))
from make_pictures import find_browser, launch

sync_api = pytest.importorskip("playwright.sync_api", reason="in the extra dev")
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with a broken law, and one without."""
    folder = tmp_path_factory.mktemp("report")
    spec = plant(BY_NAME["neighbour_sign"], folder)
    laws = ("--laws", "assign", "--laws", "totals.sum", "--laws", "devices", "--cases", 30, "--workers", 1)
    assert run("check", spec, *laws, "--report", "broke.html", "--export", "pytest", cwd=folder)[0] == 1
    assert run("check", *laws, "--report", "held.html", cwd=folder)[0] == 0
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A browser that is installed here."""
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome is installed here")
    with sync_api.sync_playwright() as playwright:
        found = launch(playwright)
        yield found
        found.close()


def test_a_loss_that_cannot_be_judged_has_no_other_verdict():
    """A run that failed is reported before its findings."""
    assert headline(Verdict(status=2, problem="no such file")) == "The loss could not be judged"


def opened(browser, report, name, width=1280, **options):
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: wrong.append(request.url[:5]))
    page.goto((report / name).as_uri())
    assert set(wrong) <= {"file:", "data:"}, "it asks for nothing, and has no errors"
    return page


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["broke.html", "held.html"])
def test_the_page_fits_its_width(browser, report, name, width):
    """Nothing makes the page wider than the window: wide tables scroll by themselves."""
    page = opened(browser, report, name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_page_says_what_was_found(browser, report):
    """Verdict, one card for a fault with a picture that loads and the other laws that broke, laws, versions."""
    page = opened(browser, report, "broke.html")
    assert page.locator("h1").inner_text() == "1 fault (3 laws broke)"
    assert page.locator("article").count() == 1
    card = page.locator("article").inner_text()
    assert all(part in card for part in ("assign.neighbours", "yololoss replay", "2 other laws broke"))
    assert "assign.rows: " not in card  # until it is unfolded
    page.locator("summary").click()
    assert "assign.rows: " in page.locator("article").inner_text()
    assert page.locator("img").evaluate("i => i.naturalWidth") > 300
    rows = page.locator(".laws tbody tr")
    assert sum(row.is_visible() for row in rows.all()) == rows.count()
    page.locator("#only").select_option("BROKE")
    assert [row.locator("code").first.inner_text() for row in rows.all() if row.is_visible()] == ["assign.neighbours"]
    page.locator("#only").select_option("")
    page.locator("#with").fill("SORTED BY")
    assert [row.locator("code").first.inner_text() for row in rows.all() if row.is_visible()] == ["assign.row-order"]
    page.locator("#with").fill("")
    text = page.locator("body").inner_text()
    assert all(part in text for part in ("SHA-256", "torch", "hypothesis", "needs --device mirror"))
    page.close()
    page = opened(browser, report, "held.html")
    assert "laws hold" in page.locator("h1").inner_text()
    assert page.locator("article").count() == 0
    page.close()


def luminance(page, selector: str, what: str) -> float:
    colour = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{what}")
    r, g, b = (int(v) / 255 for v in colour[4:-1].split(",")[:3])
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (r, g, b)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser, report, scheme):
    """At least 4.5 to 1 against the paper, as WCAG asks of text."""
    page = opened(browser, report, "broke.html", color_scheme=scheme)
    paper = luminance(page, "body", "backgroundColor")
    assert (paper > 0.5) is (scheme == "light")
    for selector in ("body", ".soft", "td.held", "td.BROKE", "td.not", "article h3 span", "dt"):
        ink = luminance(page, selector, "color")
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector
    page.close()


def test_the_page_prints(browser, report, tmp_path):
    """Black on white, whatever the screen, on more than one sheet."""
    page = opened(browser, report, "broke.html", color_scheme="dark")
    page.emulate_media(media="print")
    assert luminance(page, "body", "backgroundColor") == 1.0
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") > 1
    page.close()
