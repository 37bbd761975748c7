"""What a worker writes: a failing case as it was found, before it is minimised."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from yololoss._suite import VERSION
from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import make_vector, read_vectors, write_vectors
from yololoss.harness.engine.judge import Told
from yololoss.harness.engine.plan import Origin
from yololoss.harness.errors import BadFile, short

TOLD = TypeAdapter(Told)
NUMBER = re.compile(r"0x[0-9a-f]+|(?<![A-Za-z_])[-+]?\d[\d.]*(?:e[-+]?\d+)?", re.IGNORECASE)
LIST = re.compile(r"[\[(](?:#|nan|inf|-inf|[\s,.])*[\])](?:,\s*|\s*\.\.\.)*")


class Raw(NamedTuple):
    """A case that broke a law, or that ended a process."""

    told: Told
    case: Case
    origin: Origin | None  # what the case was made from, if this session made it
    number: int = 0  # of the case, in the order of the session

    @property
    def kind(self) -> str:
        """The fingerprint, which findings of one cause share: 16 hexadecimal digits."""
        return fingerprint(self.told)


def fingerprint(broken: Told) -> str:
    """Law, what explains it, place and kind of trouble, without numbers, as 16 hexadecimal digits."""
    told = [broken.kind] if broken.kind else [plain(broken.what), plain(broken.observed)[:80]]
    parts = [broken.law, broken.explained, *told]
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def plain(text: str) -> str:
    """The text with numbers replaced by #, and each list of numbers by []."""
    return re.sub(r"(?:\[\]\s*)+", "[] ", LIST.sub("[] ", NUMBER.sub("#", text)))


def raw_path(folder: Path, kind: str) -> Path:
    """The file of a finding until it is minimised."""
    return folder / "raw" / f"{kind}.json"


def write_raw(folder: Path, loss: str, raw: Raw) -> None:
    """Write a finding as a file of vectors. Raises OSError."""
    source = {
        "project": f"yololoss {VERSION}",
        "loss": loss,
        "told": json.dumps(raw.told),
        "made": made(raw.origin),
        "number": str(raw.number),
    }
    vector = make_vector(raw.case, id=raw.kind, flags=("FINDING", "RAW"), law=raw.told.law)
    write_vectors(raw_path(folder, raw.kind), source, [vector])


def read_raw(path: Path) -> Raw:
    """Read a finding. Raises BadFile."""
    file = read_vectors(path)
    try:
        told, made_from = TOLD.validate_json(file.source["told"]), origin(file.source["made"])
        return Raw(told, file.vectors[0].case, made_from, int(file.source["number"]))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise BadFile(f"{path}: not in a worker's format: {short(str(error))}") from error


def made(source: Origin | None) -> str:
    """What a case was made from, as text."""
    return "" if source is None else f"{source.domain} {source.data.hex()}"


def origin(text: str) -> Origin | None:
    """What a case was made from, read from text."""
    if not text:
        return None
    domain, data = text.split()
    return Origin(int(domain), bytes.fromhex(data))


def in_flight(case: Case, source: Origin | None) -> str:
    """A case as text for the journal."""
    return f"{made(source)}\n{case.key}"


def from_flight(text: str, kind: type[Case]) -> tuple[Case, Origin | None]:
    """A case and its origin, read from the journal's text."""
    first, _, case = text.partition("\n")
    return kind.model_validate_json(case), origin(first)
