# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables and the engine, in SQLAlchemy Core; compatible with 1.4 and 2.x."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, Row, make_url

from . import paths

NAMING = {  # Constraints need names, so that a later migration can drop them on every database.
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = sa.MetaData(naming_convention=NAMING)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("password_hash", sa.String(255), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)
items = sa.Table(
    "items",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("note", sa.Text, nullable=True),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, index=True),
    sa.Column("done", sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
)
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("item_id", sa.Integer, sa.ForeignKey("items.id", ondelete="SET NULL"), nullable=True),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)

_DRIVERS = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}


def url() -> URL:
    """Return the URL of the database.

    It is DATABASE_URL, or DB_ENGINE with DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASSWORD, or SQLite.

    :raises ValueError: for an engine without a driver in this app.
    """
    text = os.environ.get("DATABASE_URL")
    engine = os.environ.get("DB_ENGINE", "sqlite")
    if text:
        parsed = make_url(text)
        bare = {"postgres": "postgresql"}.get(parsed.drivername, parsed.drivername)
        return parsed.set(drivername=_DRIVERS.get(bare, bare))
    if engine == "sqlite":
        return URL.create("sqlite", database=os.environ.get("DB_NAME") or str(paths.DATA / "default.db"))
    if engine not in _DRIVERS:
        raise ValueError(f"DB_ENGINE={engine}: expected one of sqlite, {', '.join(_DRIVERS)}.")
    host: str | None = os.environ.get("DB_HOST") or "127.0.0.1"
    port = os.environ.get("DB_PORT")
    options = {}
    if host and host.startswith("/"):  # A unix socket, which each driver expects in another option.
        options = {"host" if engine == "postgresql" else "unix_socket": host}
        host = None if engine == "postgresql" else "localhost"
    return URL.create(
        _DRIVERS[engine],
        username=os.environ.get("DB_USER"),
        password=os.environ.get("DB_PASSWORD") or None,
        host=host,
        port=int(port) if port else None,
        database=os.environ.get("DB_NAME"),
        query=options,
    )


def connect(*, migrating: bool = False) -> Engine:
    """Return an engine for `url()`, which connects at the first query.

    :param migrating: whether SQLite does not enforce foreign keys. Alembic alters a table by copying and dropping it,
        and the drop would otherwise trigger the ON DELETE of all references to it.
    """
    address = url()
    if address.get_backend_name() != "sqlite":
        return sa.create_engine(
            address,
            future=True,
            pool_size=int(os.environ.get("DB_POOL_SIZE") or 5),
            max_overflow=int(os.environ.get("DB_MAX_OVERFLOW") or 10),
            pool_recycle=1800,  # Less than the idle timeouts of MySQL and firewalls.
            pool_pre_ping=True,  # After a restart of the server, reconnect instead of failing a request per connection.
        )
    engine = sa.create_engine(address, future=True, connect_args={"timeout": 10})

    @sa.event.listens_for(engine, "connect")
    def _tune(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")  # Readers are not blocked by a writer: both slots share the file.
        connection.execute(f"PRAGMA foreign_keys={'OFF' if migrating else 'ON'}")

    return engine


def insert(connection: Connection, table: sa.Table, values: dict[str, Any]) -> int:
    """Insert a row and return its ID."""
    key = connection.execute(sa.insert(table), values).inserted_primary_key
    if key is None:
        raise LookupError(f"{table.name}: the database returned no ID.")
    return int(key[0])


def now() -> datetime:
    """Return the current time in UTC, in whole seconds, because MySQL's DATETIME has no fractions."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def as_json(row: Row[Any]) -> dict[str, Any]:
    """Return a row as JSON types. SQLite and MySQL return times without a time zone; they are in UTC."""
    plain = dict(row._mapping)
    for key, value in plain.items():
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
            plain[key] = aware.astimezone(timezone.utc).isoformat()
    return plain
