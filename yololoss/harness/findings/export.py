"""Writes a finding as a test file that needs no part of this package. The case's family words it."""

from pathlib import Path

from yololoss.harness.cases.files import write_whole
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.findings.finding import Finding
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import LossUnderTest


def export(finding: Finding, under_test: LossUnderTest) -> Path:
    """Write the test beside the saved case. Raises UsageError if the law or the case does not allow one."""
    saved = Path(finding.path)
    (vector,) = read_vectors(saved).vectors
    law = find_laws(under_test.family)[finding.law]
    text = under_test.family.exported(law, vector.case, finding.title, under_test)
    path = saved.with_name(f"test_{saved.stem.replace('.', '_').replace('-', '_')}.py")
    write_whole(path, text)
    return path
