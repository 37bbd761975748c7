"""A finding: a law broken by a case, saved so that it can be replayed and promoted to a vector."""

from hashlib import sha256
from pathlib import Path

from yololoss import __version__
from yololoss.harness.law import LawBroken
from yololoss.harness.vectors import Vector, write_vectors


def save(broken: LawBroken, folder: Path, loss: str | None) -> Path:
    """Write the case under a name made of its law and content; the same finding has the same file."""
    text = broken.case.model_dump_json()
    path = folder / f"{broken.law.id}-{sha256(text.encode()).hexdigest()[:8]}.json"
    comment = f"{broken.what}: expected {broken.expected}, observed {broken.observed}"
    vector = Vector(id=path.stem, flags=("FINDING",), comment=comment, law=broken.law.id, case=broken.case)
    write_vectors(path, {"project": f"yololoss {__version__}", "loss": loss or "bundled"}, [vector])
    return path
