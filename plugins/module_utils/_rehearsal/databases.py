# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Which databases the settings of a panel name, as its runtime understands them, and the same settings with others."""

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
# Of what else an app asks, and both panels would.
_BROKERS = (
    *("redis", "rediss", "unix", "valkey", "valkeys", "sentinel", "memcache", "memcached", "mongodb"),
    *("amqp", "amqps", "pyamqp", "mqtt", "nats", "kafka", "sqs"),
)


class Server(NamedTuple):
    """Where a database is asked; *host* is a folder or a file where it listens on a unix socket."""

    host: str
    port: int


class Databases(NamedTuple):
    """What is named.

    :param names: of databases of a server, by the setting that has it.
    :param files: of databases that are files.
    """

    names: dict[str, str]
    files: list[Path]
    servers: list[Server]


def find(present: Mapping[str, str]) -> Databases:
    """Take the settings apart.

    :raises TrafficError: a setting cannot be understood; without its value, which may hold a password.
    """
    found = Databases({}, [], [])
    if url := present.get(_URL):
        _find_url(url, found)
    if name := present.get("DB_NAME"):
        engine = present.get("DB_ENGINE", "").lower()
        if engine in _FILES:
            found.files.append(Path(name))
        elif engine in _PORTS:
            found.names["DB_NAME"] = name
            port = present.get("DB_PORT", "")
            found.servers.append(Server(present.get("DB_HOST") or "127.0.0.1", int(port) if port else _PORTS[engine]))
        else:
            raise TrafficError("DB_ENGINE in the settings of the panel is none that a drill knows")
    return found


def replaced(present: Mapping[str, str], databases: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that name other databases of the same servers.

    :param databases: the other one for each present one.
    :raises TrafficError: there is none for one that is named.
    """
    given = {}
    for setting, name in find(present).names.items():
        if name not in databases:
            raise TrafficError(
                f"{setting} in the settings of the panel names no database that was restored: "
                "it would be the present one"
            )
        location, mark, query = present[setting].partition("?")
        base, slash, _ = location.rpartition("/")
        given[setting] = f"{base}{slash}{quote(databases[name])}{mark}{query}" if slash else databases[name]
    return given


def others(present: Mapping[str, str]) -> list[str]:
    """Return the settings that name a server beside the panel's database and Redis."""
    known = (_URL, "REDIS_URL")
    schemes = {name: value.partition("://")[0].lower() for name, value in present.items() if "://" in value}
    return [
        name
        for name, scheme in schemes.items()
        if name not in known and not {*_PORTS, *_BROKERS}.isdisjoint(re.split("[+-]", scheme))
    ]


def _find_url(url: str, found: Databases) -> None:
    scheme, _, rest = url.partition("://")
    dialect = scheme.lower().partition("+")[0]
    if dialect in _FILES:
        file = rest.partition("?")[0].removeprefix("/")
        if file.startswith("file:"):
            raise TrafficError(
                f"{_URL} in the settings of the panel is a URI of SQLite's, which a drill cannot replace"
            )
        found.files.append(Path(file))
        return
    if dialect not in _PORTS:
        raise TrafficError(f"{_URL} in the settings of the panel is of a kind that a drill does not know")
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port or _PORTS[dialect]
    except ValueError:
        raise TrafficError(f"{_URL} in the settings of the panel has a host or a port that cannot be read") from None
    options = parse_qs(parts.query)
    found.names[_URL] = unquote(parts.path.rpartition("/")[2])
    socket = options.get("host", options.get("unix_socket", [""]))[-1]
    found.servers.append(Server(socket or unquote(parts.hostname or "127.0.0.1"), port))
