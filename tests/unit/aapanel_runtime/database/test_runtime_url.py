# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Database URLs: SQLAlchemy must read them back for any password."""

from __future__ import annotations

import pytest
from aapanel_runtime.database.url import Database, DatabaseURLError, parse
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20)
HOST = st.sampled_from(["127.0.0.1", "db.example.com", "::1", "/run/postgresql"])


DATABASE = st.builds(
    Database, st.sampled_from(["postgresql", "mysql"]), TEXT, HOST, st.none() | st.integers(1, 65535), TEXT, TEXT
)


@given(DATABASE)
def test_sqlalchemy_reads_a_rendered_url_back(database):
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
    ("given_url", "normalized"),
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
def test_aliases_become_urls_of_sqlalchemy(given_url, normalized):
    assert parse(given_url).url == normalized
    make_url(normalized)


@pytest.mark.parametrize(
    "bad",
    [
        "", "hunter2", "hunter2://u:p@h/d", "postgres://u:hunter2/x@h/d", "postgres://u:hunter2#@h/d",
        "postgres://u:hunter2?@h/d", "postgres://u:hunter2@h", "postgres://u:p@h:hunter2/d", "postgres://u:[hunter2@h/d",
        "postgres://u:hunt er2@h/d", "sqlite://hunter2/x",
    ],
)  # fmt: skip
def test_an_invalid_url_is_refused_without_quoting_it(bad):
    with pytest.raises(DatabaseURLError) as caught:
        parse(bad)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_displayed_url_has_neither_password_nor_options():
    database = parse("postgresql://panel:hunter2@h:5433/d?sslpassword=hunter2")
    assert database.display == "postgresql+psycopg2://panel:***@h:5433/d"
    assert "hunter2" not in repr(database)
