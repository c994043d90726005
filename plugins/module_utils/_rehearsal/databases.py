# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Find the databases in the settings of a panel, as its runtime reads them, and replace them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .._traffic.errors import TrafficError

_URL = "DATABASE_URL"
_PORTS = {"postgres": 5432, "postgresql": 5432, "pgsql": 5432, "mysql": 3306, "mariadb": 3306}
_FILES = ("sqlite", "sqlite3")
# Schemes of other servers, which the panel and its rehearsal would share.
_BROKERS = (
    *("redis", "rediss", "unix", "valkey", "valkeys", "sentinel", "memcache", "memcached", "mongodb"),
    *("amqp", "amqps", "pyamqp", "mqtt", "nats", "kafka", "sqs"),
)


class Server(NamedTuple):
    """The address of a database server.

    :param host: a name, an address, or the path of a unix socket or its directory.
    """

    host: str
    port: int


class Databases(NamedTuple):
    """The databases in the settings of a panel.

    :param names: names of databases on a server, by setting.
    :param files: SQLite files.
    :param servers: the servers of `names`.
    """

    names: dict[str, str]
    files: list[Path]
    servers: list[Server]


def find(settings: Mapping[str, str]) -> Databases:
    """Return the databases in the settings.

    :raises TrafficError: a setting is invalid; without its value, which may contain a password.
    """
    found = Databases({}, [], [])
    if url := settings.get(_URL):
        _find_url(url, found)
    if name := settings.get("DB_NAME"):
        engine = settings.get("DB_ENGINE", "").lower()
        if engine in _FILES:
            found.files.append(Path(name))
        elif engine in _PORTS:
            found.names["DB_NAME"] = name
            port = settings.get("DB_PORT", "")
            found.servers.append(Server(settings.get("DB_HOST") or "127.0.0.1", int(port) if port else _PORTS[engine]))
        else:
            raise TrafficError("a drill does not support the DB_ENGINE in the settings of the panel")
    return found


def replace(settings: Mapping[str, str], databases: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that name databases, with other databases on the same servers.

    :param databases: the replacement of each database.
    :raises TrafficError: a database has no replacement.
    """
    replaced = {}
    for setting, name in find(settings).names.items():
        if name not in databases:
            raise TrafficError(
                f"{setting} in the settings of the panel names a database that was not restored: "
                "the rehearsal would use the live database"
            )
        location, mark, query = settings[setting].partition("?")
        base, slash, _name = location.rpartition("/")
        replaced[setting] = f"{base}{slash}{quote(databases[name])}{mark}{query}" if slash else databases[name]
    return replaced


def other_servers(settings: Mapping[str, str]) -> list[str]:
    """Return the settings that name a server other than the panel's database and Redis."""
    known = (_URL, "REDIS_URL")
    schemes = {name: value.partition("://")[0].lower() for name, value in settings.items() if "://" in value}
    return [
        name
        for name, scheme in schemes.items()
        if name not in known and not {*_PORTS, *_BROKERS}.isdisjoint(re.split("[+-]", scheme))
    ]


def _find_url(url: str, found: Databases) -> None:
    scheme, _separator, rest = url.partition("://")
    dialect = scheme.lower().partition("+")[0]
    if dialect in _FILES:
        file = rest.partition("?")[0].removeprefix("/")
        if file.startswith("file:"):
            raise TrafficError(f"{_URL} in the settings of the panel is an SQLite URI, which a drill does not support")
        found.files.append(Path(file))
        return
    if dialect not in _PORTS:
        raise TrafficError(f"a drill does not support the kind of database in {_URL} in the settings of the panel")
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port or _PORTS[dialect]
    except ValueError:
        raise TrafficError(f"{_URL} in the settings of the panel has an invalid host or port") from None
    options = parse_qs(parts.query)
    found.names[_URL] = unquote(parts.path.rpartition("/")[2])
    socket = options.get("host", options.get("unix_socket", [""]))[-1]
    found.servers.append(Server(socket or unquote(parts.hostname or "127.0.0.1"), port))
