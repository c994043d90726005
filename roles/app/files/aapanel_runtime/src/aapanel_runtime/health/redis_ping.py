# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends PING to Redis without a client library.

The application pins its own Redis client, so the runtime must not bring another version. The two commands that a probe
needs are few lines, and their total time can be limited exactly.
Protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import closing

from ..database.redis import Redis


class RedisReplyError(Exception):
    """Raised if Redis answers with an error.

    :param code: first word of the answer (``NOAUTH``, ``LOADING``…).
    """

    def __init__(self, code: str) -> None:
        """Keep only the code: the rest of the answer may quote the password."""
        super().__init__(code)
        self.code = code


def ping(server: Redis, timeout: float) -> None:
    """Send PING and wait for the answer.

    :param timeout: limit for connecting, sending and receiving together, in seconds.
    :raises OSError: the server cannot be reached, or does not answer in time (``TimeoutError``).
    :raises RedisReplyError: the server answers with an error.
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
