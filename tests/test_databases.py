"""Hypothesis's databases as a cache of what sessions found."""

import json
import shutil
import socket
import subprocess
import time
from unittest.mock import patch

import pytest
from redis import Redis

from tests.test_cli import GOOD, run
from yololoss.harness.cases.databases import fetch, key, open_database, save
from yololoss.harness.cases.vectors import make_vector
from yololoss.harness.errors import UsageError

VECTOR = make_vector(id="a", law="totals.sum", case=GOOD)


@pytest.fixture
def redis(tmp_path):
    """The address of a real Redis server."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("there is no redis-server here; apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    going = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    made, real = [], Redis.from_url
    with patch.object(
        Redis, "from_url", side_effect=lambda *args, **named: made.append(real(*args, **named)) or made[-1]
    ):
        yield f"redis://127.0.0.1:{port}/0"
    for client in made:
        client.close()  # else its socket is collected in another test, which is then told of it
    going.kill()
    going.wait()


def test_a_folder_keeps_what_was_saved(tmp_path):
    """A case is saved under its law; entries of other programs are ignored."""
    database = open_database([str(tmp_path / "db")])
    save(database, [VECTOR])
    database.save(key("v5", "totals.sum"), b"something else")
    assert fetch(database, "v5", ["totals.shape-and-dtype", "totals.sum"]) == [VECTOR]
    assert open_database([]) is None


def test_redis_and_a_folder_are_one(tmp_path, redis):
    """A session first judges what another session found, through a real server."""
    (tmp_path / "raises.py").write_text(
        "from tests.subjects.rare import Raises\n\n\nclass Loss(Raises):\n    one_in = 2\n", encoding="utf-8"
    )
    options = ("--laws", "run.no-exception", "--workers", 1, "--cases", 10, "--seed", 1)
    places = ("--database", redis, "--database", "db")
    status, _, errors = run("fuzz", f"{tmp_path}/raises.py:Loss", *options, *places, "--out", "one", cwd=tmp_path)
    assert status == 1, errors
    kept = [fetch(open_database([place]), "v5", ["run.no-exception"]) for place in (redis, str(tmp_path / "db"))]
    assert kept[0] == kept[1]
    assert [vector.law for vector in kept[0]] == ["run.no-exception"]
    seeded = ("--laws", "run.no-exception", "--workers", 1, "--cases", 1, "--database", redis, "--out", "two")
    status, _, errors = run("fuzz", *seeded, cwd=tmp_path)
    assert status == 0, errors
    assert json.loads((tmp_path / "two" / "session.json").read_bytes())["counts"]["named"]["first"] == 1


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("github:owner", "expected github:owner/repository"),
        ("ftp://here", "expected a folder, redis://"),
        ("redis://127.0.0.1:1/0", "ConnectionError"),
    ],
)
def test_a_place_that_cannot_be_is_told_in_one_line(tmp_path, place, problem):
    """An address of another form, or one that does not exist."""
    options = ("--laws", "totals.sum", "--workers", 1, "--cases", 1)
    status, _, errors = run("fuzz", *options, "--database", place, cwd=tmp_path)
    assert status == 2
    assert problem in errors


def test_what_cannot_be_saved_is_told():
    """A server that has stopped."""
    with pytest.raises(UsageError, match="ConnectionError"):
        save(open_database(["redis://127.0.0.1:1/0"]), [VECTOR])


def test_github_is_only_read(monkeypatch):
    """Its artifacts are what a workflow uploaded."""
    database = open_database(["github:owner/repository"])
    assert type(database).__name__ == "MultiplexedDatabase"
    save(database, [VECTOR])  # a database that is only read takes no notice
