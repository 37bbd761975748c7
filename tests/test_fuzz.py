"""Fuzz sessions: what they find, and that nothing is lost."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
import pytest
import torch

from tests.all_laws import LAWS, ROOT, V5
from tests.fork import said
from tests.test_cli import run
from yololoss.harness.cases.vectors import kind, make_vector, read_vectors
from yololoss.harness.config import BUNDLED
from yololoss.harness.engine import clerk, guard, session, state, worker
from yololoss.harness.engine.handles import LocalWorker
from yololoss.harness.engine.journal import HEAD, ROOM, Journal
from yololoss.harness.engine.judge import Judge, Task, Told, died, judged, usual_limit
from yololoss.harness.engine.minimise import smallest
from yololoss.harness.engine.plan import Counts, Origin, Plan
from yololoss.harness.engine.raw import Raw, fingerprint, from_flight, in_flight, raw_path, read_raw, write_raw
from yololoss.harness.errors import BadFile, UsageError
from yololoss.harness.laws.exam import Run
from yololoss.harness.subjects import compiled
from yololoss.harness.subjects.load import load_loss

RARE = "tests.subjects.rare"
V5_VECTOR = kind("v5").vector
FEW = (  # laws, so that a case takes milliseconds
    *("totals.sum", "totals.items-detached"),
    *("run.no-exception", "run.time-limit", "run.no-exit", "run.no-output"),
)


def rarely(folder: Path, name: str, one_in: int) -> str:
    """A loss that does this on one case in so many."""
    code = f"from {RARE} import {name} as Base\n\n\nclass Loss(Base):\n    one_in = {one_in}\n"
    (folder / "rarely.py").write_text(code, encoding="utf-8")
    return f"{folder}/rarely.py:Loss"


SLOW = 300.0  # seconds that a session may take for one step, on a machine that is busy otherwise
# where the tests run in the background, Ctrl-C is ignored, and would be in a process that they start
HEEDING_CTRL_C = ("env", "--default-signal=INT")


def settings(**changed: object) -> state.Settings:
    return state.Settings(
        **{"loss": BUNDLED, "device": "cpu", "dialect": "yololoss", "laws": FEW, "seed": 3, **changed}
    )


def orders(folder: Path, task: Task | None = None, **changed: object) -> worker.Orders:
    """What a worker is told; ``changed`` has fields of the orders and of their settings."""
    for name in ("journal", "notes", "raw", "known", "findings"):
        (folder / name).mkdir(exist_ok=True)
    own = {name: changed.pop(name) for name in worker.Orders._fields if name in changed}
    chosen = settings(**{"seed": 1, **(vars(task) if task else {}), "laws": FEW, **changed})
    return worker.Orders(**{"settings": chosen, "folder": folder, "number": 0, "place": 0, **own})


def quiet(_: session.Session) -> None:
    """Show nothing."""


# The journal


def test_a_journal_is_read_as_it_was_written(tmp_path):
    """The last text, its number, and counters; also for another reader of the file."""
    journal = Journal(tmp_path / "j", 4)
    assert journal.read().text == ""
    for text in ("one", "two", ""):
        journal.write(text)
        assert Journal(tmp_path / "j").read().text == text
    journal.counters[2] += np.uint64(7)
    assert Journal(tmp_path / "j").counters.tolist() == [0, 0, 7, 0]
    assert Journal(tmp_path / "j").read().sequence == 3


@pytest.mark.parametrize("cut", range(0, 24, 3))
def test_a_write_that_was_cut_short_leaves_the_one_before(tmp_path, cut):
    """Whichever bytes of the newest slot are damaged, the older slot is read."""
    journal = Journal(tmp_path / "j", 1)
    journal.write("before")
    journal.write("after")
    data = bytearray((tmp_path / "j").read_bytes())
    at = data.index(b"after") - 24 + cut
    data[at] ^= 0xFF
    (tmp_path / "j").write_bytes(data)
    assert Journal(tmp_path / "j").read().text == "before"


def test_what_is_no_journal_is_told_in_one_line(tmp_path):
    """Another file, a truncated file, a case that is too large."""
    (tmp_path / "a").write_text("something else", encoding="utf-8")
    with pytest.raises(BadFile, match="a: not a worker's journal"):
        Journal(tmp_path / "a")
    journal = Journal(tmp_path / "b", 1)
    with pytest.raises(ValueError, match=r"a case of \d+ bytes, expected \d+ at most"):
        journal.write("x" * ROOM)
    journal.close()
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-1])
    with pytest.raises(BadFile, match=rf"b: {HEAD.size + 8 + 2 * ROOM - 1} bytes, expected"):
        Journal(tmp_path / "b")


# What is judged


def test_a_case_is_judged_by_every_law_that_is_about_it():
    """A law's domain holds all its own cases; the plan leaves out laws that do not apply."""
    subject = load_loss(BUNDLED, torch.device("cpu"), "yololoss")
    plan = Plan((), subject)
    left_out = set(LAWS) - set(plan.laws)
    assert {id.partition(".")[0] for id in left_out} == {"baseline", "compile", "devices"}
    chance = np.random.default_rng(0)
    for number, domain in enumerate(plan.domains):
        for _ in range(20):
            case = plan.case(Origin(number, chance.bytes(domain.size)))
            assert domain.only_own or domain.holds(case), domain
            named = {law.id for law in plan.judges(case, number, chance)}
            own = {id for id in plan.laws if number in plan._of[id]}
            assert {id for id in own if not plan.laws[id].again} <= named
            assert not domain.only_own or named == own  # they are of no other law's domain


