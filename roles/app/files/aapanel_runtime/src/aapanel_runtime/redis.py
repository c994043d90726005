# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis URLs, and a PING that needs no client library.

The application pins a Redis client of its own choice. Two commands of the protocol are less than a second opinion
about its version, and can be bounded in time exactly. Protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

_CURE = "Write it as redis://:password@host:6379/0, rediss://… for TLS, or unix:///path/to.sock?db=0."


class RedisURLError(ValueError):
    """A Redis URL cannot be understood. Neither text holds any part of the URL."""

    def __init__(self, what: str) -> None:
        """Keep the two sentences apart, for a report with both."""
        super().__init__(f"{what} {_CURE}")
        self.what = what
        self.cure = _CURE


class RedisReplyError(Exception):
    """Redis answered with an error. ``code`` is its first word (``NOAUTH``, ``LOADING``…)."""

    def __init__(self, code: str) -> None:
        """Keep the code; the rest of an answer may repeat what was sent."""
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Redis:
    """A Redis server, taken apart. ``host`` is a path for a unix socket."""

    host: str
    port: int = 6379
    user: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    tls: bool = False
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def display(self) -> str:
        """The URL for people: no password."""
        if self.host.startswith("/"):
            return f"unix://{self.host}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        credentials = f"{self.user}:***@" if self.password else ""
        return f"{'rediss' if self.tls else 'redis'}://{credentials}{host}:{self.port}/{self.db}"


def parse(text: str) -> Redis:
    """Take a ``redis://``, ``rediss://`` or ``unix://`` URL apart, as redis-py does.

    Raises:
        RedisURLError: it is no such URL.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("redis", "rediss", "unix"):
        raise RedisURLError("is not the URL of a Redis server.")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise RedisURLError("contains a space or a control character: percent-encode it.")
    try:
        parts = urlsplit(f"//{rest}")
        port, host = parts.port or 6379, unquote(parts.hostname or "")
    except ValueError:
        raise RedisURLError("has a host or port that cannot be read: percent-encode the password.") from None
    if parts.fragment or "@" in parts.path or "@" in parts.query:
        raise RedisURLError("has an unescaped character that ends its password early: percent-encode it.")
    options = dict(parse_qsl(parts.query))
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if scheme.lower() == "unix":
        if not parts.path.startswith("/") or parts.path == "/":
            raise RedisURLError("does not name a socket.")
        host, db = unquote(parts.path), options.get("db", "0")
    else:
        db = options.get("db") or parts.path.strip("/") or "0"
        host = host or "localhost"
    if not db.isdecimal():
        raise RedisURLError("does not end with the number of a database.")
    password = options.pop("password", "") or password
    return Redis(host, port, user, password, int(db), scheme.lower() == "rediss", options)


def ping(server: Redis, timeout: float) -> None:
    """Ask a server for PONG, in ``timeout`` seconds altogether.

    Raises:
        OSError: it cannot be reached, or does not answer in time (``TimeoutError``).
        RedisReplyError: it answers, but not with PONG.
    """
    deadline = time.monotonic() + timeout
    commands: list[tuple[str, ...]] = []
    if server.password:
        commands.append(("AUTH", server.user, server.password) if server.user else ("AUTH", server.password))
    commands.append(("PING",))
    with closing(_connect(server, timeout)) as connection:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        connection.sendall(b"".join(_encode(command) for command in commands))
        answers = b""
        while answers.count(b"\r\n") < len(commands):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection.settimeout(remaining)
            received = connection.recv(4096)
            if not received:
                raise ConnectionResetError("Redis closed the connection")
            answers += received
    for line in answers.split(b"\r\n")[: len(commands)]:
        if not line.startswith(b"+"):
            raise RedisReplyError(line[1:].split(b" ")[0].decode("ascii", "replace") or "no answer")


def _connect(server: Redis, timeout: float) -> socket.socket:
    if server.host.startswith("/"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(server.host)
        except OSError:
            connection.close()
            raise
        return connection
    connection = socket.create_connection((server.host, server.port), timeout)
    if not server.tls:
        return connection
    try:
        context = ssl.create_default_context(cafile=server.options.get("ssl_ca_certs"))
        if server.options.get("ssl_cert_reqs", "required").lower() == "none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(connection, server_hostname=server.host)
    except (OSError, ValueError):
        connection.close()
        raise


def _encode(command: tuple[str, ...]) -> bytes:
    parts = [f"*{len(command)}\r\n".encode()]
    for word in command:
        data = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
