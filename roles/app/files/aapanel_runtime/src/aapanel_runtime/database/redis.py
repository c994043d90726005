# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parses Redis URLs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

_CURE = "Use the form redis://:password@host:6379/0, rediss://… for TLS, or unix:///path/to.sock?db=0."


class RedisURLError(ValueError):
    """Raised for a Redis URL that cannot be parsed. The message quotes no part of the URL.

    :param what: what is wrong, as a sentence without its subject.
    """

    def __init__(self, what: str) -> None:
        """Build the message from both sentences, and keep each for the report."""
        super().__init__(f"{what} {_CURE}")
        self.what = what
        self.cure = _CURE


@dataclass(frozen=True)
class Redis:
    """The parts of a Redis URL.

    :param host: host name or IP address; the path of a unix socket.
    :param db: number of the database.
    :param options: query parameters of the URL.
    """

    host: str
    port: int = 6379
    user: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    tls: bool = False
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def display(self) -> str:
        """The URL for messages, without password."""
        if self.host.startswith("/"):
            return f"unix://{self.host}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        credentials = f"{self.user}:***@" if self.password else ""
        return f"{'rediss' if self.tls else 'redis'}://{credentials}{host}:{self.port}/{self.db}"


def parse(text: str) -> Redis:
    """Parse a ``redis://``, ``rediss://`` or ``unix://`` URL as redis-py does.

    :raises RedisURLError: *text* is not such a URL.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("redis", "rediss", "unix"):
        raise RedisURLError("is not a Redis URL.")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise RedisURLError("contains a space or a control character: percent-encode it.")
    try:
        parts = urlsplit(f"//{rest}")
        port, host = parts.port or 6379, unquote(parts.hostname or "")
    except ValueError:
        raise RedisURLError("has an invalid host or port: percent-encode the password.") from None
    if parts.fragment or "@" in parts.path or "@" in parts.query:
        raise RedisURLError("has an unencoded character in the password that ends it early: percent-encode it.")
    options = dict(parse_qsl(parts.query))
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if scheme.lower() == "unix":
        if not parts.path.startswith("/") or parts.path == "/":
            raise RedisURLError("has no socket path.")
        host, db = unquote(parts.path), options.get("db", "0")
    else:
        db = options.get("db") or parts.path.strip("/") or "0"
        host = host or "localhost"
    if not db.isdecimal():
        raise RedisURLError("has a database that is not a number.")
    password = options.pop("password", "") or password
    return Redis(host, port, user, password, int(db), scheme.lower() == "rediss", options)
