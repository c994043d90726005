# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates a SQLAlchemy engine from the settings."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from .url import Database


class EngineSettings(Protocol):
    """The settings that an engine needs. :class:`aapanel_runtime.BaseSettings` has them."""

    @property
    def database(self) -> Database | None:
        """The configured database, or None."""

    @property
    def db_pool_size(self) -> int:
        """Connections that the pool keeps open."""

    @property
    def db_max_overflow(self) -> int:
        """Additional connections under load."""

    @property
    def db_pool_timeout(self) -> float:
        """Seconds to wait for a free connection."""

    @property
    def db_pool_recycle(self) -> int:
        """Age in seconds at which a connection is replaced; -1 means never."""

    @property
    def db_pool_pre_ping(self) -> bool:
        """Whether to test a connection before each use."""


def create_engine(settings: EngineSettings, **options: object) -> Any:  # noqa: ANN401 - SQLAlchemy is optional, so is its type
    """Return a SQLAlchemy engine (1.4 or 2.x) with the pool of ``DB_POOL_*``.

    SQLAlchemy is imported here, so that an application without it does not need it.

    :param options: arguments for ``sqlalchemy.create_engine``; they override the settings.
    :raises ImportError: SQLAlchemy is not installed.
    :raises ValueError: no database is configured.
    """
    database = settings.database
    if database is None:
        raise ValueError(
            "No database is configured. Set DATABASE_URL, or DB_ENGINE, DB_NAME and the other DB_* variables."
        )
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
