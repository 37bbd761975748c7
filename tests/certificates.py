"""What is proven of the bundled losses: ``python -m tests.certificates > docs/measured/certificates.md``."""

from collections.abc import Iterator
from pathlib import Path

from tests.all_laws import ROOT
from yololoss.harness.cases.files import read_file
from yololoss.harness.findings.about import sources
from yololoss.harness.prove.centres import centre
from yololoss.harness.prove.certificate import Certificate


def enumerated(certificate: Certificate) -> list[tuple[str, str]]:
    """Grid or laws, and what was tried there, of each row of the table."""
    claim = certificate.claim
    if claim.bits is None:
        return [(f"{len(claim.laws)} laws", f"{kind.count:,} {kind.what}") for kind in claim.enumerated]
    low, high = (f"{centre(bits):.7g}" for bits in (claim.bits[0], claim.bits[1] - 1))
    tried = f"{claim.enumerated[0].count:,} float32 centres from {low} to {high}"
    return [(f"{columns} columns, {rows} rows", tried) for rows, columns in claim.grids]


def page(folder: Path) -> Iterator[str]:
    """The page, of the certificates in a folder."""
    yield "# Certificates\n"
    yield "What `yololoss prove` has proven of the bundled losses; [the guide](../understand/proof.md) says what that"
    yield "means. Made from `docs/measured/certificates/` by"
    yield "`python -m tests.certificates > docs/measured/certificates.md`, and compared by a test.\n"
    found = [(path.stem, read_file(path, Certificate)) for path in sorted(folder.glob("*.json"))]
    if not found:
        yield "None yet."
        return
    yield "| loss | part | where | what was tried | verdict | torch | device | date | certificate |"
    yield "|---|---|---|---|---|---|---|---|---|"

    def place(each: tuple[str, Certificate]) -> tuple[str, str, list[int]]:
        claim = each[1].claim
        return claim.loss, claim.part, [-columns for _, columns in claim.grids]

    for name, certificate in sorted(found, key=place):
        claim = certificate.claim
        made = claim.versions["torch"], f"{claim.device}, {claim.machine}", certificate.date, f"`{name}`"
        for where, tried in enumerated(certificate):
            what = claim.loss.rpartition(":")[2], claim.part, where, tried, certificate.verdict
            yield f"| {' | '.join((*what, *made))} |"
    seconds = sum(certificate.seconds for _, certificate in found)
    yield f"\nTogether they took {seconds:,.0f} s."
    now = {name: digest for _, each in found for name, digest in sources(each.claim.loss).items()}
    changed = {name for _, each in found for name, digest in each.claim.sources.items() if now.get(name) != digest}
    if changed:
        yield f"\n**Proven of the loss as it was**: since then {', '.join(sorted(changed))} changed."
    else:
        yield "\nThe loss is as it was then, to the byte."


if __name__ == "__main__":
    print("\n".join(page(ROOT / "docs" / "measured" / "certificates")))
