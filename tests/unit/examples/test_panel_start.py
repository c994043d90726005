# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests for the start of the example panel, its home folder, its faults and its migrations."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from panel_lab import PANEL, alembic, clean_environment
from panel_store import database, paths
from sqlalchemy.engine import make_url

# Home and settings


def test_a_missing_home_is_an_error_and_is_not_created(panel, tmp_path, monkeypatch):
    missing = tmp_path / "www" / "server" / "panel"
    monkeypatch.setattr(paths, "HOME", missing)
    with pytest.raises(RuntimeError, match=f"{missing}: the panel's home does not exist"):
        panel.application.create_app()
    assert not missing.exists()


def test_only_the_documented_paths_are_written(served):
    written = {file.relative_to(served.home).as_posix() for file in served.home.rglob("*") if file.is_file()}
    assert "logs/panel.log" in written
    assert not [name for name in written if not name.startswith(("data/", "logs/", "static/upload/"))]


@pytest.mark.parametrize(("environment", "fine"), [("production", False), ("development", True)])
def test_a_short_key_is_refused_in_production_without_printing_it(panel, monkeypatch, environment, fine):
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("SECRET_KEY", "tooshort-s3cret")
    if fine:
        assert panel.application.create_app()
        return
    with pytest.raises(RuntimeError) as error:
        panel.application.create_app()
    assert str(error.value) == "SECRET_KEY: 15 characters; production needs at least 32."


def test_workers_that_start_at_once_agree_on_a_secret(tmp_path):
    file = tmp_path / "secret.pl"
    with ThreadPoolExecutor(16) as pool:
        read = set(pool.map(lambda number: paths.read_or_create(file, f"secret {number}"), range(64)))
    assert len(read) == 1
    assert [left.name for left in tmp_path.iterdir()] == ["secret.pl"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DATABASE_URL": "postgresql://u:p@h/d"}, "postgresql+psycopg2://u:p@h/d"),
        ({"DATABASE_URL": "postgres://u:p@h:5/d"}, "postgresql+psycopg2://u:p@h:5/d"),
        ({"DATABASE_URL": "mysql+pymysql://u@h/d?charset=utf8mb4"}, "mysql+pymysql://u@h/d?charset=utf8mb4"),
        ({"DATABASE_URL": "sqlite:////x.db", "DB_ENGINE": "mysql"}, "sqlite:////x.db"),
        (
            {"DB_ENGINE": "mariadb", "DB_NAME": "d", "DB_USER": "u", "DB_PASSWORD": "p@:/", "DB_PORT": "3307"},
            "mysql+pymysql://u:p%40%3A%2F@127.0.0.1:3307/d",
        ),
        ({"DB_ENGINE": "postgresql", "DB_NAME": "d", "DB_HOST": "db"}, "postgresql+psycopg2://db/d"),
        (
            {"DB_ENGINE": "postgresql", "DB_NAME": "d", "DB_HOST": "/run/postgresql"},
            "postgresql+psycopg2:///d?host=/run/postgresql",
        ),
        (
            {"DB_ENGINE": "mysql", "DB_NAME": "d", "DB_HOST": "/run/mysqld/mysqld.sock"},
            "mysql+pymysql://localhost/d?unix_socket=/run/mysqld/mysqld.sock",
        ),
        ({"DB_ENGINE": "sqlite", "DB_NAME": "/x.db"}, "sqlite:////x.db"),
    ],
)
def test_database_address(monkeypatch, environment, expected):
    for name in [name for name in os.environ if name.startswith(("DB_", "DATABASE_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert database.url() == make_url(expected)


def test_an_unknown_database_engine_is_an_error(monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("DB_ENGINE", "oracle")
    with pytest.raises(ValueError, match="DB_ENGINE=oracle: expected one of sqlite, postgresql"):
        database.url()


# Faults


@pytest.fixture
def broken(panel, tmp_path, monkeypatch):
    """Return a function that writes the FAULTS of a release."""
    release = tmp_path / "release"
    release.mkdir()
    for name in ("VERSION", "static"):
        (release / name).symlink_to(PANEL / name)
    monkeypatch.setattr(paths, "RELEASE", release)
    return lambda **faults: (release / "FAULTS").write_text(json.dumps(faults))


def test_a_release_can_crash_at_import_and_still_migrate(tmp_path):
    release, home = tmp_path / "release", tmp_path / "home"
    shutil.copytree(PANEL, release, ignore=shutil.ignore_patterns("__pycache__", "data", "logs"))
    home.mkdir()
    (release / "FAULTS").write_text('{"import_error": "no module named tomorrow"}')
    program = "import alembic.config\nalembic.config.main(['upgrade', 'head'])\nprint('migrated')\nimport BTPanel"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=release,
        env=clean_environment(home),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "migrated\n")
    assert "RuntimeError: no module named tomorrow" in done.stderr


def test_a_misspelt_fault_is_an_error(panel, broken):
    broken(boot_second=3)
    with pytest.raises(ValueError, match="FAULTS: boot_second: unknown; expected boot_seconds"):
        panel.faults.at_import()


@pytest.mark.parametrize(("seconds", "status"), [(60, 200), (-1, 500)])
def test_a_release_can_break_after_some_time(panel, broken, seconds, status):
    broken(healthy_seconds=seconds)
    page = panel.application.create_app().test_client().get("/")
    assert page.status_code == status
    assert "<html" in page.text


def test_the_repository_ships_no_faults():
    assert not (PANEL / "FAULTS").exists()


# Migrations


def schema(home):
    with sqlite3.connect(home / "data" / "default.db") as store:
        return set(store.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall())


def test_migrating_down_and_up_again_restores_the_schema(migrated, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(migrated, home)
    alembic(home, "downgrade base")
    assert {name for name, _ in schema(home)} == {"alembic_version"}
    assert "No new upgrade operations detected" in alembic(home, "upgrade head", "check")
    assert schema(home) == schema(migrated)


def test_migrating_down_and_up_keeps_rows_and_references(migrated, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(migrated, home)
    with sqlite3.connect(home / "data" / "default.db") as store:
        store.execute("INSERT INTO items (id, title, created_at) VALUES (7, 'kept', '2026-01-01 00:00:00')")
        store.execute(
            "INSERT INTO jobs (title, state, item_id, created_at) VALUES ('j', 'done', 7, '2026-01-01 00:00:00')"
        )
    alembic(home, "downgrade 0002", "upgrade head")
    with sqlite3.connect(home / "data" / "default.db") as store:
        assert store.execute("SELECT id, title, done FROM items").fetchall() == [(7, "kept", 0)]
        assert store.execute("SELECT item_id FROM jobs").fetchall() == [(7,)]


def test_the_previous_release_can_write_after_the_newest_migration(migrated, tmp_path):
    """Both slots share the table during a deploy, and the previous release does not know the new column."""
    home = tmp_path / "home"
    shutil.copytree(migrated, home)
    with sqlite3.connect(home / "data" / "default.db") as store:
        store.execute("INSERT INTO items (title, created_at) VALUES ('from the old release', '2026-01-01')")
        assert store.execute("SELECT done FROM items").fetchone() == (0,)


def test_migrations_can_be_printed_as_sql(tmp_path):
    printed = alembic(tmp_path, "upgrade head --sql", DB_ENGINE="mysql", DB_NAME="x")
    assert printed.count("CREATE TABLE") == 4
    assert "ADD COLUMN done" in printed