def test_laws_that_run_the_loss_again_judge_a_share_of_the_cases():
    """All of them together about three laws for every four cases; alone, one judges as many."""
    subject = load_loss(BUNDLED, torch.device("cpu"), "yololoss")
    plan = Plan((), subject)
    tried = Counter()
    for number in range(1000):
        chance = np.random.default_rng((0, number))
        origin = plan.origin(number, chance)
        tried.update(law.id for law in plan.judges(plan.case(origin), origin.domain, chance) if law.again)
    again = [law for law in plan.laws.values() if law.again and not law.own(subject)]
    assert 0.6 < tried.total() / 1000 < 0.9
    assert set(tried) == {law.id for law in again}
    one = Plan(("state.deep-copy",), subject)
    chance = np.random.default_rng(0)
    assert 35 < sum(bool(one.judges(one.case(one.origin(n, chance)), 0, chance)) for n in range(60)) < 55


def test_every_domain_has_its_share_early_on():
    """Domains take turns: after a few hundred cases none is more than two cases from its share."""
    plan = Plan((), load_loss(BUNDLED, torch.device("cpu"), "yololoss"))
    chance = np.random.default_rng(0)
    made = Counter(plan.origin(number, chance).domain for number in range(300))
    for domain, weight in enumerate(plan.weights):
        assert abs(made[domain] - 300 * weight) < 2


def test_a_domain_does_not_hold_what_its_law_is_not_about():
    """Each restriction of a domain is respected."""
    strategies, pools = V5.module("strategies"), V5.module("pools")
    chance = np.random.default_rng(1)
    wide = strategies.Domain(options=pools.ALL_OPTIONS)
    made = [wide.case(chance.bytes(wide.size)) for _ in range(300)]
    for narrowing in (
        {"min_targets": 2},
        {"max_targets": 1},
        {"dtypes": ("float64",)},
        {"layouts": ("sliced",)},
        {"hyps": pools.HYPS[:1]},
        {"options": pools.ALL_OPTIONS[:1]},
        {"target_dtypes": ("float16",)},
        {"logits": ((1.0, -20.0),)},
        {"spots": False},
        {"exact": True},
        {"classes": (1,)},
    ):
        domain = strategies.Domain(**{"options": pools.ALL_OPTIONS, **narrowing})
        held = sum(domain.holds(case) for case in made)
        assert 0 < held < len(made), narrowing
    assert not any(strategies.Domain(large=pools.LARGE).holds(case) for case in made)


