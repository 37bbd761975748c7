"""Long trials of sessions: ``python -m tests.fuzz_trial time [SECONDS]``, or another of these words.

time [SECONDS]: a session on the bundled loss, the memory of its processes once a minute, and the time that it took.
kills [NUMBER]: as many times, at random moments, kill -9 of a worker, of the clerk, of the server of processes or of
the session, which is then resumed; whatever was known must stay known, and every file must be readable.
rare NAME ONE_IN [SECONDS]: what a session finds on a loss of ``tests/subjects/rare.py`` that does so on one case in so
many. late [SECONDS] [NUMBER]: the faults of the catalogue that the gate finds last, and when a session finds them.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.all_laws import ROOT
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.engine.journal import Journal

DETECTION = ROOT / "docs" / "measured" / "detection.md"
EVERY = 60.0  # seconds between two looks at the memory
RUNNING = 4  # processes of a session: the server, its tracker, two workers
STOPS = 60.0  # seconds that what a killed session leaves may take to end
CODE = "from tests.subjects.rare import {0}\n\n\nclass Loss({0}):\n    one_in = {1}\n"


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
    outside = time.monotonic() - start
    told = json.loads((out / "summary.json").read_bytes())
    print(f"exit status {going.returncode}; {told['cases']} cases, {told['judgements']} judgements")
    for what, took in (("by its own clock", told["seconds"]), ("from outside, start and end included", outside)):
        print(f"{took:.1f} s {what}: {100 * (took / seconds - 1):+.2f} % of {seconds:g} s")
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
    chance = random.Random(1)
    going = started(out, rarely(out.parent, "Raises", 100), "--for", "1h", "--seed", "1")
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
    cases = json.loads((out / "session.json").read_bytes())["counts"]["named"].get("cases", 0)
    status = started(out, "--resume", "--for", "1s").wait()
    told = json.loads((out / "summary.json").read_bytes())
    print(f"resumed to its end: exit status {status}, {told['cases']} cases of {cases} before, {told['seen']}")
    return 0 if status == 1 and told["cases"] >= cases and known <= readable(out) else 1


def rarely(folder: Path, name: str, one_in: float) -> str:
    """A loss that does so on one case in so many."""
    (folder / "rarely.py").write_text(CODE.format(name, int(one_in)), encoding="utf-8")
    return f"{folder}/rarely.py:Loss"


def rare(out: Path, name: str, one_in: float, seconds: float = 600) -> int:
    """What a session finds, and whether that is all there and replays."""
    status = started(out, rarely(out.parent, name, one_in), "--for", f"{seconds:g}s", "--seed", "1").wait()
    told = json.loads((out / "summary.json").read_bytes())
    rate = f"{told['cases']} cases, {told['cases'] / told['processor']:.0f} a second of processor time"
    print(f"{name}, one in {one_in:g}: exit status {status}; {rate}, {told['restarts']} restarts")
    for finding in told["verdict"]["faults"]:
        replay = subprocess.run(["sh", "-c", finding["replay"]], capture_output=True, text=True, check=False)
        seen = told["seen"][finding["path"]]
        print(f"{finding['law']}: {finding['observed']}; seen {seen} times; replay: exit status {replay.returncode}")
        print(finding["case"])
    return 0 if status == 1 else 1


def late(out: Path, seconds: float = 600, number: float = 8) -> int:
    """A table for docs/use/fuzzing.md: when a session finds what the gate finds last."""
    rows = re.findall(r"^\| (\w+) \| .* \| `(\S+)` \| (\d+) \| ([\d.]+) \|", DETECTION.read_text(), re.MULTILINE)
    here = [row for row in rows if BY_NAME[row[0]].device == "cpu"]
    print("| fault | the gate: first law | seconds | a session: first law | seconds |\n|---|---|---:|---|---:|")
    for name, law, _, took in sorted(here, key=lambda row: -float(row[3]))[: int(number)]:
        found, when = first_finding(out.with_name(name), plant(BY_NAME[name], out.parent), seconds)
        print(f"| {name} | `{law}` | {float(took):.0f} | {found} | {when} |", flush=True)
    return 0


def first_finding(out: Path, loss: str, seconds: float) -> tuple[str, str]:
    """The law that a session finds broken first, and the seconds since it was started; it is killed then."""
    start = time.monotonic()
    going = started(out, loss, "--for", f"{seconds:g}s", "--seed", "1", "--dialect", "yololoss")
    left = psutil.Process(going.pid)
    found: list[Path] = []
    while not found and going.poll() is None:
        time.sleep(0.05)
        found = [*out.glob("known/*.json"), *out.glob("raw/*.json")]
    took = time.monotonic() - start
    children = left.children(recursive=True) if going.poll() is None else []
    going.kill()
    going.wait()
    psutil.wait_procs(children, STOPS)
    laws = [read_vectors(path).vectors[0].law for path in out.glob("raw/*.json")]
    laws += [json.loads(path.read_bytes())["finding"]["law"] for path in out.glob("known/*.json")]
    return (f"`{laws[0]}`", f"{took:.0f}") if laws else ("none", f"more than {seconds:g}")


def main(what: str, *arguments: str) -> int:
    """Run one."""
    with tempfile.TemporaryDirectory() as folder:
        given = [float(x) if x.replace(".", "").isdigit() else x for x in arguments]
        return {"time": timed, "kills": kills, "rare": rare, "late": late}[what](Path(folder) / "session", *given)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
