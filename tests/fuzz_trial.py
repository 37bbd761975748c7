"""Long trials of sessions: ``python -m tests.fuzz_trial time [SECONDS]``, ``kills [NUMBER]``, ``rare LOSS [SECONDS]``.

time: a session on the bundled loss, the memory of its processes once a minute, and the time that it took. kills: as
many times, at random moments, kill -9 of a worker, of the clerk, of the server of processes or of the session, which is
then resumed; whatever was known must stay known, and every file must be readable. rare: what a session finds on a loss.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from yololoss.harness.fuzz.journal import Journal
from yololoss.harness.vectors import read_vectors

EVERY = 60.0  # seconds between two looks at the memory
RUNNING = 4  # processes of a session: the server, its tracker, two workers
RAISES = "from tests.subjects.rare import Raises\n\n\nclass Loss(Raises):\n    one_in = 100\n"


def started(out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "yololoss", "fuzz", "--out", str(out), "--workers", "2", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def processes(session: psutil.Process) -> dict[int, int]:
    """The session's processes, and the memory of each, MiB."""
    found = {}
    for child in session.children(recursive=True):
        try:
            found[child.pid] = child.memory_info().rss >> 20
        except psutil.Error:
            continue
    return found


def timed(out: Path, seconds: float = 600) -> int:
    """The time of a session, and its memory."""
    start = time.monotonic()
    going = started(out, "--for", f"{seconds:g}s", "--seed", "1")
    while going.poll() is None:
        try:
            going.wait(EVERY)
        except subprocess.TimeoutExpired:
            used = time.monotonic() - start
            print(f"{used:.0f} s: MiB by process {processes(psutil.Process(going.pid))}", flush=True)
    told = json.loads((out / "summary.json").read_bytes())
    print(f"exit status {going.returncode}; {told['cases']} cases, {told['judgements']} judgements")
    print(f"{told['seconds']:.1f} s for {seconds:g}, {time.monotonic() - start:.1f} s with start and end")
    return going.returncode


def readable(out: Path) -> set[str]:
    """Read every file, and tell what is known."""
    for path in out.glob("journal/*.journal"):
        try:
            Journal(path).close()
        except FileNotFoundError:  # a session took it in meanwhile
            continue
    for path in (*out.glob("findings/*.json"), *out.glob("raw/*.json")):
        if path.exists():
            read_vectors(path)
    json.loads((out / "session.json").read_bytes())
    return {path.name for path in out.glob("known/*.json")} | {path.name for path in out.glob("raw/*.json")}


def kills(out: Path, number: float = 20) -> int:
    """Kill what there is to kill."""
    (out.parent / "rarely.py").write_text(RAISES, encoding="utf-8")
    chance = random.Random(1)
    going = started(out, f"{out.parent}/rarely.py:Loss", "--for", "1h", "--seed", "1")
    known: set[str] = set()
    for n in range(int(number)):
        while len(processes(psutil.Process(going.pid))) < RUNNING:
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 4))
        found = {"session": going.pid, **{f"process {pid}": pid for pid in processes(psutil.Process(going.pid))}}
        name = "session" if n % 3 == 0 else chance.choice([*found])
        before = readable(out)
        psutil.Process(found[name]).kill()
        if name == "session":
            going.wait()
            before |= readable(out)
            going = started(out, "--resume")
        lost = known - readable(out)
        print(f"{n + 1}: killed {name}; {len(before)} findings known, lost {sorted(lost)}", flush=True)
        if lost or going.poll() is not None:
            return 1
        known |= before
    going.kill()
    going.wait()
    cases = json.loads((out / "session.json").read_bytes())["counts"].get("cases", 0)
    status = started(out, "--resume", "--for", "1s").wait()
    told = json.loads((out / "summary.json").read_bytes())
    print(f"resumed to its end: exit status {status}, {told['cases']} cases of {cases} before, {told['seen']}")
    return 0 if status == 1 and told["cases"] >= cases and known <= readable(out) else 1


def rare(out: Path, loss: str, seconds: float = 600) -> int:
    """What a session finds."""
    status = started(out, loss, "--for", f"{seconds:g}s", "--seed", "1").wait()
    told = json.loads((out / "summary.json").read_bytes())
    print(f"{loss}: exit status {status}; {told['cases']} cases, {told['restarts']} restarts, seen {told['seen']}")
    return 0 if status == 1 else 1


def main(what: str, *arguments: str) -> int:
    """Run one."""
    with tempfile.TemporaryDirectory() as folder:
        given = [float(x) if x.replace(".", "").isdigit() else x for x in arguments]
        return {"time": timed, "kills": kills, "rare": rare}[what](Path(folder) / "session", *given)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