def test_what_a_law_raises_itself_is_a_finding():
    """A loss may return something that no law expects."""
    law = LAWS["totals.sum"]
    plan = Plan(FEW, load_loss(BUNDLED, torch.device("cpu"), "yololoss"))
    case = plan.case(Origin(0, bytes(plan.domains[0].size)))
    with patch.object(type(law), "examine", side_effect=TypeError("no float")):
        broke, _ = judged(law, Run(plan.subject, case))
    assert broke == Told("totals.sum", "the judgement", "no error", "TypeError: no float", broke.because)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("layer 0, x[0, 3, 1]", "layer 12, x[2]", True),
        ("raised: IndexError: index 8 at 0x7f3a", "raised: IndexError: index 9 at 0x7fff", True),
        ("shape (2, 3), with (1, 2.5), (3, nan), ...", "shape (4, 3), with (1, 2)", True),
        ("3.5", "nan", False),
        ("raised: IndexError", "raised: KeyError", False),
    ],
)
def test_findings_are_told_apart_without_their_numbers(one, two, same):
    """The law, the place and the kind of trouble make the fingerprint."""
    prints = [fingerprint(Told("totals.sum", "total", "", text, "")) for text in (one, two)]
    assert (prints[0] == prints[1]) == same
    assert fingerprint(Told("totals.value", "total", "", one, "")) != prints[0]


# A worker


def test_what_is_compiled_has_the_time_that_compiling_takes():
    """A finding under torch.compile can be replayed: a shape takes a minute, not milliseconds."""
    assert usual_limit("compile") > compiled.TIME_LIMIT
    assert Task(BUNDLED, "compile", "upstream").under_test().limit is None  # the usual of what is compiled
    assert Task(BUNDLED, "cpu", "upstream").under_test().limit <= usual_limit("cpu")


def test_a_worker_judges_and_counts(tmp_path):
    """As many cases as ordered, by the laws given; no case is left in flight."""
    worker.run(orders(tmp_path, cases=30))
    subject = load_loss(BUNDLED, torch.device("cpu"), "yololoss")
    journal = Journal(worker.journal_path(tmp_path, 0))
    counts = worker.Counters(Plan(FEW, subject)).read(journal.counters)
    named = counts.named
    assert (named["cases"], journal.read().text, counts.kinds) == (30, "", {})
    assert 20 <= named["tried totals.sum"] <= 30
    assert named["judged totals.sum"] == named["tried totals.sum"]
    assert named["region one layer"] > 0
    assert not list((tmp_path / "raw").iterdir())


def test_a_worker_writes_down_what_it_finds_once(tmp_path):
    """One file and a count for each fingerprint; a known one is only counted; given cases are judged first."""
    task = Task(rarely(tmp_path, "Raises", 2), "cpu", "upstream")
    worker.run(orders(tmp_path, task=task, cases=20))
    (path,) = (tmp_path / "raw").iterdir()
    raw = read_raw(path)
    assert raw.told.observed.startswith("raised in loss: IndexError")
    assert path == raw_path(tmp_path, raw.kind)
    path.unlink()
    first = (make_vector(raw.case, id="a").model_dump_json(),)
    worker.run(orders(tmp_path, task=task, number=1, known=(raw.kind,), first=first, cases=20))
    assert not list((tmp_path / "raw").iterdir())
    plan = Plan(FEW, task.under_test())
    counts = worker.Counters(plan).read(Journal(worker.journal_path(tmp_path, 1)).counters)
    assert counts.named["first"] == 1
    assert counts.kinds[raw.kind] == counts.named["broke run.no-exception"] > 1
    assert 0 < counts.fresh[raw.kind] < counts.kinds[raw.kind]  # the given case is not counted
    assert counts.fresh[raw.kind] <= counts.named["fresh"] <= 20
    once = Counts(fresh=Counter(a=1, b=1, c=1, d=2), numbers=Counter(a=7, b=7, c=8, d=9))
    assert (once.alone, (once + once).alone) == (2, 0)  # two kinds by one case are one case


