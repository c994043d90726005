# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says goodbye to WebSockets when their worker stops: close code 1012, so that browsers reconnect to another worker.

A WebSocket is a request that never ends. gunicorn lets it run until the graceful timeout is over and then kills the
worker: no close frame, a stop that takes half a minute, and every client back in the same moment. No hook of gunicorn
fires when a worker begins to stop, so its ``alive`` flag is watched (it also falls when ``max_requests`` is reached).

Works for every library that speaks WebSocket over ``environ["gunicorn.socket"]``, such as flask-sock.
"""

from __future__ import annotations

import logging
import random
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Protocol

_log = logging.getLogger(__name__)

# RFC 6455, 5.2 and 5.5.1: FIN and opcode 8, an unmasked length, the code. 1012 is "Service Restart" in IANA's registry.
SERVICE_RESTART = 1012
_REASON = b"service restart"
_CLOSE_FRAME = struct.pack("!BBH", 0x88, 2 + len(_REASON), SERVICE_RESTART) + _REASON

_WATCH_SECONDS = 0.2
# Reconnects are spread over this time, and a client may take this long to answer the close frame. Both shrink when the
# graceful timeout is short: they must be over before gunicorn kills the worker.
_JITTER_SECONDS = 2.0
_PATIENCE_SECONDS = 3.0

# How many times max_requests a worker may serve while it has open WebSockets.
_RENEWAL_LIMIT = 10


class Worker(Protocol):
    """What is used of gunicorn's worker."""

    alive: bool
    #: Requests so far, and at which number it is renewed.
    nr: int
    max_requests: int


class WebSocket:
    """A connected socket that knows whether it has become a WebSocket, and can close it between two frames."""

    def __init__(self, connection: socket.socket, registry: Registry) -> None:
        """Stand in for ``connection``."""
        self._connection = connection
        self._registry = registry
        # Held while something is written: a close frame must never land inside another frame.
        self._writing = threading.Lock()
        self._closing = False
        self.established = False
        self.finished = threading.Event()

    def __getattr__(self, name: str) -> object:
        """Be the socket in all other respects."""
        return getattr(self._connection, name)

    def send(self, data: bytes, flags: int = 0) -> int:
        """Send all of ``data``; libraries count on one call for one frame."""
        self.sendall(data, flags)
        return len(data)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send all of ``data``, or drop it when the close frame is out: nothing may follow it (RFC 6455, 5.5.1)."""
        with self._writing:
            if self._closing:
                return
            self._connection.sendall(data, flags)
            became = not self.established and bytes(data[:12]) == b"HTTP/1.1 101"
            self.established = self.established or became
        if became:
            self._registry.greet(self)

    def say_goodbye(self, delay: float) -> None:
        """Send the close frame after ``delay`` seconds."""
        if self.finished.wait(delay) or not self.established:
            return
        with self._writing:
            if self._closing:
                return
            self._closing = True
            with suppress(OSError):
                self._connection.sendall(_CLOSE_FRAME)

    def cut(self) -> None:
        """End the connection of a client that does not answer: the application's read returns at once."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


class Registry:
    """The open WebSockets of this process."""

    def __init__(self) -> None:
        """Begin with none."""
        # Made before gevent patches locks, so nothing may wait while holding it.
        self._lock = threading.Lock()
        self._open: set[WebSocket] = set()
        self._jitter: float | None = None

    def wrap(self, connection: socket.socket) -> WebSocket:
        """Return a stand-in for the socket of an upgrade request, and keep it until :meth:`discard`."""
        websocket = WebSocket(connection, self)
        with self._lock:
            self._open.add(websocket)
        return websocket

    def discard(self, websocket: WebSocket) -> None:
        """Forget a socket whose request has ended."""
        with self._lock:
            self._open.discard(websocket)
        websocket.finished.set()

    def established(self) -> list[WebSocket]:
        """Return the sockets that have become WebSockets."""
        with self._lock:
            return [websocket for websocket in self._open if websocket.established]

    def greet(self, websocket: WebSocket) -> None:
        """Take note of a new WebSocket: one that comes while we drain is sent away too."""
        if self._jitter is not None:
            self._dismiss(websocket, self._jitter)

    def drain(self, jitter: float, patience: float) -> None:
        """Close all WebSockets with 1012 within ``jitter`` seconds, and cut those that stay ``patience`` longer."""
        self._jitter = jitter
        leaving = self.established()
        if leaving:
            _log.info("closing %d WebSockets with code %d", len(leaving), SERVICE_RESTART)
        for websocket in leaving:
            self._dismiss(websocket, jitter)
        end = time.monotonic() + jitter + patience
        while self.established() and time.monotonic() < end:
            time.sleep(_WATCH_SECONDS)
        for websocket in self.established():
            websocket.cut()

    @staticmethod
    def _dismiss(websocket: WebSocket, jitter: float) -> None:
        # One thread (under gevent: one greenlet) each, because a client that does not read blocks the write.
        delay = random.uniform(0, jitter)  # noqa: S311 - spreads load, hides nothing
        threading.Thread(target=websocket.say_goodbye, args=(delay,), daemon=True).start()


REGISTRY = Registry()


def put_off_renewal(worker: Worker, max_requests: int, registry: Registry = REGISTRY) -> None:
    """Let ``worker`` serve on while it has open WebSockets: a renewal would close a terminal for what others ask.

    Call it before each request. Put off in steps of a tenth of ``max_requests``, and up to ten times as many requests
    in all: whatever leaks in a worker must end at some time. 0 is "never renewed", as in gunicorn's settings.
    """
    step = max(1, max_requests // 10)
    near = worker.max_requests - worker.nr <= step
    if max_requests and near and worker.nr < _RENEWAL_LIMIT * max_requests and registry.established():
        worker.max_requests = worker.nr + 2 * step


def watch(worker: Worker, graceful_timeout: float, registry: Registry = REGISTRY) -> threading.Thread:
    """Drain ``registry`` as soon as ``worker`` begins to stop.

    Call it in the worker, after gevent has patched the standard library: the thread is a greenlet then.
    """
    jitter = min(_JITTER_SECONDS, graceful_timeout / 4)
    patience = min(_PATIENCE_SECONDS, graceful_timeout / 4)

    def wait() -> None:
        while worker.alive:
            time.sleep(_WATCH_SECONDS)
        registry.drain(jitter, patience)

    thread = threading.Thread(target=wait, name="websocket-drain", daemon=True)
    thread.start()
    return thread
