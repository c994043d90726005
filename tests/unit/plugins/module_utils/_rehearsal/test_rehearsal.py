# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rehearsals without systemd: the release serves restored data, and cannot reach the live data."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._rehearsal import databases, landlock, rehearsal
from ansible_collections.aapanel.pipeline.plugins.module_utils._rehearsal.databases import Server
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import TrafficError, UnhealthyError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.machine import start_time
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.settings import Settings

_ABI_TRUNCATE, _ABI_TCP, _ABI_SCOPES = 3, 4, 6

# A replacement of gunicorn: executes the given attempts, records their results, and serves.
_PANEL = """
import http.server, json, os, socketserver, sys
def attempt(code):
    try:
        return eval(code)
    except OSError as error:
        return error.strerror
tried = {name: attempt(code) for name, code in json.load(open("attempts")).items()}
with open("data/report", "w") as report:
    json.dump({"tried": tried, "env": dict(os.environ), "pid": os.getpid()}, report)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(os.environ["ANSWER"]))
        self.send_header("X-Release", os.environ["AAPANEL_RELEASE"])
        self.end_headers()
    def address_string(self):
        return "somebody"
if os.environ["ANSWER"] == "0":
    sys.exit("it has no table")
socketserver.UnixStreamServer(os.environ["AAPANEL_SOCKET"], Answer).serve_forever()
"""


class Host:
    """A host with a live release, and restored data."""

    def __init__(self, place: Path) -> None:
        self.settings = Settings(
            place / "base", place / "etc", place / "data", place / "run", "supervisor", healthy_timeout=20
        )
        self.present = self.settings.shared_dir / "data"
        self.restored = self.settings.restored_dir / "files/data/data"
        for folder, word in ((self.present, "present"), (self.restored, "restored")):
            folder.mkdir(parents=True)
            (folder / "word").write_text(word)
        self.release = place / "base/releases/1.0.0"
        self.app = self.release / "app"
        (self.app / "static").mkdir(parents=True)
        (self.app / "data").symlink_to(self.present)
        (self.app / "static/back").symlink_to("../attempts")
        python = self.release / "venv/bin/python"
        python.parent.mkdir(parents=True)
        (self.release / "panel.py").write_text(_PANEL)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "{self.release}/panel.py"\n')
        python.chmod(0o755)
        slot = place / "base/slots/blue"
        slot.mkdir(parents=True)
        (slot / "release").symlink_to(self.release)
        (place / "base/live").symlink_to(slot)
        self.write({})

    def write(self, attempts: dict[str, str], **more: str) -> None:
        """Write the attempts, and the settings of the slot."""
        (self.app / "attempts").write_text(json.dumps(attempts))
        env = {"AAPANEL_RELEASE": "1.0.0", "HOST": "127.0.0.1", "PORT": "8000", "ANSWER": "200", **more}
        self.settings.config_dir.mkdir(exist_ok=True)
        self.settings.slot_env("blue").write_text("".join(f'{name}="{value}"\n' for name, value in env.items()))

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.restored / "report").read_text()))


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while start_time(pid) is not None:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    try:
        landlock.version()
    except OSError:
        pytest.skip("this kernel has no Landlock")
    return Host(tmp_path)


