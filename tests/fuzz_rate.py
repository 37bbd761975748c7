"""What a session gets done beside what repeating the suite does: ``python -m tests.fuzz_rate [SECONDS]``.

One worker each, at the same time, so that both find the machine as busy. A judgement is one law on one case. The suite
runs as explorers run it, with other cases every time and nothing made small. Rates by processor time do not depend on
how busy the machine is: the suite's whole process against the session's worker, start-up included.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SUITE = ("check", "--profile", "explorer", "--no-shrink", "--workers", "1", "--json")


def started(arguments: tuple[str, ...], output: Path) -> subprocess.Popen[bytes]:
    """A command of ours, its output in a file."""
    command = [sys.executable, "-m", "yololoss", *arguments]
    with output.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)


def main(seconds: float = 60) -> None:
    """Measure both and print."""
    with tempfile.TemporaryDirectory() as folder:
        suite, fuzz = Path(folder) / "suite", Path(folder) / "fuzz"
        begun = time.monotonic()
        going = started(SUITE, suite)
        beside = started(("fuzz", "--for", f"{seconds:g}s", "--workers", "1", "--out", f"{folder}/s", "--json"), fuzz)
        beside.wait()
        told = json.loads(fuzz.read_bytes())
        print(f"fuzz:  {told['judgements']} judgements of {told['cases']} cases in {told['seconds']:.0f} s")
        _, _, usage = os.wait4(going.pid, 0)
        used, processor = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
        tried = sum(row["tried"] for row in json.loads(suite.read_bytes())["laws"])
        print(f"suite: {tried} judgements in {used:.0f} s")
        rates = told["judgements"] / told["seconds"], tried / used
        print(f"judgements a second: {rates[0]:.0f} and {rates[1]:.0f}, {rates[0] / rates[1]:.1f} times as many")
        rates = told["judgements"] / told["processor"], tried / processor
        print(f"a processor second:  {rates[0]:.0f} and {rates[1]:.0f}, {rates[0] / rates[1]:.1f} times as many")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
