"""A corpus: folders of case files, and the gate that judges them first."""

import json

import pytest

from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.fork import said
from tests.test_cli import GOOD, run
from tests.test_fuzz import rarely
from yololoss.harness.cases.vectors import make_vector, name_of, read_corpus, read_vectors, write_vectors

CASE = GOOD.changed(batch=2)
LARGER = CASE.changed(targets=(*CASE.targets, *CASE.targets))


def vector(law="totals.sum", case=CASE, comment="total: expected 1, observed 2"):
    return make_vector(id="a", law=law, case=case, comment=comment)


def save(folder, *vectors):
    write_vectors(folder / f"{len(list(folder.glob('*')))}.json" if folder.is_dir() else folder / "0.json", {}, vectors)


def test_merging_adds_what_is_not_there(tmp_path):
    """A case is added once, whatever file it is in; the same case under another law is a different one."""
    save(tmp_path / "one", vector(), vector("totals.shape-and-dtype"))
    save(tmp_path / "two", vector())
    for new in (2, 0):
        status, output, errors = run("corpus", "merge", "all", "one", "two", cwd=tmp_path)
        assert (status, output) == (0, f"all: {new} new of 3 cases\n"), errors
    assert {v.law for v in read_corpus(tmp_path / "all").values()} == {"totals.sum", "totals.shape-and-dtype"}
    assert {p.stem for p in (tmp_path / "all").iterdir()} == {
        name_of(vector()),
        name_of(vector("totals.shape-and-dtype")),
    }


def test_a_corpus_is_listed(tmp_path):
    """One line for each case, and a count; or JSON."""
    save(tmp_path / "one", vector(), vector("totals.shape-and-dtype", comment=""))
    status, output, _ = run("corpus", "list", "one", cwd=tmp_path)
    assert status == 0
    assert output.splitlines()[0] == f"{name_of(vector())}  total: expected 1, observed 2"
    assert output.splitlines()[-1] == "2 cases, 2 laws"
    status, output, _ = run("corpus", "list", "one", "--json", cwd=tmp_path)
    assert [told["law"] for told in json.loads(output)] == ["totals.sum", "totals.shape-and-dtype"]


def test_minimising_keeps_the_smallest_that_reach_the_same(tmp_path):
    """The smaller of two cases with the same law, regions and kind of trouble is kept; other cases are kept."""
    save(tmp_path / "one", vector(), vector(case=LARGER.changed(targets=(*LARGER.targets, *CASE.targets))))
    save(tmp_path / "one", vector(case=LARGER))
    save(tmp_path / "one", vector(case=LARGER, comment="total: expected 1, observed nan"))
    status, output, errors = run("corpus", "minimise", "one", cwd=tmp_path)
    assert status == 0, errors
    left = read_corpus(tmp_path / "one")
    assert len(left) + int(output.split()[-2]) == 3
    smaller = min(left.values(), key=lambda v: len(v.case.targets))
    assert smaller.case == CASE
    assert run("corpus", "minimise", "one", cwd=tmp_path)[1] == f"one: {len(left)} cases kept, 0 deleted\n"


def test_promoting_makes_a_vector_of_a_case(tmp_path):
    """With what the loss does now, which a later baseline run compares; a case that breaks its law is refused."""
    save(tmp_path / "one", vector())
    name = name_of(vector())
    status, output, errors = run("corpus", "promote", "one", name, "-o", "v.json", cwd=tmp_path)
    assert (status, output) == (0, f"v.json: {name} is now a vector\n"), errors
    (made,) = read_vectors(tmp_path / "v.json").vectors
    assert made.expected.calls[0].total > 0
    status, _, errors = run("corpus", "promote", "one", name, "-o", "v.json", cwd=tmp_path)
    assert (status, errors) == (2, f"yololoss: v.json: already has {name}\n")
    status, _, errors = run("corpus", "promote", "one", name[:-1], "-o", "v.json", cwd=tmp_path)
    assert status == 2
    assert f"no such case; did you mean '{name}'?" in errors
    spec = plant(BY_NAME["items_times_batch"], tmp_path)
    status, _, errors = run("corpus", "promote", "one", name, "--loss", spec, "-o", "w.json", cwd=tmp_path)
    assert status == 2
    assert "breaks totals.sum on it" in errors
    checked = ("check", "--laws", "baseline", "--baseline", "v.json", "--workers", 1)
    assert run(*checked, cwd=tmp_path)[0] == 0


@pytest.mark.slow
def test_the_gate_judges_the_corpus_first(tmp_path):
    """A case breaks its law before any is drawn; from --corpus, and from the settings."""
    save(tmp_path / "one", vector())
    spec = plant(BY_NAME["items_times_batch"], tmp_path)
    common = ("check", spec, "--laws", "totals.sum", "--workers", 1, "--json")
    status, output, errors = run(*common, "--corpus", "one", cwd=tmp_path)
    assert status == 1, errors
    assert json.loads(output)["laws"][0]["tried"] == 1
    (tmp_path / "yololoss.toml").write_text('corpus = "one"\n', encoding="utf-8")
    status, output, errors = run(*common, cwd=tmp_path)
    assert json.loads(output)["laws"][0]["tried"] == 1, errors
    status, output, errors = run("check", "--laws", "totals.sum", "--cases", 5, "--workers", 1, cwd=tmp_path)
    assert (status, output.splitlines()[0]) == (0, "laws: 1 of 1 held, 6 cases"), errors
    status, _, errors = run("check", "--corpus", "nowhere", cwd=tmp_path)
    assert (status, errors.count("nowhere: no such folder of case files")) == (2, 1)


@pytest.mark.slow
def test_the_gate_outlives_a_case_that_ends_its_process(tmp_path):
    """It is a finding like any other, and the other laws are judged."""
    save(tmp_path / "one", vector("run.no-exception"))
    spec = rarely(tmp_path, "Segfaults", 10**9)
    chosen = (
        f"\n    def chosen(self, p, targets):\n        return tuple(targets.shape) == ({len(CASE.targets)}, 6)"
        f" and p[0].shape[0] == {CASE.batch} and p[0].shape[2:4] == {CASE.grids[0]}\n"
    )
    with (tmp_path / "rarely.py").open("a", encoding="utf-8") as file:
        file.write(chosen)
    options = (
        "--laws",
        "run.no-exception",
        "--laws",
        "totals.shape-and-dtype",
        "--cases",
        5,
        "--workers",
        1,
        "--corpus",
        "one",
    )
    status, output, errors = run("check", spec, *options, "--json", cwd=tmp_path)
    assert status == 1, errors
    told = json.loads(output)
    words = {law["id"]: law["word"] for law in told["laws"]}
    assert words == {"totals.shape-and-dtype": "held", "run.no-exception": "BROKE"}
    (found,) = told["faults"]
    assert (found["observed"], found["picture"]) == ("killed by SIGSEGV", None)
    assert said(found["replay"], tmp_path)[0] == 1


def test_a_session_judges_the_corpus_first(tmp_path):
    """Its cases are counted, and what they break is found."""
    save(tmp_path / "one", vector())
    spec = plant(BY_NAME["items_times_batch"], tmp_path)
    options = ("--laws", "totals.sum", "--cases", 1, "--workers", 1, "--out", "s", "--json", "--corpus", "one")
    # with some seeds the law also breaks on a case that is drawn, in another way
    status, output, errors = run("fuzz", spec, *options, "--seed", 1, cwd=tmp_path)
    assert status == 1, errors
    (found,) = json.loads(output)["verdict"]["faults"]
    assert read_vectors(tmp_path / found["path"]).vectors[0].case == CASE
