# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Closing WebSockets without breaking frames."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest
from aapanel_runtime.serving.websockets import Registry, watch
from runtime_server import eventually

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
FRAME = b"\x81\x7f" + (4_000_000).to_bytes(8, "big") + b"x" * 4_000_000
CLOSE = b"\x88\x11\x03\xf4service restart"


class Worker:
    alive = True


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with closing(ours), closing(theirs):
        yield ours, theirs


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while received := connection.recv(1 << 20):
        data += received
    return data


def test_a_close_frame_is_not_sent_inside_another_frame(pair):
    ours, theirs = pair
    registry = Registry()
    wrapped = registry.wrap(ours)
    wrapped.send(UPGRADE)
    sender = threading.Thread(target=wrapped.send, args=(FRAME,))
    sender.start()
    eventually(wrapped._writing.locked)
    drain = threading.Thread(target=registry.drain, args=(0, 5))
    drain.start()
    data = b""
    while len(data) < len(UPGRADE + FRAME + CLOSE):
        data += theirs.recv(1 << 20)
    assert data == UPGRADE + FRAME + CLOSE
    assert wrapped.send(b"late") == 4
    registry.discard(wrapped)
    drain.join()
    ours.close()
    assert read_all(theirs) == b"", "the close frame must be the last frame"


def test_a_request_that_is_not_upgraded_is_not_closed(pair):
    ours, theirs = pair
    registry = Registry()
    wrapped = registry.wrap(ours)
    registry.drain(0, 0)
    wrapped.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    ours.close()
    assert read_all(theirs) == b"HTTP/1.1 403 Forbidden\r\n\r\n"


def test_a_websocket_that_opens_during_draining_is_closed(pair):
    ours, theirs = pair
    registry = Registry()
    wrapped = registry.wrap(ours)
    registry.drain(0, 0)
    wrapped.send(UPGRADE)
    assert theirs.recv(len(UPGRADE)) == UPGRADE
    assert theirs.recv(100) == CLOSE


def test_the_connection_of_a_client_that_does_not_answer_is_shut_down(pair):
    ours, theirs = pair
    registry = Registry()
    wrapped = registry.wrap(ours)
    wrapped.send(UPGRADE)
    worker = Worker()
    thread = watch(worker, 0.4, registry)
    worker.alive = False
    assert ours.recv(1) == b"", "the handler's read must return"
    thread.join(10)
    assert read_all(theirs) == UPGRADE + CLOSE


def test_the_wrapper_has_the_other_attributes_of_the_socket(pair):
    ours, _ = pair
    wrapped = Registry().wrap(ours)
    assert wrapped.fileno() == ours.fileno()
    assert wrapped.family == socket.AF_UNIX
    assert wrapped.recv == ours.recv
