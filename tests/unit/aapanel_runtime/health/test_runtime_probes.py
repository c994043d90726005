# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes of servers that are down, hang, refuse or answer."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from socket import AF_UNIX, create_server, socket

import pytest
from aapanel_runtime.database import redis
from aapanel_runtime.database.url import parse
from aapanel_runtime.health.probes import ProbeError, database_probe, redis_probe


def fake_redis(answers: bytes, path: str | None = None) -> tuple[socket, list[bytes]]:
    """Start a server for one connection that sends *answers* and records the received data."""
    received: list[bytes] = []
    listener = socket(AF_UNIX) if path else create_server(("127.0.0.1", 0))
    if path:
        listener.bind(path)
        listener.listen()

    def serve() -> None:
        with closing(listener.accept()[0]) as connection:
            received.append(connection.recv(4096))
            for index in range(len(answers)):
                connection.sendall(answers[index : index + 1])
            connection.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    return listener, received


def test_redis_gets_user_and_password():
    listener, received = fake_redis(b"+OK\r\n+PONG\r\n")
    with closing(listener):
        redis_probe(redis.parse(f"redis://panel:p%20w@127.0.0.1:{listener.getsockname()[1]}/0"))(2)
    assert received == [b"*3\r\n$4\r\nAUTH\r\n$5\r\npanel\r\n$3\r\np w\r\n*1\r\n$4\r\nPING\r\n"]


def test_redis_is_reached_over_a_unix_socket(tmp_path):
    listener, received = fake_redis(b"+PONG\r\n", str(tmp_path / "r"))
    with closing(listener):
        redis_probe(redis.parse(f"unix://{tmp_path}/r"))(2)
    assert received == [b"*1\r\n$4\r\nPING\r\n"]
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
def test_an_error_of_redis_is_reported(answer, reason):
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
def test_a_server_that_is_down_is_reported_at_once(url, closed_port):
    started = time.monotonic()
    with pytest.raises(ProbeError, match=r"^connection refused$"):
        probe(url.format(closed_port))(5)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("url", SERVERS)
def test_a_server_that_hangs_is_reported_after_the_timeout(url, silent_port):
    started = time.monotonic()
    with pytest.raises(ProbeError, match=r"^no answer within 0\.5 s$"):
        probe(url.format(silent_port))(0.5)
    assert 0.4 < time.monotonic() - started < 2


@pytest.mark.parametrize("url", SERVERS)
def test_an_unknown_host_is_reported(url):
    with pytest.raises(ProbeError, match="the host name is unknown"):
        probe(url.replace("127.0.0.1:{}", "no-such-host.invalid"))(5)


def test_a_sqlite_file_is_read_but_not_created(tmp_path):
    file = tmp_path / "x.db"
    with pytest.raises(ProbeError, match="the file does not exist"):
        database_probe(parse(f"sqlite:///{file}"))(1)
    assert not file.exists()
    file.write_text("not a database " * 100)
    with pytest.raises(ProbeError, match="cannot be read as a database"):
        database_probe(parse(f"sqlite:///{file}"))(1)
    file.unlink()
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("CREATE TABLE t (x)")
        writer.execute("BEGIN EXCLUSIVE")
        database_probe(parse(f"sqlite:///{file}"))(1)  # a locked file counts as healthy
