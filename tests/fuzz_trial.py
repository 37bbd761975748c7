"""A long session, timed, and the memory of its workers: ``python -m tests.fuzz_trial [SECONDS] [LOSS] [FAMILY]``.

Prints a line a minute for each worker, and at the end the time that the session took for what it was given.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

EVERY = 60.0  # seconds between two looks at the memory


def workers(session: psutil.Process) -> dict[int, int]:
    """The memory of the session's processes, MiB."""
    found = {}
    for child in session.children(recursive=True):
        try:
            found[child.pid] = child.memory_info().rss >> 20
        except psutil.Error:
            continue
    return found


def main(seconds: float = 600, loss: str = "yololoss.loss:ComputeLoss", family: str = "yololoss") -> int:
    """Run a session and watch it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "session"
        command = [sys.executable, "-m", "yololoss", "fuzz", loss, "--family", family, "--for", f"{seconds:g}s"]
        start = time.monotonic()
        going = subprocess.Popen([*command, "--out", str(out), "--workers", "2", "--seed", "1"])
        while going.poll() is None:
            time.sleep(min(EVERY, max(seconds / 10, 1)))
            if going.poll() is None:
                print(
                    f"{time.monotonic() - start:.0f} s: MiB by process {workers(psutil.Process(going.pid))}", flush=True
                )
        print(f"exit status {going.returncode}, {time.monotonic() - start:.1f} s for {seconds:g} s, start-up included")
    return going.returncode


if __name__ == "__main__":
    sys.exit(main(*(float(x) if x.isdigit() else x for x in sys.argv[1:])))
