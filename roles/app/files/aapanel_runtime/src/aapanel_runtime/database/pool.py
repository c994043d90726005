# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts the connections of SQLAlchemy's pools."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Protocol


class _Gauge(Protocol):
    def set(self, value: float) -> None: ...


class PoolWatch:
    """Counts the connections of all SQLAlchemy pools in this process.

    Connection records are kept in sets, because the first event of a record may be its check-in: a plain counter would
    then fall below zero.
    """

    def __init__(self, opened: _Gauge, checked_out: _Gauge) -> None:
        """Write the number of open and of checked-out connections to the two gauges."""
        self._opened = opened
        self._checked_out = checked_out
        self._records: set[int] = set()
        self._busy: set[int] = set()

    def install(self) -> bool:
        """Register listeners if the application has imported SQLAlchemy; return whether it has."""
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