@pytest.fixture
def port() -> Iterator[int]:
    """Listen on a port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_it_serves_the_restored_data_and_leaves_no_files(host: Host) -> None:
    home, url = host.settings.slot_dir("blue") / "release/app", f"sqlite:///{host.present}/panel.db"
    host.write(
        {"beside it": "open('data/word').read()", "by a setting": "open(os.environ['FOLDER'] + '/word').read()"},
        AAPANEL_HOME=str(home),
        DATABASE_URL=url,
        FOLDER=str(host.present),
        OTHER=f"{host.settings.shared_dir}-of-another",
        REDIS_URL="redis://127.0.0.1",
    )
    assert rehearsal.rehearse(host.settings, {}) == ""
    report = host.report()
    assert report["tried"] == {"beside it": "restored", "by a setting": "restored"}
    env = report["env"]
    assert env["AAPANEL_HOME"] == str(host.settings.restored_dir / "app")
    assert env["DATABASE_URL"] == f"sqlite:///{host.restored}/panel.db"
    assert env["OTHER"] == f"{host.settings.shared_dir}-of-another"
    assert (env["REDIS_URL"], env["PORT"] == "8000") == ("", False)
    assert not host.settings.rehearsal_dir.exists()
    assert (host.app / "data").readlink() == host.present
    with pytest.raises(ProcessLookupError):
        os.kill(report["pid"], 0)


def test_it_cannot_reach_the_live_data(host: Host, tmp_path: Path) -> None:
    present, beside = f"'{host.present}/word'", f"'{host.present}/new'"
    code, outside = f"'{host.release}/panel.py'", f"'{tmp_path}/new'"
    host.write(
        {
            "read": f"open({present}).read()",
            "write": f"open({present}, 'w')",
            "truncate": f"os.truncate({present}, 0)",
            "remove": f"os.unlink({present})",
            "make": f"open({beside}, 'w')",
            "move in": f"os.rename('data/word', {beside})",
            "link": f"os.link({present}, 'data/linked')",
            "its code": f"open({code}, 'a')",
            "elsewhere": f"open({outside}, 'w')",
            "by proc": f"open('/proc/{os.getpid()}/cwd/pyproject.toml', 'a')",
        }
    )
    assert rehearsal.rehearse(host.settings, {}) == ""
    tried = host.report()["tried"]
    if landlock.version() < _ABI_TRUNCATE:
        assert tried.pop("truncate") is None
        (host.present / "word").write_text("present")
    assert set(tried.values()) <= {"Permission denied", "Invalid cross-device link"}, tried
    assert sorted(entry.name for entry in host.present.iterdir()) == ["word"]
    assert (host.present / "word").read_text() == "present"


def test_it_cannot_reach_other_servers_and_processes(host: Host, port: int) -> None:
    """It reaches only the port of the database, if the kernel supports that, and no other processes."""
    abi = landlock.version()
    connect = f"__import__('socket').create_connection(('127.0.0.1', {port}), 2) and 'connected'"
    host.write({"connect": connect, "signal": f"os.kill({os.getpid()}, 0)"})
    assert rehearsal.rehearse(host.settings, {}) == ""
    tried = host.report()["tried"]
    assert tried["connect"] == ("Permission denied" if abi >= _ABI_TCP else "connected")
    assert tried["signal"] == ("Operation not permitted" if abi >= _ABI_SCOPES else None)
    host.write({"connect": connect}, DB_ENGINE="postgresql", DB_HOST="127.0.0.1", DB_PORT=str(port), DB_NAME="aapanel")
    assert rehearsal.rehearse(host.settings, {"aapanel": "aapanel_scratch"}) == ""
    assert host.report()["tried"]["connect"] == "connected"
    assert host.report()["env"]["DB_NAME"] == "aapanel_scratch"


@pytest.mark.parametrize(
    ("answer", "word"),
    [("503", r"not healthy within 2 s\. Last answer"), ("0", r"exited(.|\n)*it has no table")],
)
def test_an_unhealthy_rehearsal_reports_the_reason(answer: str, word: str, host: Host) -> None:
    host.settings = Settings(**{**vars(host.settings), "healthy_timeout": 2.0})
    host.write({}, ANSWER=answer)
    with pytest.raises(UnhealthyError, match=word):
        rehearsal.rehearse(host.settings, {})
    assert not host.settings.rehearsal_dir.exists()


def test_it_dies_with_its_parent(host: Host) -> None:
    host.write({}, ANSWER="503")
    code = (
        "import sys; from pathlib import Path\n"
        f"from {rehearsal.__name__} import rehearse\nfrom {Settings.__module__} import Settings\n"
        "rehearse(Settings(*map(Path, sys.argv[1:5]), 'supervisor'), {})"
    )
    settings = host.settings
    folders = [settings.base_dir, settings.config_dir, settings.data_dir, settings.run_dir]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    asked = subprocess.Popen([sys.executable, "-c", code, *folders], env=environment)
    try:
        deadline = time.monotonic() + 20
        while not (settings.rehearsal_dir / "sock").exists():
            assert time.monotonic() < deadline
            assert asked.poll() is None
            time.sleep(0.05)
    finally:
        asked.kill()
        asked.wait()
    wait_gone(host.report()["pid"])
    # Leftovers do not disturb the next rehearsal.
    host.write({})
    assert rehearsal.rehearse(settings, {}) == ""


def test_reasons_to_skip_the_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path)
    outside = tmp_path / "panel.db"
    outside.touch()
    host.write({}, DATABASE_URL=f"sqlite:///{outside}")
    monkeypatch.setattr(landlock, "version", lambda: 1)
    assert "is outside of" in rehearsal.rehearse(host.settings, {})

    def missing() -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(landlock, "version", missing)
    assert "nor Landlock (Function not implemented)" in rehearsal.rehearse(host.settings, {})
    (tmp_path / "base/live").unlink()
    assert rehearsal.rehearse(host.settings, {}) == "nothing is live yet"


@pytest.mark.parametrize(
    "present",
    [
        {"DB_ENGINE": "mysql", "DB_NAME": "other"},
        {"DATABASE_URL": "postgresql://panel@db/other"},
        {"DATABASE_URL": "postgresql://panel@db/other?application_name=x/aapanel"},
        {"DATABASE_URL": "postgresql://panel@db/"},
    ],
)
def test_a_live_database_is_never_used(present: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(TrafficError, match="would use the live database"):
        rehearsal.overrides(present, {"aapanel": "aapanel_scratch"}, tmp_path, 1)


@pytest.mark.parametrize(
    ("present", "other"),
    [
        ("postgres://u:p%40@[fd00::1]:6000/aapanel", "postgres://u:p%40@[fd00::1]:6000/aapanel_scratch"),
        ("pgsql+psycopg://u@db/aapanel?sslmode=require", "pgsql+psycopg://u@db/aapanel_scratch?sslmode=require"),
        ("postgresql:///aapanel?host=/run/postgresql", "postgresql:///aapanel_scratch?host=/run/postgresql"),
        ("MariaDB://u@db/aa%70anel?ssl_ca=/a/b", "MariaDB://u@db/aapanel_scratch?ssl_ca=/a/b"),
    ],
)
def test_only_the_database_is_replaced_in_a_url(present: str, other: str) -> None:
    assert databases.replace({"DATABASE_URL": present}, {"aapanel": "aapanel_scratch"}) == {"DATABASE_URL": other}


@pytest.mark.parametrize(
    ("present", "found"),
    [
        ({"DB_ENGINE": "PostgreSQL", "DB_HOST": "db.test", "DB_NAME": "x"}, [Server("db.test", 5432)]),
        ({"DB_ENGINE": "mysql", "DB_HOST": "::1", "DB_PORT": "3307", "DB_NAME": "x"}, [Server("::1", 3307)]),
        ({"DATABASE_URL": "postgresql+psycopg://u:p%40@[fd00::1]:6000/panel"}, [Server("fd00::1", 6000)]),
        ({"DATABASE_URL": "postgresql:///x?host=/run/postgresql"}, [Server("/run/postgresql", 5432)]),
        ({"DATABASE_URL": "mysql+pymysql://u:p@db.test/panel"}, [Server("db.test", 3306)]),
        ({"DATABASE_URL": "sqlite:////srv/panel.db"}, []),
        ({"DATABASE_URL": "sqlite3:////srv/panel.db"}, []),
        ({"DB_ENGINE": "sqlite", "DB_NAME": "/srv/panel.db"}, []),
        ({}, []),
    ],
)
def test_servers_of_databases(present: dict[str, str], found: list[Server]) -> None:
    assert databases.find(present).servers == found


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"DATABASE_URL": "oracle://db/x"}, "does not support the kind of database"),
        ({"DATABASE_URL": "sqlite:///file:/srv/x?uri=true"}, "an SQLite URI"),
        ({"DATABASE_URL": "mysql://db:port/x"}, "an invalid host or port"),
        ({"DB_ENGINE": "oracle", "DB_NAME": "x"}, "DB_ENGINE"),
        ({"SQLALCHEMY_DATABASE_URI": "postgresql://u@h/aapanel"}, "SQLALCHEMY_DATABASE_URI in its settings"),
        ({"CELERY_BROKER_URL": "redis://127.0.0.1"}, "CELERY_BROKER_URL in its settings"),
        ({"CELERY_RESULT_BACKEND": "db+postgresql://u@h/aapanel"}, "CELERY_RESULT_BACKEND in its settings"),
        ({"QUEUE": "redis-sentinel://127.0.0.1"}, "QUEUE in its settings"),
    ],
)
def test_it_is_skipped_if_it_would_share_a_server_with_the_panel(more: dict[str, str], why: str, host: Host) -> None:
    host.write({}, **more)
    assert why in rehearsal.rehearse(host.settings, {})
    assert not host.settings.rehearsal_dir.exists()


def test_processes_of_the_app_end_with_it(host: Host) -> None:
    host.write({"child": "__import__('subprocess').Popen(['sleep', '300']).pid"})
    assert rehearsal.rehearse(host.settings, {}) == ""
    wait_gone(host.report()["tried"]["child"])


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_an_unreadable_parent_folder_is_tolerated() -> None:
    """For example the parent of home folders."""
    code = (
        f"import os, sys\nfrom pathlib import Path\nfrom {landlock.__name__} import Confinement\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "Confinement(Path(sys.argv[1]), []).enter()\nprint(open('/etc/hosts').read() != '')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "mine").mkdir()
        Path(place).chmod(0o711)
        command = [sys.executable, "-c", code, f"{place}/mine"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
