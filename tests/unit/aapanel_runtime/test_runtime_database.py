# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Database and Redis URLs: whatever the password, SQLAlchemy must read back what was meant."""

from __future__ import annotations

import pytest
import sqlalchemy
from aapanel_runtime import get_settings
from aapanel_runtime import redis as runtime_redis
from aapanel_runtime.database import Database, DatabaseURLError, PoolWatch, create_engine, parse
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20)
HOST = st.sampled_from(["127.0.0.1", "db.example.com", "::1", "/run/postgresql"])


DATABASE = st.builds(
    Database, st.sampled_from(["postgresql", "mysql"]), TEXT, HOST, st.none() | st.integers(1, 65535), TEXT, TEXT
)


@given(DATABASE)
def test_parts_become_a_url_that_sqlalchemy_reads_back(database):
    kind, name, host, port = database.kind, database.name, database.host, database.port
    user, password = database.user, database.password
    url = make_url(database.url)
    assert (url.username, url.password) == (user, password)
    assert url.drivername == {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql"}[kind]
    if host.startswith("/"):
        assert url.query["host" if kind == "postgresql" else "unix_socket"] == host
    else:
        assert (url.host, url.port) == (host, port)
    again = parse(database.url)
    assert (again.name, again.user, again.password, again.host) == (name, user, password, host)
    assert parse(again.url).url == again.url


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("postgresql://u@h:5433/d?sslmode=require", "postgresql+psycopg2://u@h:5433/d?sslmode=require"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql:///d?host=/run/pg", "postgresql+psycopg2:///d?host=%2Frun%2Fpg"),
        ("mysql://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        ("mariadb://u:p@h:3307/d?charset=utf8mb4", "mysql+pymysql://u:p@h:3307/d?charset=utf8mb4"),
        ("postgres://u:p@ss@h/d", "postgresql+psycopg2://u:p%40ss@h/d"),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
        ("sqlite:///data/x.db", "sqlite:///data/x.db"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite://"),
    ],
)
def test_urls_that_people_write_become_ones_that_sqlalchemy_knows(given_url, normal):
    assert parse(given_url).url == normal
    make_url(normal)


@pytest.mark.parametrize(
    "bad",
    [
        "", "hunter2", "hunter2://u:p@h/d", "postgres://u:hunter2/x@h/d", "postgres://u:hunter2#@h/d",
        "postgres://u:hunter2?@h/d", "postgres://u:hunter2@h", "postgres://u:p@h:hunter2/d", "postgres://u:[hunter2@h/d",
        "postgres://u:hunt er2@h/d", "sqlite://hunter2/x",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_read_is_refused_without_quoting_it(bad):
    with pytest.raises(DatabaseURLError) as caught:
        parse(bad)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_display_holds_no_password_and_no_options():
    database = parse("postgresql://panel:hunter2@h:5433/d?sslpassword=hunter2")
    assert database.display == "postgresql+psycopg2://panel:***@h:5433/d"
    assert "hunter2" not in repr(database)


@pytest.mark.parametrize(
    ("url", "display"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://:p@h:1/2", "redis://:***@h:1/2"),
        ("rediss://u:p@[::1]/", "rediss://u:***@[::1]:6379/0"),
        ("redis://h/0?db=3", "redis://h:6379/3"),
        ("unix:///run/redis.sock?db=1&password=p", "unix:///run/redis.sock?db=1"),
    ],
)
def test_redis_urls_are_read_as_redis_py_reads_them(url, display):
    assert runtime_redis.parse(url).display == display


@pytest.mark.parametrize(
    "url", ["h:6379", "http://h", "redis://h/hunter2", "redis://:hunter2/@h/0", "unix://", "redis://:a b@h"]
)
def test_a_redis_url_that_cannot_be_read_is_refused_without_quoting_it(url):
    with pytest.raises(runtime_redis.RedisURLError) as caught:
        runtime_redis.parse(url)
    assert "hunter2" not in str(caught.value)


def test_the_engine_has_the_pool_of_the_settings():
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


def test_pools_are_counted_also_those_made_before_the_watch(tmp_path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/x.db", poolclass=sqlalchemy.pool.QueuePool, pool_size=3)
    early = engine.connect()
    opened, busy = Recorder(), Recorder()
    watch = PoolWatch(opened, busy)
    assert watch.install()
    early.close()
    assert (opened.value, busy.value) == (0, 0), "a connection from before must not be counted below zero"
    first, second = engine.connect(), engine.connect()
    assert (opened.value, busy.value) == (2, 2)
    first.close()
    assert (opened.value, busy.value) == (2, 1)
    second.invalidate()
    second.close()
    assert busy.value == 0
    engine.dispose()
    assert opened.value == 0