SPOILT = """from tests.subjects.conforming_forms import Unchecked


class Loss(Unchecked):
    mean = 1.0

    def __call__(self, p, targets):
        total, items = super().__call__(p, targets)
        Loss.mean = 0.9 * Loss.mean + 0.1 * float(total)
        return total + 0 * Loss.mean, items
"""


def test_a_loss_that_bad_input_spoils_leaves_its_process(tmp_path):
    """No law is judged in it after that, whatever law is asked for; the next process gives the loss no bad input."""
    (tmp_path / "mean_of_all.py").write_text(SPOILT, encoding="utf-8")
    laws = ("input.nan-logits", "state.second-object")
    given = {"loss": f"{tmp_path}/mean_of_all.py:Loss", "dialect": "upstream", "laws": laws, "cases": 40}
    with pytest.raises(SystemExit) as ended:
        worker.run(orders(tmp_path)._replace(settings=settings(**given)))
    assert ended.value.code == 0
    (path,) = (tmp_path / "raw").iterdir()
    assert read_raw(path).told[:2] == ("input.spoils-nothing", "the same case, after bad input in this process")
    made = session.begin(tmp_path / "s", settings(**given))
    with patch.object(LocalWorker, "__init__", return_value=None) as started:
        made.state.counts.named["spoilt"] = 1
        made._start_worker(0)
    assert started.call_args.args[0].spoilt
    worker.run(orders(tmp_path)._replace(settings=settings(**given), number=1, spoilt=True))
    plan = Plan(laws, settings(**given).under_test())
    named = worker.Counters(plan).read(Journal(worker.journal_path(tmp_path, 1)).counters).named
    assert named["tried input.nan-logits"] == 0 < named["tried state.second-object"]
    worker.run(orders(tmp_path, number=2)._replace(settings=settings(laws=laws, cases=40)))
    assert [*(tmp_path / "raw").iterdir()] == [path]  # the bundled loss is not spoilt


def test_a_worker_leaves_with_a_lost_device(tmp_path):
    """Its last finding is written, and no case is left in flight."""
    task = Task(rarely(tmp_path, "Raises", 1), "cpu", "upstream")
    with patch("yololoss.harness.devices.devices.is_lost", lambda _: True), pytest.raises(SystemExit) as end:
        worker.run(orders(tmp_path, task=task))
    assert end.value.code == 0
    (path,) = (tmp_path / "raw").iterdir()
    assert read_raw(path).told.what == "the device, after this case"
    assert Journal(worker.journal_path(tmp_path, 0)).read().text == ""


def test_a_worker_that_cannot_write_says_so_by_its_exit_status(tmp_path):
    """A full disk; the case stays in flight, so that it is judged again."""
    task = Task(rarely(tmp_path, "Raises", 1), "cpu", "upstream")
    full = OSError(28, "No space left on device")
    with patch("yololoss.harness.engine.worker.write_raw", side_effect=full), pytest.raises(SystemExit) as end:
        worker.run(orders(tmp_path, task=task))
    assert end.value.code == worker.BAD_DISK
    case, source = from_flight(Journal(worker.journal_path(tmp_path, 0)).read().text, V5.case)
    assert in_flight(case, source) == Journal(worker.journal_path(tmp_path, 0)).read().text


def test_what_came_near_a_limit_is_varied():
    """The guide keeps the case of the largest error of each law, and cases of thin regions, and varies them."""
    plan = Plan((), load_loss(BUNDLED, torch.device("cpu"), "yololoss"))
    guide, chance = worker.Guide(plan), np.random.default_rng(0)
    near, far = (guide.next(number, chance) for number in range(2))
    guide.learn(near, {"totals.value": 0.8}, ["one class"])
    guide.learn(far, {"totals.value": 0.5}, [])
    assert guide.best["totals.value"] == (0.8, near)
    assert near in guide.rare
    made = [guide.next(number, chance) for number in range(300)]
    varied = [o for o in made if o.domain == near.domain and _distance(o.data, near.data) <= 4]
    assert len(varied) > 60


def _distance(one: bytes, two: bytes) -> int:
    return sum(a != b for a, b in zip(one, two, strict=True)) if len(one) == len(two) else 1000


