"""What a worker leaves behind: a case that broke something, as it was found, before it is made small."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from yololoss import __version__
from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import make_vector, read_vectors, write_vectors
from yololoss.harness.engine.judge import Told
from yololoss.harness.engine.plan import Origin
from yololoss.harness.errors import BadFile

NUMBER = re.compile(r"0x[0-9a-f]+|(?<![A-Za-z_])[-+]?\d[\d.]*(?:e[-+]?\d+)?", re.IGNORECASE)
LIST = re.compile(r"[\[(](?:#|nan|inf|-inf|[\s,.])*[\])](?:,\s*|\s*\.\.\.)*")


class _Raw(NamedTuple):
    told: Told
    case: Case
    origin: Origin | None  # what the case was made of, if it was made


class Raw(_Raw):
    """A case that broke a law, or that a process died of."""

    @property
    def kind(self) -> str:
        """The fingerprint: what findings of one cause have in common, 16 hexadecimal digits."""
        return fingerprint(self.told)


def fingerprint(broken: Told) -> str:
    """Law, place and kind of trouble, without numbers, as 16 hexadecimal digits."""
    parts = [broken.law, plain(broken.what), plain(broken.observed)[:80]]
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def plain(text: str) -> str:
    """The text without its numbers, and with every list of some as one."""
    return re.sub(r"(?:\[\]\s*)+", "[] ", LIST.sub("[] ", NUMBER.sub("#", text)))


def raw_path(folder: Path, kind: str) -> Path:
    """Where a finding lies until it was made small."""
    return folder / "raw" / f"{kind}.json"


def write_raw(folder: Path, loss: str, raw: Raw) -> None:
    """Write it down, as a file of vectors. Raises OSError."""
    source = {
        "project": f"yololoss {__version__}",
        "loss": loss,
        "told": json.dumps(raw.told),
        "made": made(raw.origin),
    }
    vector = make_vector(raw.case, id=raw.kind, flags=("FINDING", "RAW"), law=raw.told.law)
    write_vectors(raw_path(folder, raw.kind), source, [vector])


def read_raw(path: Path) -> Raw:
    """Read it. Raises BadFile."""
    file = read_vectors(path)
    try:
        return Raw(Told(*json.loads(file.source["told"])), file.vectors[0].case, origin(file.source["made"]))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise BadFile(f"{path}: not as a worker writes it: {error}") from error


def made(source: Origin | None) -> str:
    """What a case was made of, as text."""
    return "" if source is None else f"{source.domain} {source.data.hex()}"


def origin(text: str) -> Origin | None:
    """The same, read."""
    if not text:
        return None
    domain, data = text.split()
    return Origin(int(domain), bytes.fromhex(data))


def in_flight(case: Case, source: Origin | None) -> str:
    """What a journal has of a case."""
    return f"{made(source)}\n{case.key}"


def from_flight(text: str, kind: type[Case]) -> tuple[Case, Origin | None]:
    """The same, read."""
    first, _, case = text.partition("\n")
    return kind.model_validate_json(case), origin(first)
