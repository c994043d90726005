# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that a database or Redis answers, on a new connection and within a time limit.

All waits are on Python's sockets, so that gevent workers serve other requests meanwhile. psycopg2 waits inside libpq by
default, so it is used through its asynchronous interface.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import selectors
import socket
import sqlite3
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NoReturn
from urllib.parse import quote

from ..database.redis import Redis
from ..database.url import Database
from . import redis_ping

Probe = Callable[[float], None]

# Seconds to wait for a locked SQLite file. The wait blocks the whole process, and a locked file counts as healthy.
_SQLITE_LOCK_TIMEOUT = 0.1
_MYSQL_REASONS = {
    1040: "too many connections",
    1044: "access denied",
    1045: "authentication failed",
    1049: "the database does not exist",
    2013: "the connection was lost",
}
_POSTGRESQL_REASONS = (
    ("authentication failed", "authentication failed"),
    ("no password supplied", "authentication failed"),
    ("no pg_hba.conf entry", "access denied"),
    ("does not exist", "the database or the user does not exist"),
    ("too many", "too many connections"),
    ("remaining connection slots", "too many connections"),
    ("starting up", "the server is starting"),
    ("shutting down", "the server is stopping"),
    ("refused", "connection refused"),
    ("No such file", "the socket does not exist"),
    ("translate host name", "the host name is unknown"),
    ("closed the connection", "the connection was lost"),
)
_REDIS_REASONS = {
    "NOAUTH": "authentication failed",
    "WRONGPASS": "authentication failed",
    "LOADING": "the server is starting",
    "MASTERDOWN": "the replica has no connection to its master",
}


class ProbeError(Exception):
    """Raised if a server does not answer, or answers with an error.

    :param reason: short reason without host, user or password.
    :param detail: reason for the log, to be redacted.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Use *reason* as the message, and as *detail* if there is none."""
        super().__init__(reason)
        self.detail = detail or reason


def database_probe(database: Database) -> Probe:
    """Return a function that checks a database within the given seconds, and raises :class:`ProbeError`."""
    probes = {"postgresql": _probe_postgresql, "mysql": _probe_mysql, "sqlite": _probe_sqlite}
    probe = probes[database.kind]
    return lambda timeout: _explain_errors(lambda: probe(database, timeout), timeout)


def redis_probe(server: Redis) -> Probe:
    """Return a function that checks Redis within the given seconds, and raises :class:`ProbeError`."""

    def probe(timeout: float) -> None:
        try:
            redis_ping.ping(server, timeout)
        except redis_ping.RedisReplyError as error:
            raise ProbeError(_REDIS_REASONS.get(error.code, "the server answers with an error"), error.code) from error

    return lambda timeout: _explain_errors(lambda: probe(timeout), timeout)


def no_answer(timeout: float) -> str:
    """Return the reason of a probe that timed out."""
    return f"no answer within {timeout:g} s"


def _explain_errors(probe: Callable[[], None], timeout: float) -> None:
    """Run a probe, and raise errors of the operating system as :class:`ProbeError`."""
    try:
        probe()
    except ProbeError:
        raise
    except OSError as error:
        raise ProbeError(_os_reason(error, timeout), f"{type(error).__name__}: {error}") from error


def _os_reason(error: BaseException, timeout: float) -> str:
    for kind, reason in (
        (TimeoutError, no_answer(timeout)),
        (ConnectionRefusedError, "connection refused"),
        (ConnectionResetError, "the connection was lost"),
        (FileNotFoundError, "the socket does not exist"),
        (PermissionError, "permission denied"),
        (ssl.SSLError, "TLS failed"),
        (socket.gaierror, "the host name is unknown"),
    ):
        if isinstance(error, kind):
            return reason
    return "connection failed"


def _driver(module: str, extra: str) -> Any:  # noqa: ANN401 - drivers are optional and untyped
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = f"the driver {module} is not installed"
        raise ProbeError(reason, f"{reason}: install aapanel-runtime[{extra}]") from error


def _probe_postgresql(database: Database, timeout: float) -> None:
    psycopg2 = _driver("psycopg2", "postgresql")
    deadline = time.monotonic() + timeout
    parameters: dict[str, object] = {"dbname": database.name, **database.options, **_addresses(database)}
    if database.port is not None:
        parameters["port"] = database.port
    if database.user:
        parameters["user"] = database.user
    if database.password:
        parameters["password"] = database.password
    try:
        with closing(psycopg2.connect(**parameters, async_=1)) as connection:
            _wait(psycopg2, connection, deadline)
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            _wait(psycopg2, connection, deadline)
    except psycopg2.Error as error:
        text = str(error)
        reason = next((reason for sign, reason in _POSTGRESQL_REASONS if sign in text), "connection failed")
        raise ProbeError(reason, text) from error


def _addresses(database: Database) -> dict[str, str]:
    """Return the host parameters with resolved addresses, because libpq's own lookup blocks (see PQconnectStart)."""
    host = database.host
    if not host:
        return {}
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host.startswith("/") or "," in host or "hostaddr" in database.options:
            return {"host": host}
        found = socket.getaddrinfo(host, database.effective_port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        return {"host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses)}
    return {"host": host}


def _wait(psycopg2: Any, connection: Any, deadline: float) -> None:  # noqa: ANN401 - drivers are optional and untyped
    """Poll an asynchronous connection until it is idle, see "Asynchronous support" in psycopg2's manual."""
    events = {
        psycopg2.extensions.POLL_READ: selectors.EVENT_READ,
        psycopg2.extensions.POLL_WRITE: selectors.EVENT_WRITE,
    }
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        # Each poll may change the socket: libpq tries the next address.
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), events[state])
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not selector.select(remaining):
                raise TimeoutError


def _probe_mysql(database: Database, timeout: float) -> None:
    pymysql = _driver("pymysql", "mysql")
    parameters: dict[str, object] = {
        "database": database.name,
        "user": database.user or None,
        "password": database.password,
        "connect_timeout": timeout,
        "read_timeout": timeout,
        "write_timeout": timeout,
    }
    if database.host.startswith("/"):
        parameters["unix_socket"] = database.host
    else:
        parameters |= {"host": database.host or "localhost", "port": database.effective_port}
    # Like SQLAlchemy's dialect: ssl_ca, ssl_cert… of the URL become members of one argument.
    tls = {name[4:]: value for name, value in database.options.items() if name.startswith("ssl_")}
    if tls:
        parameters["ssl"] = tls
    try:
        with closing(pymysql.connect(**parameters)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()
    except pymysql.MySQLError as error:
        _raise_mysql(error, timeout)


def _raise_mysql(error: Exception, timeout: float) -> NoReturn:
    code = error.args[0] if error.args else None
    cause = getattr(error, "original_exception", None) or error.__context__
    reason = _MYSQL_REASONS.get(code) if isinstance(code, int) else None
    if isinstance(cause, OSError):
        reason = _os_reason(cause, timeout)
    raise ProbeError(reason or "connection failed", str(error)) from error


def _probe_sqlite(database: Database, timeout: float) -> None:
    if not database.name:
        return
    path = os.path.abspath(database.name)  # noqa: PTH100 - Path.resolve would follow links, SQLite does not
    if not os.path.exists(path):  # noqa: PTH110 - see above
        raise ProbeError("the file does not exist", f"{path} does not exist")
    try:
        # mode=rw: the probe must not create the file.
        with closing(
            sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=min(timeout, _SQLITE_LOCK_TIMEOUT))
        ) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        if "locked" in str(error):
            return
        raise ProbeError("the file cannot be read as a database", f"{path}: {error}") from error
