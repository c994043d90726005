# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Closes WebSockets with code 1012 when their worker stops, so that browsers reconnect to another worker.

A WebSocket is a request that does not end. gunicorn waits for it until the graceful timeout, and then kills the worker:
no close frame is sent, the stop takes half a minute, and all clients reconnect at the same moment. gunicorn has no hook
for the start of a worker's stop, so the worker's ``alive`` flag is polled (``max_requests`` clears it too).

This works for each library that uses ``environ["gunicorn.socket"]``, such as flask-sock.
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

# RFC 6455, 5.2 and 5.5.1: FIN and opcode 8, unmasked length, code. 1012 is "Service Restart" in IANA's registry.
SERVICE_RESTART = 1012
_REASON = b"service restart"
_CLOSE_FRAME = struct.pack("!BBH", 0x88, 2 + len(_REASON), SERVICE_RESTART) + _REASON

_POLL_SECONDS = 0.2
# Close frames are spread over the jitter, and clients have the close timeout to answer. Both are shorter if the
# graceful timeout is short, because they must end before gunicorn kills the worker.
_JITTER_SECONDS = 2.0
_CLOSE_TIMEOUT_SECONDS = 3.0

# A worker with open WebSockets is replaced at the latest after this multiple of max_requests.
_RENEWAL_LIMIT = 10


class Worker(Protocol):
    """The attributes of gunicorn's worker that are used here."""

    alive: bool
    #: Requests so far, and the number at which the worker is replaced.
    nr: int
    max_requests: int


class WebSocket:
    """A connected socket that detects the upgrade to a WebSocket, and can send a close frame between two frames."""

    def __init__(self, connection: socket.socket, registry: Registry) -> None:
        """Wrap *connection*."""
        self._connection = connection
        self._registry = registry
        # Held during each write: a close frame must not be sent inside another frame.
        self._writing = threading.Lock()
        self._closing = False
        self.established = False
        self.finished = threading.Event()

    def __getattr__(self, name: str) -> object:
        """Return an attribute of the wrapped socket."""
        return getattr(self._connection, name)

    def send(self, data: bytes, flags: int = 0) -> int:
        """Send all of *data*, because libraries send a frame with one call."""
        self.sendall(data, flags)
        return len(data)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send *data*, or discard it after the close frame, which must be the last frame (RFC 6455, 5.5.1)."""
        with self._writing:
            if self._closing:
                return
            self._connection.sendall(data, flags)
            upgraded = not self.established and bytes(data[:12]) == b"HTTP/1.1 101"
            self.established = self.established or upgraded
        if upgraded:
            self._registry.on_upgrade(self)

    def send_close(self, delay: float) -> None:
        """Send the close frame after *delay* seconds, unless the request ends before."""
        if self.finished.wait(delay) or not self.established:
            return
        with self._writing:
            if self._closing:
                return
            self._closing = True
            with suppress(OSError):
                self._connection.sendall(_CLOSE_FRAME)

    def abort(self) -> None:
        """Shut down the connection of a client that does not answer, so that the application's read returns at once."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


class Registry:
    """The open WebSockets of this process."""

    def __init__(self) -> None:
        """Create an empty registry."""
        # Created before gevent patches locks, so no code may wait while it holds this lock.
        self._lock = threading.Lock()
        self._open: set[WebSocket] = set()
        self._jitter: float | None = None

    def wrap(self, connection: socket.socket) -> WebSocket:
        """Wrap the socket of an upgrade request, and register it until :meth:`discard`."""
        websocket = WebSocket(connection, self)
        with self._lock:
            self._open.add(websocket)
        return websocket

    def discard(self, websocket: WebSocket) -> None:
        """Remove a socket whose request has ended."""
        with self._lock:
            self._open.discard(websocket)
        websocket.finished.set()

    def established(self) -> list[WebSocket]:
        """Return the sockets that were upgraded to WebSockets."""
        with self._lock:
            return [websocket for websocket in self._open if websocket.established]

    def on_upgrade(self, websocket: WebSocket) -> None:
        """Close a new WebSocket if the registry is already draining."""
        if self._jitter is not None:
            self._close(websocket, self._jitter)

    def drain(self, jitter: float, close_timeout: float) -> None:
        """Close all WebSockets with code 1012, and abort those that do not answer.

        :param jitter: seconds over which the close frames are spread.
        :param close_timeout: additional seconds in which a client may answer.
        """
        self._jitter = jitter
        websockets = self.established()
        if websockets:
            _log.info("Closing %d WebSockets with code %d", len(websockets), SERVICE_RESTART)
        for websocket in websockets:
            self._close(websocket, jitter)
        end = time.monotonic() + jitter + close_timeout
        while self.established() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        for websocket in self.established():
            websocket.abort()

    @staticmethod
    def _close(websocket: WebSocket, jitter: float) -> None:
        # One thread (with gevent: one greenlet) for each, because a client that does not read blocks the write.
        delay = random.uniform(0, jitter)  # noqa: S311 - not for security
        threading.Thread(target=websocket.send_close, args=(delay,), daemon=True).start()


REGISTRY = Registry()


def postpone_renewal(worker: Worker, max_requests: int, registry: Registry = REGISTRY) -> None:
    """Postpone the replacement of a worker while it has open WebSockets.

    Otherwise the requests of other users would close a user's terminal. Call this before each request: the limit grows
    in steps of a tenth of *max_requests*, up to ten times *max_requests*, because a memory leak must end at some time.

    :param max_requests: configured limit; 0 means that workers are never replaced.
    """
    step = max(1, max_requests // 10)
    near = worker.max_requests - worker.nr <= step
    if max_requests and near and worker.nr < _RENEWAL_LIMIT * max_requests and registry.established():
        worker.max_requests = worker.nr + 2 * step


def watch(worker: Worker, graceful_timeout: float, registry: Registry = REGISTRY) -> threading.Thread:
    """Start a thread that drains *registry* when *worker* begins to stop.

    Call this in the worker after gevent has patched the standard library, so that the thread is a greenlet.

    :param graceful_timeout: seconds after which gunicorn kills the worker.
    """
    jitter = min(_JITTER_SECONDS, graceful_timeout / 4)
    close_timeout = min(_CLOSE_TIMEOUT_SECONDS, graceful_timeout / 4)

    def wait() -> None:
        while worker.alive:
            time.sleep(_POLL_SECONDS)
        registry.drain(jitter, close_timeout)

    thread = threading.Thread(target=wait, name="websocket-drain", daemon=True)
    thread.start()
    return thread
