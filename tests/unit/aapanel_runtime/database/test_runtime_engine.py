# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SQLAlchemy engine of the settings, and the connections of SQLAlchemy's pools."""

from __future__ import annotations

import pytest
import sqlalchemy
from aapanel_runtime import get_settings
from aapanel_runtime.database import create_engine
from aapanel_runtime.database.pool import PoolWatch


def test_an_engine_has_the_pool_of_the_settings():
    settings = get_settings(
        "development", database_url="postgres://u:p%40ss@h/d", db_pool_size=3, db_max_overflow=4, db_pool_timeout=5
    )
    engine = create_engine(settings, pool_pre_ping=False)
    assert (engine.pool.size(), engine.pool._max_overflow, engine.pool._timeout) == (3, 4, 5)
    assert engine.url.password == "p@ss"
    assert create_engine(get_settings("development", db_engine="sqlite", db_name=":memory:")).connect().closed is False
    with pytest.raises(ValueError, match="DATABASE_URL"):
        create_engine(get_settings("development"))


class Recorder:
    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        self.value = value


def test_pools_are_counted_including_those_created_before(tmp_path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/x.db", poolclass=sqlalchemy.pool.QueuePool, pool_size=3)
    early = engine.connect()
    opened, busy = Recorder(), Recorder()
    watch = PoolWatch(opened, busy)
    assert watch.install()
    early.close()
    assert (opened.value, busy.value) == (0, 0), "an earlier connection must not make the count negative"
    first, second = engine.connect(), engine.connect()
    assert (opened.value, busy.value) == (2, 2)
    first.close()
    assert (opened.value, busy.value) == (2, 1)
    second.invalidate()
    second.close()
    assert busy.value == 0
    engine.dispose()
    assert opened.value == 0
