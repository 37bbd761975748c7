"""A worker's journal: what it is doing and what it did, in a file that outlives it.

The file is mapped into memory, so a write takes microseconds. What was written remains if the process is killed at any
moment (but perhaps not after a power cut: nothing is forced to the disk). It has counters, and two slots for the case
in flight, written in turn. An interrupted write damages only one slot, and its checksum shows it.
"""

import mmap
import struct
import time
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.errors import BadFile

MAGIC = b"yololoss journal 2\n".ljust(24, b"\0")
HEAD = struct.Struct("<24sQQ")  # magic, number of counters, bytes of a slot
SLOT = struct.Struct("<QdII")  # sequence number, time of begin, bytes of the text, checksum
# Bytes of a slot that every made case fits in. The file has its full size from the start: a mapped file that cannot
# grow kills the writing process.
ROOM = 2**18


class Entry(NamedTuple):
    """The last thing that a worker wrote."""

    sequence: int
    began: float  # time.monotonic
    text: str  # the case in flight; empty if there is none


class Journal:
    """One worker's journal, to write or to read."""

    def __init__(self, path: Path, counters: int = 0, largest: int = 0) -> None:
        """Open the journal. Raises BadFile if the file is not a journal.

        With ``counters``, make a new one, for cases whose text has up to ``largest`` bytes, or more.
        """
        self.path = path
        if counters:
            with path.open("wb") as file:
                room = max(ROOM, largest + SLOT.size)
                file.write(HEAD.pack(MAGIC, counters, room))
                file.write(bytes(8 * counters + 2 * room))
        if path.exists() and not path.is_file():
            raise BadFile(f"{path}: not a worker's journal")
        with path.open("r+b") as file:
            head = file.read(HEAD.size)
            size = file.seek(0, 2)
            if len(head) < HEAD.size or not head.startswith(MAGIC):
                raise BadFile(f"{path}: not a worker's journal")
            (_, counters, self._room) = HEAD.unpack(head)
            self._slots = HEAD.size + 8 * counters
            if size != self._slots + 2 * self._room or self._room < ROOM:
                raise BadFile(f"{path}: {size} bytes, expected {self._slots + 2 * max(ROOM, self._room)}")
            self._map = mmap.mmap(file.fileno(), 0)
        self.counters: NDArray[np.uint64] = np.frombuffer(self._map, np.uint64, counters, HEAD.size)
        self._sequence = self.read().sequence

    def write(self, text: str) -> None:
        """Write the case in flight; empty text means none."""
        data = text.encode()
        if len(data) > self._room - SLOT.size:
            raise ValueError(f"a case of {len(data)} bytes, expected {self._room - SLOT.size} at most")
        self._sequence += 1
        at = self._slots + self._sequence % 2 * self._room
        began = time.monotonic()
        checksum = crc32(data, crc32(struct.pack("<Qd", self._sequence, began)))
        self._map[at + SLOT.size : at + SLOT.size + len(data)] = data
        self._map[at : at + SLOT.size] = SLOT.pack(self._sequence, began, len(data), checksum)

    def read(self) -> Entry:
        """The last entry that was written completely."""
        slots = [self._slot(self._slots + n * self._room) for n in range(2)]
        return max((entry for entry in slots if entry is not None), default=Entry(0, 0.0, ""))

    def _slot(self, at: int) -> Entry | None:
        sequence, began, length, checksum = SLOT.unpack(self._map[at : at + SLOT.size])
        if sequence == 0 or length > self._room - SLOT.size:
            return None
        data = self._map[at + SLOT.size : at + SLOT.size + length]
        if crc32(data, crc32(struct.pack("<Qd", sequence, began))) != checksum:
            return None
        return Entry(sequence, began, data.decode(errors="replace"))

    def close(self) -> None:
        """Close the file."""
        del self.counters
        self._map.close()