# The clerk


def test_bytes_are_made_as_plain_as_they_may_be():
    """Bytes that matter are kept, as low as possible; the search ends when its time is over."""
    data = bytes(range(1, 101))
    small = smallest(data, lambda d: d[40] >= 7 and d[90] == 91, time.monotonic() + 60)
    assert {i: b for i, b in enumerate(small) if b} == {40: 7, 90: 91}
    assert smallest(data, lambda d: True, time.monotonic() - 1) == data


def _raw_of(folder: Path, name: str, one_in: int = 1, *, outside: bool = False) -> tuple[clerk.Duty, Path]:
    """What a worker that died on a loss leaves in the session's folder, and the clerk's duty."""
    task = Task(rarely(folder, name, one_in), "cpu", "upstream", memory=1500, limit=4.0)
    given = orders(
        folder, task=task, start=3, options={"loss": task.loss}
    )  # no large case, and targets that laws judge here
    with patch.object(worker.Worker, "_judge", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        worker.run(given)
    journal = Journal(worker.journal_path(folder, 0))
    case, source = from_flight(journal.read().text, V5.case)
    how = guard.Death("run.no-exception", "lost with its node" if outside else "killed by SIGSEGV", outside=outside)
    told = died(how, LAWS["run.no-exception"])
    write_raw(folder, task.loss, Raw(told, case, source))
    return clerk.Duty(given.settings, folder, 20.0), next((folder / "raw").iterdir())


def test_the_clerk_makes_small_what_it_confirms(tmp_path):
    """The simplest case is saved and recorded; the raw one is deleted."""
    duty, path = _raw_of(tmp_path, "Segfaults")
    clerk.attend(duty, path)
    (record,) = clerk.read_records(tmp_path).values()
    assert record.finding is not None
    assert record.finding.observed == "killed by SIGSEGV"
    assert record.finding.picture is None
    assert record.finding.repeats
    case = read_vectors(Path(record.finding.path)).vectors[0].case
    assert (case.targets, case.layers, case.batch) == ((), 1, 1)
    assert not path.exists()


def test_a_process_that_was_killed_from_outside_is_no_finding(tmp_path):
    """Its case, run again, breaks no law."""
    duty, path = _raw_of(tmp_path, "Segfaults", one_in=10**9, outside=True)
    clerk.attend(duty, path)
    (record,) = clerk.read_records(tmp_path).values()
    assert record.finding is None
    assert "killed from outside" in record.nothing


def test_what_a_kill_from_outside_hid_is_found_once(tmp_path):
    """Its case, run again, breaks a law: this is another finding, which others may have found too."""
    duty, path = _raw_of(tmp_path, "Segfaults", outside=True)
    clerk.attend(duty._replace(seconds=0.0), path)
    (record,) = clerk.read_records(tmp_path).values()
    assert record.finding is None
    (own,) = (tmp_path / "raw").iterdir()
    assert record.nothing == (
        f"a process was killed from outside: its case, run again, breaks run.no-exception: {own.stem}"
    )
    clerk.attend(duty._replace(seconds=0.0), own)
    told = clerk.read_records(tmp_path)
    assert told[own.stem].finding.observed == "killed by SIGSEGV"
    assert own.stem == _raw_of(tmp_path, "Segfaults")[1].stem


def test_what_does_not_repeat_is_kept_and_said_so(tmp_path):
    """A loss that died in one process and not in another."""
    duty, path = _raw_of(tmp_path, "Segfaults", one_in=10**9)
    clerk.attend(duty, path)
    (record,) = clerk.read_records(tmp_path).values()
    assert record.finding is not None
    assert not record.finding.repeats


def test_a_spoiled_raw_file_is_told(tmp_path):
    """It is not read as a finding, and is kept for a person to look at."""
    duty, path = _raw_of(tmp_path, "Segfaults")
    path.write_text(path.read_text(encoding="utf-8").replace('"told"', '"other"'), encoding="utf-8")
    clerk.attend(duty, path)
    assert "not in a worker's format" in clerk.read_records(tmp_path)[path.stem].nothing
    assert path.exists()


# A judge


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "observed", "law"),
    [
        ("Segfaults", "killed by SIGSEGV", "run.no-exception"),
        ("Leaves", "ended its process, exit status 3", "run.no-exit"),
        ("Loops", "did not return within 3 s", "run.time-limit"),
        ("Allocates", "took more than 1500 MiB of memory", "run.no-exception"),
        ("Raises", "raised in loss: IndexError", "run.no-exception"),
    ],
)
def test_a_judge_outlives_what_it_judges(tmp_path, name, observed, law):
    """The judge reports why the process died, and judges the next case."""
    limit = 3.0 if name == "Loops" else 60.0
    task = Task(rarely(tmp_path, name, 1), "cpu", "upstream", memory=1500, limit=limit)
    plan = Plan(FEW, task.under_test())
    case = plan.case(Origin(0, bytes(plan.domains[0].size)))
    with Judge(task) as judge:
        for _ in range(2):
            broke, _ = judge.ask(clerk.Vector(id="a", law="run.no-exception", case=case))
            assert broke is not None
            assert (broke.law, broke.observed[: len(observed)]) == (law, observed)


