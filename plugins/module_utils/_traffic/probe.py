# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Requests to a slot and through nginx, over unix sockets, TCP and TLS."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

READY = "/health/ready"
_TIMEOUT = 3.0  # seconds for one request; three in a row must end within ten
_BODY = 2000  # bytes to read of an answer
_SHOWN = 200  # characters of it to show in a message
_WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

_PLAIN = {"User-Agent": "panelctl", "Connection": "close"}

Connect = Callable[[], socket.socket]


@dataclass(frozen=True)
class Answer:
    """The answer to a request; without one, status 0 and the error as `text`."""

    status: int
    release: str | None = None
    slot: str | None = None
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether a health check passes: status 200."""
        return self.status == http.HTTPStatus.OK

    @property
    def upgraded(self) -> bool:
        """Whether a WebSocket was opened."""
        return self.status == http.HTTPStatus.SWITCHING_PROTOCOLS

    @property
    def broken(self) -> bool:
        """Whether the server failed: no answer, or status 500 and above."""
        return self.status == 0 or self.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR

    def __str__(self) -> str:
        if self.status == 0:
            return f"no answer ({self.text})"
        text = " ".join(self.text.split())
        shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
        return f"{self.status} from release {self.release} in slot {self.slot}: {shown or 'empty'}"


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket that the caller connects."""

    def __init__(self, host: str, connect: Connect) -> None:
        super().__init__(host, timeout=_TIMEOUT)
        self._connect = connect
        self._peer: socket.socket | None = None
        self.timed_out = False

    def connect(self) -> None:
        self.sock = self._peer = self._connect()

    def cut_off(self) -> None:
        """Shut the socket down while it is being read; http.client has no reference to it at that time."""
        self.timed_out = True
        if self._peer is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._peer, socket.SHUT_RDWR)


def tcp(host: str, port: int) -> Connect:
    """Return a function that connects to a TCP port. "Any address" is this machine, ip(7)."""
    return lambda: socket.create_connection((host, port), timeout=_TIMEOUT)


def unix(path: Path) -> Connect:
    """Return a function that connects to a unix socket."""

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(_TIMEOUT)
        try:
            client.connect(str(path))
        except OSError:
            client.close()
            raise
        return client

    return connect


def tls(connect: Connect, name: str) -> Connect:
    """Return a function that connects with TLS, to this host. The certificate is not verified; browsers do that."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return lambda: context.wrap_socket(connect(), server_hostname=name)


def get(connect: Connect, host: str, path: str) -> Answer:
    """Request one page. Never raises: a failure is an answer with status 0."""
    return _request(connect, host, path, _PLAIN)[0]


def through_edge(domain: str, http_port: int, https_port: int, path: str) -> Answer:
    """Request a page as a visitor would: over HTTP, and over HTTPS where nginx redirects to it."""
    answer, received = _request(tcp("127.0.0.1", http_port), domain, path, _PLAIN)
    if answer.status in (301, 302, 307, 308) and urlsplit(received.get("Location", "")).scheme == "https":
        return get(tls(tcp("127.0.0.1", https_port), domain), domain, path)
    return answer


def websocket(connect: Connect, host: str, path: str) -> Answer:
    """Open a WebSocket and close it (RFC 6455, section 4.1); status 101 if the handshake is correct."""
    key = base64.b64encode(os.urandom(16)).decode()
    wanted = base64.b64encode(hashlib.sha1((key + _WEBSOCKET_GUID).encode(), usedforsecurity=False).digest()).decode()
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        "Origin": f"http://{host}",
    }
    answer, received = _request(connect, host, path, headers)
    if answer.upgraded and received.get("Sec-WebSocket-Accept") != wanted:
        return Answer(0, text="the answer to the handshake has the digest of another key")
    return answer


def _request(
    connect: Connect, host: str, path: str, headers: Mapping[str, str]
) -> tuple[Answer, http.client.HTTPMessage]:
    """Send a request and wait at most `_TIMEOUT` for the whole answer; a socket's own timeout restarts at each byte."""
    try:
        with _connection(host, connect) as connection:
            connection.request("GET", path, headers=dict(headers))
            response = connection.getresponse()
            body = response.read(_BODY).decode("utf-8", "replace")
            if connection.timed_out:
                raise TimeoutError(f"the answer was incomplete after {_TIMEOUT:g} s")
            return Answer(
                response.status, response.getheader("X-Release"), response.getheader("X-Slot"), body
            ), response.headers
    # A name or a path that is invalid in HTTP is a ValueError.
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(0, text=str(error) or type(error).__name__), http.client.HTTPMessage()


@contextlib.contextmanager
def _connection(host: str, connect: Connect) -> Iterator[_Connection]:
    connection = _Connection(host, connect)
    guard = threading.Timer(_TIMEOUT, connection.cut_off)
    guard.daemon = True
    guard.start()
    try:
        yield connection
    finally:
        guard.cancel()
        connection.close()
