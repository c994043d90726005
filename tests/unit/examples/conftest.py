# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from panel_lab import TOKEN, alembic, start, stop
from panel_store import paths

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with a database that Alembic created."""
    home = tmp_path_factory.mktemp("migrated")
    alembic(home, "upgrade head")
    return home


@pytest.fixture
def home(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new home with an empty database, and set it in the panel's modules."""
    place = tmp_path / "home"
    shutil.copytree(migrated, place)
    for name in ("SECRET_KEY", "DATABASE_URL", "DB_ENGINE", "REDIS_URL", "ENVIRONMENT", "PANEL_ADMIN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PANEL_API_TOKEN", TOKEN)
    monkeypatch.setattr(paths, "HOME", place)
    monkeypatch.setattr(paths, "DATA", place / "data")
    monkeypatch.setattr(paths, "LOGS", place / "logs")
    monkeypatch.setattr(paths, "UPLOADS", place / "static" / "upload")
    monkeypatch.setattr(paths, "LANGUAGE", place / "BTPanel" / "languages" / "settings.json")
    return place


@pytest.fixture
def panel(home: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the panel's modules, which need a home. Password hashes are cheap here; a real one takes half a second."""
    modules = {name: importlib.import_module(f"BTPanel.{name}") for name in ("application", "auth", "faults", "jobs")}
    monkeypatch.setattr(modules["auth"], "HASH", "pbkdf2:sha256:1000")
    return SimpleNamespace(**modules)


@pytest.fixture
def app(panel: SimpleNamespace):
    return panel.application.create_app()


@pytest.fixture
def client(app):
    """Return a client that looks like a browser with an address."""
    browser = app.test_client()
    browser.environ_base.update(HTTP_USER_AGENT=BROWSER, REMOTE_ADDR="192.0.2.7")
    return browser


@pytest.fixture
def script(app):
    """Return a client that looks like a script, with the API token."""
    caller = app.test_client()
    caller.environ_base.update(HTTP_AUTHORIZATION=f"Bearer {TOKEN}", HTTP_USER_AGENT="curl/8")
    return caller


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, migrated: Path):
    """Return a real gunicorn, for all tests that only read."""
    run = tmp_path_factory.mktemp("served")
    shutil.copytree(migrated, run / "home")
    server = start(run / "home", run)
    yield server
    stop(server)