def test_a_process_whose_server_was_killed_is_ended_and_no_finding():
    """A process without its server cannot report how it ends; its case is not to blame."""
    watched = guard.Guarded(time.sleep, (600,), 4096)
    itself = psutil.Process(watched.process.pid)
    itself.parent().kill()
    _until(lambda: not watched.alive)
    assert watched.watch(None, 1.0) == guard.Death("run.no-exit", "ended its process, exit status 255", True, 255)
    _until(lambda: not itself.is_running() or itself.status() == psutil.STATUS_ZOMBIE)


# A session


@pytest.mark.slow
def test_a_session_on_the_bundled_loss_finds_nothing(tmp_path):
    """All laws, as many cases as asked, beside those of laws that draw none; counts, files, and no process left."""
    own = len([*Plan((), load_loss(BUNDLED, torch.device("cpu"), "yololoss")).own_cases()])
    status, output, errors = run("fuzz", "--cases", 41, "--workers", 2, "--out", "s", "--seed", 5, cwd=tmp_path)
    assert (status, errors.count("session of seed 5")) == (0, 1), output + errors
    assert re.search(r"^\d+ laws hold, .*0:00:\d\d$", output.splitlines()[-1])
    told = json.loads((tmp_path / "s" / "summary.json").read_text(encoding="utf-8"))
    assert told["cases"] == 41 + own
    assert told["judgements"] == sum(row["tried"] for row in told["verdict"]["laws"])
    assert "laws hold" in (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "s" / "journal").iterdir())
    again, output, errors = run("fuzz", "--resume", "--cases", 60, "--out", "s", "--json", cwd=tmp_path)
    assert again == 0, errors
    assert json.loads(output)["cases"] == 60 + own


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("Segfaults", "run.no-exception"),
        ("Leaves", "run.no-exit"),
        ("Loops", "run.time-limit"),
        ("Allocates", "run.no-exception"),
        ("Raises", "run.no-exception"),
        ("Attached", "totals.items-detached"),
    ],
)
def test_a_session_survives_what_it_finds(tmp_path, monkeypatch, name, law):
    """It is found, minimised, and saved with a command that replays it; the session runs to its end."""
    monkeypatch.setattr(session, "SMALL", 15.0)  # where each try takes seconds, no more than a few
    spec = rarely(tmp_path, name, 20)
    laws = [x for pattern in FEW for x in ("--laws", pattern)]
    limits = {"Loops": ("--limit", "4s"), "Allocates": ("--memory", 1200)}.get(name, ())
    options = ("--cases", 60, "--workers", 1, "--out", "s", "--seed", 2, "--json", *limits)
    status, output, errors = run("fuzz", spec, *laws, *options, cwd=tmp_path)
    assert status == 1, errors
    told = json.loads(output)
    assert told["cases"] == 60
    found = {finding["law"]: finding for finding in told["verdict"]["faults"]}
    assert law in found
    assert told["seen"][found[law]["path"]] >= 1
    status, output = said(found[law]["replay"], tmp_path)
    assert status == 1, output
    assert "still broken" in output


