# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for the tests of the runtime."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from runtime_server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that the tests of a module share."""
    folder = tmp_path_factory.mktemp("gunicorn")
    (folder / "metrics").mkdir()
    (folder / "metrics" / "counter_w9.db").write_bytes(b"leftover of a killed process")
    running = Server(folder, HOME=str(folder), XDG_RUNTIME_DIR=str(folder))
    try:
        yield running.wait_until_up()
    finally:
        running.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server with the given settings."""
    started = []

    def run(**variables: str) -> Server:
        started.append(Server(tmp_path, **variables))
        return started[-1]

    yield run
    for each in started:
        each.stop()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a port that accepts connections but sends nothing, like a server that hangs."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=32)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """Return a port without a listener."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]
