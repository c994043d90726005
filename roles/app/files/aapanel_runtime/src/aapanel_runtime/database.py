# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Database URLs, and an optional SQLAlchemy engine with the pool that the settings ask for.

SQLAlchemy is imported only by the functions that need it, so an application without it pays nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

if TYPE_CHECKING:
    from .settings import BaseSettings

Kind = Literal["postgresql", "mysql", "sqlite"]

KINDS: Mapping[str, Kind] = {
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "pgsql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
}
_DRIVERS: Mapping[Kind, str] = {"postgresql": "psycopg2", "mysql": "pymysql", "sqlite": ""}
_DEFAULT_PORTS: Mapping[Kind, int] = {"postgresql": 5432, "mysql": 3306, "sqlite": 0}
_ENCODE = "Percent-encode special characters of the password, or use DB_ENGINE, DB_HOST, DB_NAME, DB_USER, DB_PASSWORD."
_EXAMPLE = "Write it as postgresql://user:password@host:5432/name, mysql://…, or sqlite:////absolute/path.db."


class DatabaseURLError(ValueError):
    """A database URL cannot be understood. Neither text holds any part of the URL, which may hold the password."""

    def __init__(self, what: str, cure: str) -> None:
        """Keep the two sentences apart, for a report with both."""
        super().__init__(f"{what} {cure}")
        self.what = what
        self.cure = cure


@dataclass(frozen=True)
class Database:
    """A database, taken apart. ``host`` is a path where the server listens on a unix socket.

    For SQLite ``name`` is the path of the file, empty for a database in memory.
    """

    kind: Kind
    name: str
    host: str = ""
    port: int | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        """The URL for SQLAlchemy, with the password: every part quoted as RFC 3986, 2.1 asks."""
        return self._render(quote(self.password, safe=""))

    @property
    def display(self) -> str:
        """The URL for people: no password, no options (they may hold one)."""
        return self._render("***").partition("?")[0]

    def _render(self, password: str) -> str:
        driver = self.driver or _DRIVERS[self.kind]
        scheme = f"{self.kind}+{driver}" if driver else self.kind
        options = dict(self.options)
        if self.kind == "sqlite":
            location = f"/{self.name}" if self.name else ""
        else:
            user = quote(self.user, safe="")
            if self.password:
                user += f":{password}"
            host = self.host
            if host.startswith("/"):
                # The server's socket is no host of a URL: each driver takes it as an option.
                options["host" if self.kind == "postgresql" else "unix_socket"] = host
                host = "" if self.kind == "postgresql" else "localhost"
            elif ":" in host:
                host = f"[{host}]"
            if self.port is not None:
                if host:
                    host += f":{self.port}"
                elif self.kind == "postgresql":
                    options["port"] = str(self.port)
            location = f"{user}@{host}" if user else host
            location += f"/{quote(self.name, safe='')}"
        query = f"?{urlencode(options, quote_via=quote)}" if options else ""
        return f"{scheme}://{location}{query}"

    @property
    def effective_port(self) -> int:
        """The TCP port, or the server's usual one."""
        return self.port if self.port is not None else _DEFAULT_PORTS[self.kind]


def parse(text: str) -> Database:
    """Take a URL apart.

    Accepts the names that people use (``postgres://``, ``mariadb://``); a driver that is named stays named.

    Raises:
        DatabaseURLError: it is no such URL.
    """
    scheme, separator, rest = text.partition("://")
    dialect, _, driver = scheme.lower().partition("+")
    if not separator or dialect not in KINDS:
        raise DatabaseURLError("is not the URL of a PostgreSQL, MySQL or SQLite database.", _EXAMPLE)
    if any(character.isspace() or not character.isprintable() for character in text):
        raise DatabaseURLError("contains a space or a control character.", _ENCODE)
    kind = KINDS[dialect]
    if kind == "sqlite":
        return _parse_sqlite(rest, driver)
    return _parse_server(kind, rest, driver)