@contextlib.contextmanager
def _begun(folder: Path, spec: str, stderr: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """A session of its own; it does not outlive the test, which would slow down those after it."""
    laws = [x for pattern in FEW for x in ("--laws", pattern)]
    command = [sys.executable, "-m", "yololoss", "fuzz", spec, "--out", str(folder), "--seed", "7", *laws]
    command += ["--for", "1h", "--workers", "2"]
    command = [*HEEDING_CTRL_C, *command]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr) as going:
        try:
            yield going
        finally:
            going.kill()


def _until(condition) -> None:
    end = time.monotonic() + SLOW
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _state(folder: Path) -> dict[str, object]:
    return json.loads((folder / "session.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_kill_9_loses_nothing(tmp_path):
    """A worker is replaced; the session itself is resumed, with its counts and what it found, and ends."""
    out = tmp_path / "s"
    with _begun(out, rarely(tmp_path, "Raises", 60)) as going:
        _until(lambda: list((out / "known").glob("*.json")))
        (server,) = [c for c in psutil.Process(going.pid).children() if "forkserver" in " ".join(c.cmdline())]
        for victim in server.children():  # workers, perhaps the clerk and its judge, which may end by itself
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        _until(lambda: _state(out)["restarts"] >= 1)
        known = {path.name for path in (out / "known").glob("*.json")}
    _until(lambda: not server.is_running() or not server.children())
    for path in (out / "journal").glob("*.journal"):
        Journal(path).close()
    counted = _state(out)["counts"]["named"]
    status, output, errors = run("fuzz", "--resume", "--out", out, "--for", "1s", "--json", cwd=ROOT)
    told = json.loads(output)
    assert status == 1, errors
    assert told["cases"] >= counted.get("cases", 0)
    assert known <= {path.name for path in (out / "known").glob("*.json")}
    for path in (out / "findings").glob("*.json"):
        read_vectors(path)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be made here: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def _fill(disk: Path) -> Path:
    path = disk / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


@pytest.mark.slow
def test_a_full_disk_ends_a_session_and_spoils_nothing(tmp_path, small_disk):
    """It ends with one line; after space is freed it is resumed, with all counts and findings."""
    out = small_disk / "s"
    with _begun(out, rarely(tmp_path, "Raises", 60), stderr=subprocess.PIPE) as going:
        _until(lambda: list((out / "known").glob("*.json")))
        filler = _fill(small_disk)
        _, errors = going.communicate(timeout=SLOW)
    assert going.returncode == 2
    assert errors.decode().splitlines()[-1].startswith(f"yololoss: {out}/"), errors
    assert "No space left on device" in errors.decode().splitlines()[-1]
    known = {path.name for path in (out / "known").glob("*.json")}
    counted = _state(out)["counts"]["named"].get("cases", 0)
    for path in (*out.glob("known/*.json"), *out.glob("*.json")):
        json.loads(path.read_text(encoding="utf-8"))
    for path in (*out.glob("findings/*.json"), *out.glob("raw/*.json")):
        read_vectors(path)
    filler.unlink()
    status, output, errors = run("fuzz", "--resume", "--out", out, "--for", "1s", "--json", cwd=ROOT)
    assert status == 1, errors
    assert json.loads(output)["cases"] > counted
    assert known <= {path.name for path in (out / "known").glob("*.json")}


@pytest.mark.slow
def test_ctrl_c_ends_a_session_with_its_summary(tmp_path):
    """Exit status 0 and the summary; no process is left."""
    with _begun(tmp_path / "s", BUNDLED) as going:
        _until(lambda: (tmp_path / "s" / "journal").is_dir() and list((tmp_path / "s" / "journal").iterdir()))
        time.sleep(2)
        left = psutil.Process(going.pid).children(recursive=True)
        going.send_signal(signal.SIGINT)
        assert going.wait(SLOW) in (0, 2)  # 2: nothing was judged yet
    assert (tmp_path / "s" / "summary.json").exists()
    _until(lambda: not any(child.is_running() for child in left))


def test_a_session_that_cannot_go_on_says_why(tmp_path):
    """Workers that end before their first case; a disk that cannot be written."""
    (tmp_path / "bad.py").write_text("class Loss:\n    def __init__(self, model): ...\n", encoding="utf-8")
    made = session.begin(tmp_path / "a", settings())
    made.failed = session.FAILED - 1
    gone = LocalWorker(orders(tmp_path / "a", number=5, task=Task("nothing:here", "cpu", "upstream")))
    _until(lambda: not gone.guarded.alive)
    made.workers = [gone]
    with pytest.raises(UsageError, match=r"workers end before their first case: .*no such module"):
        made._replace(gone, gone.watch())
    made = session.begin(tmp_path / "b", settings())
    made.workers = [gone]
    with pytest.raises(UsageError, match="could not write to it; is the disk full"):
        made._replace(gone, guard.Death("run.no-exit", "x", status=worker.BAD_DISK))


def test_what_is_given_wrong_is_told_in_one_line(tmp_path):
    """Times, folders, sessions that exist or do not exist."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "session.json").write_text("{}", encoding="utf-8")
    session.begin(tmp_path / "odd", settings())._save()
    (tmp_path / "odd" / "known" / "a.json").write_text("{", encoding="utf-8")
    for arguments, problem in (
        (("--for", "10x"), "'10x': expected a time such as 90s, 10m, 2h or 1h30m"),
        (("--for", "0s"), "'0s': expected a time"),
        (("--laws", "totals.summ"), "no such law; did you mean 'totals.sum'?"),
        (("--laws", "baseline"), "none of these laws applies to this loss and device"),
        (("--resume",), "there is no session to resume"),
        (("--resume", "--out", "full"), "session.json: settings: Field required; there is no session"),
        (("--resume", "--out", "odd"), "odd/known/a.json: top level: Invalid JSON"),
        (("--resume", "--seed", "3", "--out", "full"), "--resume keeps the session's own seed"),
        (("--out", "full"), "already has a session"),
        (("--corpus", "nowhere"), "nowhere: no such folder of case files"),
    ):
        status, _, errors = run("fuzz", *arguments, cwd=tmp_path)
        assert status == 2, arguments
        assert problem in errors, arguments


def test_the_clerk_may_die_as_well(tmp_path):
    """Then the finding is kept as it was found."""
    made = session.begin(tmp_path, settings())
    case = made.plan.case(Origin(0, bytes(made.plan.domains[0].size)))
    raw = Raw(Told("totals.sum", "total", "1", "2", "none"), case, None)
    write_raw(tmp_path, BUNDLED, raw)
    made._take_record(raw_path(tmp_path, raw.kind))
    assert made.findings[raw.kind].repeats is False
    assert not list((tmp_path / "raw").iterdir())


def test_a_case_in_flight_is_judged_first_when_it_is_resumed(tmp_path):
    """It is judged again after the session was killed; its worker's counts are added once."""
    worker.run(orders(tmp_path, cases=5))
    plan = Plan(FEW, load_loss(BUNDLED, torch.device("cpu"), "yololoss"))
    case = plan.case(Origin(0, bytes(plan.domains[0].size)))
    journal = Journal(worker.journal_path(tmp_path, 0))
    journal.write(in_flight(case, None))
    kept = journal.path.read_bytes()
    state_then = state.State(settings=settings(cases=8), next=1, running={0: (0, 0, 1, ())})
    made = session.Session(tmp_path, state_then)
    assert [V5_VECTOR.model_validate_json(text).case for text in made.state.first] == [case]
    assert made.counts().named["cases"] == 5
    journal.path.write_bytes(kept)  # as if it was killed before the journal was removed
    made = session.resume(tmp_path)
    assert made.counts().named["cases"] == 5
    made.run(quiet)
    assert made.counts().named["first"] >= 1
