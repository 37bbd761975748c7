"""A verdict as a JUnit XML file, for CI systems: one test case for each law and device."""

from pathlib import Path
from xml.etree import ElementTree as Xml

from yololoss.harness.errors import printable
from yololoss.harness.findings.rows import reason
from yololoss.harness.findings.verdict import Verdict

SKIPPED = ("waived", "explained", "not applicable")


def write_junit(verdict: Verdict, path: Path) -> None:
    """Write the file. A law that shows a fault is a failure, with its finding; one that it explains is skipped."""
    found: dict[str, list[str]] = {}
    for finding in verdict.faults:
        found.setdefault(finding.law, []).append(printable(str(finding), keep="\n"))
    words = [row["word"] for row in verdict.laws]
    failed = sum(word in ("BROKE", "failed") for word in words)
    skipped = sum(word in SKIPPED for word in words)
    counts = {"tests": len(words), "failures": failed, "skipped": skipped, "errors": 0}
    numbers = {name: str(count) for name, count in counts.items()}
    suites = Xml.Element("testsuites")
    suite = Xml.SubElement(suites, "testsuite", {"name": "yololoss", "time": f"{verdict.seconds:.3f}", **numbers})
    for row in verdict.laws:
        id = str(row["id"])
        case = Xml.SubElement(suite, "testcase", {"classname": id.partition(".")[0], "name": id, "time": "0"})
        texts = found.get(id.partition(" ")[0], []) if row["word"] == "BROKE" else []
        if row["word"] in ("BROKE", "failed"):
            text = "\n\n".join(texts or (printable(each, keep="\n") for each in verdict.failures))
            Xml.SubElement(case, "failure", {"message": text.partition("\n")[0]}).text = text
        elif row["word"] in SKIPPED:
            Xml.SubElement(case, "skipped", {"message": reason(row)})
    path.parent.mkdir(parents=True, exist_ok=True)
    Xml.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)
