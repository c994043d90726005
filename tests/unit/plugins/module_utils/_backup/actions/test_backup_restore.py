# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores in place: afterwards either the backed-up data or the previous data is live."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, restore
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.restore import Restorer
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError, NotAuthenticError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import exchange, sqlite
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources.directory import Files
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources.sqlite import Sqlite

LATER = "written after the backup"


@contextlib.contextmanager
def opened(path):
    """A database connection that commits and closes."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        yield database


class Panel:
    """An app that records its stops and starts."""

    def __init__(self, *, healthy=True):
        self.healthy = healthy
        self.running = True
        self.asked = []

    def stop(self):
        self.asked.append("stop")
        was, self.running = self.running, False
        return was

    def start(self):
        self.asked.append("start")
        self.running = True
        if not self.healthy:
            self.healthy = True
            raise BackupError("the panel is not healthy")


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "shared"
    (root / "static" / "upload").mkdir(parents=True)
    (root / "static" / "upload" / "logo").write_text("a logo")
    (root / "cache").mkdir()
    (root / "cache" / "page").write_text("cached")
    with opened(root / "panel.db") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE notes (text TEXT)")
        database.execute("INSERT INTO notes VALUES ('of the backup')")
    with opened(root / "own.db") as database:
        database.execute("CREATE TABLE own (id INTEGER)")
    return root


@pytest.fixture
def origins(data):
    ours = ("cache", *(f"/panel.db{suffix}" for suffix in ("", "-wal", "-shm", "-journal")))
    return [
        Sqlite("database", data / "panel.db"),
        Files("data", data, exclude=ours),
        Files("config", data.parent / "state", in_place=False),
    ]


@pytest.fixture
def backed_up(store, origins, data):
    """A backup; all live data changed since."""
    summary = create.create(store, origins[:2])
    with opened(data / "panel.db") as database:
        database.execute("INSERT INTO notes VALUES (?)", (LATER,))
    (data / "static" / "upload" / "logo").write_text(LATER)
    (data / "static" / "new").write_text(LATER)
    (data / "cache" / "page").write_text(LATER)
    return summary


def look(data):
    """The live data as the panel sees it."""
    with opened(data / "panel.db") as database:
        notes = [text for (text,) in database.execute("SELECT text FROM notes")]
    files = {str(path.relative_to(data)): path.read_text() for path in (data / "static").rglob("*") if path.is_file()}
    return notes, files, (data / "cache" / "page").read_text()


AS_BACKED_UP = (["of the backup"], {"static/upload/logo": "a logo"}, LATER)
AS_BEFORE = (
    ["of the backup", LATER],
    {"static/upload/logo": LATER, "static/new": LATER},
    LATER,
)


def nothing_left(store, data):
    assert not (store.state_dir / "restore.json").exists()
    assert not (store.state_dir / "restore").exists()
    assert {path.name for path in data.parent.iterdir()} == {"shared", "state", "backups"}


@pytest.mark.parametrize("exchanges", [True, False])
def test_restore_in_place_restores_everything(exchanges, store, origins, data, backed_up, monkeypatch):  # noqa: PLR0917 (pytest's)
    if not exchanges:
        # Like a file system without RENAME_EXCHANGE.
        monkeypatch.setattr(exchange, "_exchange", lambda *_: False)
    panel = Panel()
    done = Restorer(store, origins, panel).restore(restore.plan(store, origins))
    assert look(data) == AS_BACKED_UP
    assert done.sources == {"database": backed_up.name, "data": backed_up.name}
    assert panel.asked == ["stop", "start"]
    nothing_left(store, data)
    # The replaced data is in the snapshot, and can be restored the same way.
    summary = next(found.summary for found in store.good() if found.name == done.snapshot)
    assert summary.set == names.BEFORE_RESTORE
    Restorer(store, origins, panel).restore(restore.plan(store, origins, done.snapshot))
    assert look(data) == AS_BEFORE


def test_plan_takes_the_newest_backup_of_each_source(store, origins, data, backed_up):
    often = create.create(store, origins[:1], "databases")
    before = create.create(store, origins[:2], names.BEFORE_RESTORE)
    wanted = restore.plan(store, origins)
    assert {name: [o.name for o in group] for name, group in wanted.items()} == {
        often.name: ["database"],
        backed_up.name: ["data"],
    }
    assert list(restore.plan(store, origins, before.name)) == [before.name]
    assert [o.name for o in restore.plan(store, origins, only=["data"])[backed_up.name]] == ["data"]


@pytest.mark.parametrize(
    ("name", "only", "word"),
    [
        ("", ["tape"], "no source tape; the sources are database, data, config"),
        ("", ["config"], "extract it with --to"),
        ("backup_20200101T000000Z_000009", [], "no such backup"),
        ("", ["other"], "no good backup contains it"),
    ],
)
def test_plan_explains_what_cannot_be_restored(name, only, word, store, origins, backed_up):  # noqa: PLR0917 (pytest's)
    with pytest.raises(BackupError, match=word):
        restore.plan(store, [*origins, Sqlite("other", store.folder / "other.db")], name, only)


def test_missing_sources_are_restored(store, origins, data, backed_up):
    (data / "panel.db").unlink()
    for path in sorted(data.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    data.rmdir()
    done = Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert done.snapshot == ""
    (data / "cache").mkdir()
    (data / "cache" / "page").write_text(LATER)
    assert look(data) == AS_BACKED_UP
    nothing_left(store, data)


def test_unhealthy_panel_is_rolled_back(store, origins, data, backed_up):
    panel = Panel(healthy=False)
    with pytest.raises(BackupError, match="not healthy"):
        Restorer(store, origins, panel).restore(restore.plan(store, origins))
    assert look(data) == AS_BEFORE
    assert panel.asked == ["stop", "start", "start"]
    nothing_left(store, data)


@pytest.mark.usefixtures("backed_up")
@pytest.mark.parametrize("failing", ["load", "swap"])
@pytest.mark.parametrize("kind", [Files, Sqlite])
def test_any_failure_is_rolled_back(kind, failing, store, origins, data, monkeypatch):  # noqa: PLR0917 (pytest's)
    def fail(*_):
        raise BackupError("no")

    monkeypatch.setattr(kind, failing, fail)
    panel = Panel()
    with pytest.raises(BackupError, match=r"^no$"):
        Restorer(store, origins, panel).restore(restore.plan(store, origins))
    assert look(data) == AS_BEFORE
    assert panel.running
    nothing_left(store, data)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"SQLite format 3\0" + b"x" * 4080, bytes(range(256)) * 32])
@pytest.mark.parametrize("healthy", [True, False])
def test_broken_live_database_is_replaced(healthy, content, store, origins, backed_up):
    file = origins[0].path
    for suffix in ("-wal", "-shm"):
        file.with_name(f"{file.name}{suffix}").unlink(missing_ok=True)
    file.write_bytes(content)
    wanted = restore.plan(store, origins, only=["database"])
    if content:
        with pytest.raises(BackupError, match=file.name):
            Restorer(store, origins, Panel()).restore(wanted)
    if healthy:
        Restorer(store, origins, Panel()).restore(wanted, snapshot=False)
        assert look(file.parent)[0] == ["of the backup"]
    else:
        with pytest.raises(BackupError, match="not healthy"):
            Restorer(store, origins, Panel(healthy=False)).restore(wanted, snapshot=False)
        # An empty file is a database without tables. It is restored as a file of one page.
        assert file.read_bytes() == content or not content
    nothing_left(store, file.parent)


def test_altered_backup_is_not_loaded(store, origins, data, backed_up):
    archive = store.path(backed_up.name, names.ARCHIVE)
    content = archive.read_bytes()
    archive.write_bytes(content[:-1] + b"x")
    panel = Panel()
    with pytest.raises(NotAuthenticError):
        Restorer(store, origins, panel).restore(restore.plan(store, origins))
    assert look(data) == AS_BEFORE
    assert panel.asked == []
    nothing_left(store, data)


def test_database_among_files_is_copied_consistently(store, data, tmp_path):
    writer = sqlite3.connect(data / "own.db")
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    with writer:
        writer.execute("INSERT INTO own VALUES (1)")
    summary = create.create(store, [Files("data", data)])
    writer.close()
    assert summary.sources[0].rows["own.db//own"] == 1
    Restorer(store, [Files("data", data)], Panel()).restore(restore.plan(store, [Files("data", data)]))
    assert not Path(f"{data}/own.db-wal").exists()
    with opened(data / "own.db") as database:
        assert database.execute("SELECT count(*) FROM own").fetchone() == (1,)


def test_sound_and_damaged_databases_among_files(store, tmp_path):
    data, readers = tmp_path / "many", []
    data.mkdir()
    # The second name sorts between the first one and its log.
    for name in ("a.db", "a.db-old", "c.db"):
        readers.append(sqlite3.connect(data / name))
        readers[-1].execute("PRAGMA journal_mode = WAL")
        readers[-1].execute("CREATE TABLE t (id INTEGER)")
    broken = data / "b.db"
    broken.write_bytes(sqlite.MAGIC + os.urandom(5000))
    (data / "b.db-wal").write_bytes(b"its log")
    summary = create.create(store, [Files("many", data)])
    for reader in readers:
        reader.close()
    assert set(summary.sources[0].rows) == {"a.db//t", "a.db-old//t", "c.db//t"}
    assert summary.partial
    assert [str(broken) in warning for warning in summary.warnings] == [True]
    with store.open(summary.name) as found:
        members = {entry.member.path.partition("/many/")[2]: entry.sha256 for entry in found.entries()}
    # The copies already contain the content of the logs. The damaged one is kept with its log, for a manual repair.
    assert set(members) - {"", ".aapanel_canary"} == {"a.db", "a.db-old", "b.db", "b.db-wal", "c.db"}
    assert members["b.db"] == hashlib.sha256(broken.read_bytes()).hexdigest()
    assert not [file for file in store.state_dir.iterdir() if file.name.startswith(names.TEMPORARY)]


def test_optional_source_may_be_missing_until_it_was_backed_up(store, data, tmp_path):
    optional = Sqlite("later", tmp_path / "later.db", optional=True)
    summary = create.create(store, [optional, Files("data", data)])
    assert [source.name for source in summary.sources] == ["data"]
    assert "no backup has one" in summary.warnings[0]
    with opened(optional.path) as database:
        database.execute("CREATE TABLE t (id INTEGER)")
    create.create(store, [optional])
    optional.path.unlink()
    with pytest.raises(BackupError, match="the database does not exist"):
        create.create(store, [optional, Files("data", data)])


def test_database_that_stays_locked(store, data, monkeypatch):
    for name in ("_TIMEOUT", "_CANARY_TIMEOUT"):
        monkeypatch.setattr(sqlite, name, 0.5)
    with contextlib.closing(sqlite3.connect(data / "own.db")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackupError, match=r"own\.db: .*locked"):
            create.create(store, [Sqlite("own", data / "own.db")])
