# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parses and renders database URLs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

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
_ENCODE = (
    "Percent-encode the special characters of the password, or use DB_ENGINE, DB_HOST, DB_NAME, DB_USER, DB_PASSWORD."
)
_EXAMPLE = "Use the form postgresql://user:password@host:5432/name, mysql://…, or sqlite:////absolute/path.db."


class DatabaseURLError(ValueError):
    """Raised for a database URL that cannot be parsed.

    The message quotes no part of the URL, because any part may hold the password.

    :param what: what is wrong, as a sentence without its subject.
    :param cure: what to do, as a sentence.
    """

    def __init__(self, what: str, cure: str) -> None:
        """Build the message from both sentences, and keep each for the report."""
        super().__init__(f"{what} {cure}")
        self.what = what
        self.cure = cure


@dataclass(frozen=True)
class Database:
    """The parts of a database URL.

    :param name: name of the database; for SQLite the path of its file, empty for an in-memory database.
    :param host: host name or IP address; a path if the server listens on a unix socket.
    :param port: TCP port; None for the default port of the server.
    :param driver: SQLAlchemy driver; empty for the default driver of *kind*.
    :param options: query parameters of the URL.
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
        """The URL for SQLAlchemy, including the password. Each part is percent-encoded (RFC 3986, 2.1)."""
        return self._render(quote(self.password, safe=""))

    @property
    def display(self) -> str:
        """The URL for messages: without password, and without options, which may hold a password too."""
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
                # A URL cannot hold a path as host, so each driver takes the socket as an option.
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
        """The TCP port, or the default port of the server."""
        return self.port if self.port is not None else _DEFAULT_PORTS[self.kind]


def parse(text: str) -> Database:
    """Parse a database URL.

    Accepts the usual aliases of a scheme (``postgres://``, ``mariadb://``) and keeps an explicit driver.

    :raises DatabaseURLError: *text* is not a PostgreSQL, MySQL or SQLite URL.
    """
    scheme, separator, rest = text.partition("://")
    dialect, _, driver = scheme.lower().partition("+")
    if not separator or dialect not in KINDS:
        raise DatabaseURLError("is not a PostgreSQL, MySQL or SQLite URL.", _EXAMPLE)
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
            "has a host, but SQLite uses a file.",
            "Use sqlite:////absolute/path.db (four slashes) or sqlite:///relative.",
        )
    path = location[1:]
    return Database("sqlite", "" if path == ":memory:" else path, driver=driver, options=dict(parse_qsl(query)))


def _parse_server(kind: Kind, rest: str, driver: str) -> Database:
    # The errors of urlsplit quote the part that they cannot parse, so they must not reach a message.
    try:
        parts = urlsplit(f"//{rest}")
        port, host = parts.port, unquote(parts.hostname or "")
    except ValueError:
        raise DatabaseURLError("has an invalid host or port.", _ENCODE) from None
    if parts.fragment or "#" in rest or "@" in parts.path or "@" in parts.query:
        raise DatabaseURLError("has an unencoded character in the password that ends it early.", _ENCODE)
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