def _parse_sqlite(rest: str, driver: str) -> Database:
    location, _, query = rest.partition("?")
    if location and not location.startswith("/"):
        raise DatabaseURLError(
            "has a host, but SQLite is a file.",
            "Write sqlite:////absolute/path.db (four slashes), or sqlite:///relative.",
        )
    path = location[1:]
    return Database("sqlite", "" if path == ":memory:" else path, driver=driver, options=dict(parse_qsl(query)))


def _parse_server(kind: Kind, rest: str, driver: str) -> Database:
    # The texts of urlsplit's own errors quote what they choke on, so they stay inside.
    try:
        parts = urlsplit(f"//{rest}")
        port, host = parts.port, unquote(parts.hostname or "")
    except ValueError:
        raise DatabaseURLError("has a host or port that cannot be read.", _ENCODE) from None
    if parts.fragment or "#" in rest or "@" in parts.path or "@" in parts.query:
        raise DatabaseURLError("has an unescaped character that ends its password early.", _ENCODE)
    name = unquote(parts.path[1:])
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    socket_option = "host" if kind == "postgresql" else "unix_socket"
    if options.get(socket_option, "").startswith("/"):
        host = options.pop(socket_option)
        port = int(options.pop("port")) if kind == "postgresql" and options.get("port", "").isdecimal() else port
    if not name:
        raise DatabaseURLError("does not name a database.", _EXAMPLE)
    return Database(
        kind,
        name,
        host=host,
        port=port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        driver=driver or _DRIVERS[kind],
        options=options,
    )


def create_engine(settings: BaseSettings, **options: object) -> Any:  # noqa: ANN401 - SQLAlchemy is optional, so is its type
    """Return a SQLAlchemy engine (1.4 or 2.x) with the pool of ``DB_POOL_*``.

    ``options`` go to ``sqlalchemy.create_engine`` and win over the settings.

    Raises:
        ImportError: SQLAlchemy is not installed.
        ValueError: no database is configured.
    """
    database = settings.database
    if database is None:
        raise ValueError("No database is configured: set DATABASE_URL, or DB_ENGINE, DB_NAME and friends.")
    sqlalchemy = importlib.import_module("sqlalchemy")
    pool: dict[str, object] = {}
    if database.kind != "sqlite":
        pool = {
            "pool_size": settings.db_pool_size,
            "max_overflow": settings.db_max_overflow,
            "pool_timeout": settings.db_pool_timeout,
            "pool_recycle": settings.db_pool_recycle,
            "pool_pre_ping": settings.db_pool_pre_ping,
        }
    return sqlalchemy.create_engine(database.url, **{**pool, **options})


class _Gauge(Protocol):
    def set(self, value: float) -> None: ...


class PoolWatch:
    """Counts the connections of every SQLAlchemy pool in this process, whoever made it.

    Counted as sets of connection records, because a record can be seen first at its checkin: a plain counter would
    fall below zero.
    """

    def __init__(self, opened: _Gauge, checked_out: _Gauge) -> None:
        """Report to the two gauges."""
        self._opened = opened
        self._checked_out = checked_out
        self._records: set[int] = set()
        self._busy: set[int] = set()

    def install(self) -> bool:
        """Listen to the pools, if the application has imported SQLAlchemy. Tells whether it has."""
        if "sqlalchemy.pool" not in sys.modules:
            return False
        event = importlib.import_module("sqlalchemy.event")
        pool = sys.modules["sqlalchemy.pool"].Pool
        listeners: dict[str, Callable[..., None]] = {
            "connect": self._connect,
            "checkout": self._checkout,
            "checkin": self._checkin,
            "close": self._close,
            "detach": self._close,
        }
        for name, listener in listeners.items():
            event.listen(pool, name, listener)
        return True

    def _connect(self, _connection: object, record: object) -> None:
        self._records.add(id(record))
        self._report()

    def _checkout(self, _connection: object, record: object, _proxy: object) -> None:
        self._records.add(id(record))
        self._busy.add(id(record))
        self._report()

    def _checkin(self, _connection: object, record: object) -> None:
        self._busy.discard(id(record))
        self._report()

    def _close(self, _connection: object, record: object) -> None:
        self._records.discard(id(record))
        self._busy.discard(id(record))
        self._report()

    def _report(self) -> None:
        self._opened.set(len(self._records))
        self._checked_out.set(len(self._busy))
