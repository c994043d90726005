# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes against servers that are down, hang, refuse or answer, and the health made of them."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import closing
from socket import AF_UNIX, create_server, socket

import pytest
from aapanel_runtime import redis
from aapanel_runtime.database import parse
from aapanel_runtime.health import Component, Health
from aapanel_runtime.probes import ProbeError, database_probe, redis_probe


def fake_redis(answers: bytes, path: str | None = None) -> tuple[socket, list[bytes]]:
    """Start a server for one connection that sends ``answers`` and keeps what it was sent."""
    heard: list[bytes] = []
    listener = socket(AF_UNIX) if path else create_server(("127.0.0.1", 0))
    if path:
        listener.bind(path)
        listener.listen()

    def serve() -> None:
        with closing(listener.accept()[0]) as connection:
            heard.append(connection.recv(4096))
            for index in range(len(answers)):
                connection.sendall(answers[index : index + 1])
            connection.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    return listener, heard


def test_redis_is_asked_with_its_password():
    listener, heard = fake_redis(b"+OK\r\n+PONG\r\n")
    with closing(listener):
        redis_probe(redis.parse(f"redis://panel:p%20w@127.0.0.1:{listener.getsockname()[1]}/0"))(2)
    assert heard == [b"*3\r\n$4\r\nAUTH\r\n$5\r\npanel\r\n$3\r\np w\r\n*1\r\n$4\r\nPING\r\n"]


def test_redis_is_asked_over_a_unix_socket(tmp_path):
    listener, heard = fake_redis(b"+PONG\r\n", str(tmp_path / "r"))
    with closing(listener):
        redis_probe(redis.parse(f"unix://{tmp_path}/r"))(2)
    assert heard == [b"*1\r\n$4\r\nPING\r\n"]
    with pytest.raises(ProbeError, match="the socket does not exist"):
        redis_probe(redis.parse(f"unix://{tmp_path}/missing"))(2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"-NOAUTH Authentication required.\r\n", "authentication failed"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "the server is starting"),
        (b"-ERR something with hunter2\r\n", "the server answers with an error"),
        (b"HTTP/1.1 400 Bad Request\r\n", "the server answers with an error"),
    ],
)
def test_a_redis_that_answers_wrongly_is_not_ready(answer, reason):
    listener, _ = fake_redis(answer)
    with closing(listener), pytest.raises(ProbeError, match=reason) as caught:
        redis_probe(redis.parse(f"redis://127.0.0.1:{listener.getsockname()[1]}"))(2)
    assert "hunter2" not in str(caught.value) + caught.value.detail


SERVERS = [
    "postgresql://u:hunter2@127.0.0.1:{}/d",
    "mysql://u:hunter2@127.0.0.1:{}/d",
    "redis://:hunter2@127.0.0.1:{}/0",
]


def probe(url: str):
    return redis_probe(redis.parse(url)) if url.startswith("redis") else database_probe(parse(url))


@pytest.mark.parametrize("url", SERVERS)
def test_a_server_that_is_down_is_told_at_once(url, closed_port):
    started = time.monotonic()
    with pytest.raises(ProbeError, match=r"^connection refused$"):
        probe(url.format(closed_port))(5)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("url", SERVERS)
def test_a_server_that_hangs_is_given_up_in_time(url, silent_port):
    started = time.monotonic()
    with pytest.raises(ProbeError, match=r"^no answer within 0\.5 s$"):
        probe(url.format(silent_port))(0.5)
    assert 0.4 < time.monotonic() - started < 2


@pytest.mark.parametrize("url", SERVERS)
def test_an_unknown_host_is_told_as_such(url):
    with pytest.raises(ProbeError, match="the host name is unknown"):
        probe(url.replace("127.0.0.1:{}", "no-such-host.invalid"))(5)


def test_a_sqlite_file_is_read_but_never_created(tmp_path):
    file = tmp_path / "x.db"
    with pytest.raises(ProbeError, match="the file does not exist"):
        database_probe(parse(f"sqlite:///{file}"))(1)
    assert not file.exists()
    file.write_text("this is no database " * 100)
    with pytest.raises(ProbeError, match="cannot be read as a database"):
        database_probe(parse(f"sqlite:///{file}"))(1)
    file.unlink()
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("CREATE TABLE t (x)")
        writer.execute("BEGIN EXCLUSIVE")
        database_probe(parse(f"sqlite:///{file}"))(1)  # somebody writes: a sign of life


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_many_requests_at_once_ask_once():
    asked = []
    clock = Clock()

    def ask(_timeout: float) -> None:
        asked.append(1)
        time.sleep(0.1)

    health = Health([Component("database", "postgresql", ask), Component("redis")], 2, clock=clock)
    threads = [threading.Thread(target=health.checks) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    clock.now += 1.0
    assert {name: check.status for name, check in health.checks().items()} == {
        "database": "ok",
        "redis": "not_configured",
    }
    assert len(asked) == 2


def test_a_probe_that_hangs_is_not_started_again_beside_itself():
    asked = []
    release = threading.Event()

    def ask(_timeout: float) -> None:
        asked.append(1)
        assert release.wait(20)

    health = Health([Component("database", "postgresql", ask)], 0.1)
    for _ in range(3):
        started = time.monotonic()
        assert health.checks()["database"].error == "no answer within 0.1 s"
        assert time.monotonic() - started < 1
        health._checked_at = None
    assert len(asked) == 1
    release.set()


def test_a_driver_that_fails_unexpectedly_is_unready_and_tells_no_secret(caplog):
    def ask(_timeout: float) -> None:
        raise RuntimeError("password hunter2 is wrong")

    logging.getLogger("aapanel_runtime").propagate = True
    health = Health([Component("database", "mysql", ask)], 1, secrets=frozenset({"hunter2"}))
    assert health.checks()["database"].as_dict()["error"] == "the check failed (RuntimeError)"
    assert "password *** is wrong" in caplog.text
    health._checked_at = None
    health.checks()
    assert len(caplog.records) == 1, "a state is told once, not with every probe"
