# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unusual live data during backups and restores: unfinished work of an app, odd files, and attacks."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, restore, status
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.drill import RecoveryObjectives
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.restore import Restorer
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError, UnhealthyError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import directory, exchange, sqlite
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources.directory import Files
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources.sqlite import Sqlite
from ansible_collections.aapanel.pipeline.plugins.module_utils._host import nofollow

# Dies in a transaction that is partly written to the file.
DIES = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA cache_size = 5")
database.execute("UPDATE notes SET text = 'changed' || text")
os.kill(os.getpid(), 9)
"""


class Panel:
    """An app whose first starts succeed or fail as given; later starts succeed.

    :param writes: called when a start fails.
    :param ends: called when the app is stopped.
    """

    def __init__(self, *healthy, writes=lambda: None, ends=lambda: None):
        self.healthy = list(healthy)
        self.writes = writes
        self.ends = ends

    def stop(self):
        self.ends()
        return True

    def start(self):
        if self.healthy and not self.healthy.pop(0):
            self.writes()
            raise BackupError("no answer")


@contextlib.contextmanager
def opened(path):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        yield database


def fill(path, *texts, page_size=4096, wal=False):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA page_size = {page_size}")
        database.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
        database.execute("CREATE TABLE notes (text TEXT)")
        database.executemany("INSERT INTO notes VALUES (?)", [(text,) for text in texts])


def notes(path):
    with opened(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [text for (text,) in database.execute("SELECT text FROM notes")]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def database(data):
    return Sqlite("database", data / "panel.db")


def fail_to_restore(store, origins, **options):
    with pytest.raises(BackupError, match=r"^no answer$"):
        Restorer(store, origins, Panel(False)).restore(restore.plan(store, origins), **options)
    assert not restore.is_interrupted(store)


def test_database_of_another_page_size_is_rolled_back(store, database):
    """SQLite cannot copy over a database of another page size in WAL mode."""
    fill(database.path, "of the backup", page_size=1024, wal=True)
    create.create(store, [database])
    database.path.unlink()
    fill(database.path, "live", wal=True)
    fail_to_restore(store, [database])
    assert notes(database.path) == ["live"]


def test_database_with_an_open_transaction_is_rolled_back(store, database):
    fill(database.path, *["a" * 500] * 2000)
    create.create(store, [database])
    subprocess.run([sys.executable, "-c", DIES, str(database.path)], check=False)
    assert Path(f"{database.path}-journal").exists()
    fail_to_restore(store, [database], snapshot=False)
    assert notes(database.path) == ["a" * 500] * 2000


def other_folder(path):
    """Replace the database by a folder, as a faulty app or an attacker might do after the restore."""
    path.unlink()
    path.mkdir()
    (path / "file").write_text("theirs")


def folder_beside(path):
    path.unlink()
    Path(f"{path}-wal").mkdir()


@pytest.mark.parametrize("present", ["whole", "broken", "absent"])
@pytest.mark.parametrize("make", [other_folder, folder_beside])
def test_folder_in_place_of_a_database_is_moved_aside(make, present, store, database, data):
    fill(database.path, "of the backup")
    create.create(store, [database])
    database.path.unlink()
    if present == "whole":
        fill(database.path, "live")
    elif present == "broken":
        database.path.write_bytes(b"no database")
    panel = Panel(False, writes=lambda: make(database.path))
    restorer = Restorer(store, [database], panel)
    with pytest.raises(BackupError, match=r"^no answer; .* was in the way, and was moved to .*\.aside-[^ ]*$"):
        restorer.restore(restore.plan(store, [database]), snapshot=False)
    assert restorer.settle() == ""
    aside = [path for path in data.iterdir() if ".aside-" in path.name]
    assert len(aside) == 1
    assert make is folder_beside or (aside[0] / "file").read_text() == "theirs"
    assert len(list(data.iterdir())) == (1 if present == "absent" else 2)
    if present == "whole":
        assert notes(database.path) == ["live"]
    elif present == "broken":
        assert database.path.read_bytes() == b"no database"


def file_above(path):
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("theirs")


def link_above(path):
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to("nowhere")


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("make", [file_above, link_above])
def test_non_folder_above_a_database_is_moved_aside(make, present, store, database, data):
    fill(database.path, "live")
    create.create(store, [database])
    if not present:
        database.path.unlink()
    restorer = Restorer(store, [database], Panel(False, writes=lambda: make(database.path)))
    with pytest.raises(BackupError, match=r"^no answer"):
        restorer.restore(restore.plan(store, [database]), snapshot=False)
    assert not restore.is_interrupted(store)
    if present:
        assert notes(database.path) == ["live"]
        assert len(list(data.parent.glob("data.aside-*"))) == 1
    else:
        with pytest.raises(BackupError, match=rf"^{data}: not a folder, .*: move it out of the way$"):
            restorer.restore(restore.plan(store, [database]), snapshot=False)


@pytest.mark.parametrize("gone", ["staging", "room"])
def test_failed_rollback_tells_how_to_proceed(gone, store, database, monkeypatch):
    fill(database.path, "text")
    create.create(store, [database])

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    def writes():
        if gone == "staging":
            restore.shutil.rmtree(store.state_dir / "restore")
        else:
            monkeypatch.setattr(sqlite, "_copy_over", fail)

    with pytest.raises(BackupError, match=r"^no answer\. And the rollback failed: .*panelctl backup settle"):
        Restorer(store, [database], Panel(False, writes=writes)).restore(restore.plan(store, [database]))
    assert restore.is_interrupted(store)


def test_rollback_keeps_owner_mode_and_attributes(store, database):
    """Also if the live file cannot be copied into the restored one."""
    fill(database.path, "live")
    create.create(store, [database])
    database.path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(database.path, 1234, 5678)
    os.utime(database.path, (1e9, 1e9))
    with contextlib.suppress(OSError):
        os.setxattr(database.path, "user.of", b"live")
    before, attributes = database.path.stat(), os.listxattr(database.path)
    fail_to_restore(store, [database], snapshot=False)
    panel = Panel(False, writes=database.path.unlink)
    with pytest.raises(BackupError, match=r"^no answer$"):
        Restorer(store, [database], panel).restore(restore.plan(store, [database]), snapshot=False)
    after = database.path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert os.listxattr(database.path) == attributes


def test_copy_keeps_metadata_and_removes_leftovers(tmp_path):
    origin, target = tmp_path / "origin", tmp_path / "a[b]"
    origin.write_text("text")
    os.utime(origin, (1e9, 1e9))
    (tmp_path / f".{target.name}.unfinished-of-one-that-was-killed").write_text("")
    nofollow.copy(origin, target)
    assert (target.read_text(), target.stat().st_mtime) == ("text", 1e9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a[b]", "origin"]


def test_replaced_folder_gets_no_owner_or_mode(tmp_path, monkeypatch):
    """An attacker may replace a folder that was just created by one of root's."""
    (tmp_path / "secret").mkdir(mode=0o700)
    (tmp_path / "secret" / "key").write_text("secret")
    mkdir = os.mkdir

    def exchanged(name, mode, dir_fd):
        mkdir(name, mode, dir_fd=dir_fd)
        (tmp_path / name).rename(tmp_path / "away")
        (tmp_path / "secret").rename(tmp_path / name)

    monkeypatch.setattr(os, "mkdir", exchanged)
    tmp_path.chmod(0o755)
    below = os.open(tmp_path, nofollow.OPEN_FOLDER)
    with pytest.raises(FileExistsError):
        nofollow.make_folder("new", below, below)
    os.close(below)
    (there,) = tmp_path.glob(".unfinished-*")
    assert there.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["database", "log"])
def test_non_file_in_place_of_a_database_is_refused_first(what, store, database):
    fill(database.path, "text")
    create.create(store, [database])
    odd = database.path if what == "database" else Path(f"{database.path}-wal")
    odd.unlink(missing_ok=True)
    odd.mkdir()
    with pytest.raises(BackupError, match=rf"^{odd}: not a regular file"):
        Restorer(store, [database], Panel()).restore(restore.plan(store, [database]), snapshot=False)
    assert not restore.is_interrupted(store)
    assert odd.is_dir()


def test_symlink_to_another_database_is_not_followed(store, database, tmp_path):
    """Otherwise, a user who can write to the folder could make root write into another user's database."""
    fill(tmp_path / "theirs.db", "of somebody else")
    before = (tmp_path / "theirs.db").read_bytes()
    fill(database.path, "text")
    create.create(store, [database])
    database.path.rename(tmp_path / "away.db")
    database.path.symlink_to(tmp_path / "theirs.db")
    for action in (
        lambda: create.create(store, [database]),
        lambda: Restorer(store, [database], Panel()).restore(restore.plan(store, [database]), snapshot=False),
    ):
        with pytest.raises(BackupError, match=r"panel\.db is a symlink, .*: configure its target"):
            action()
    # Also if it becomes a symlink only before the rollback.
    database.path.unlink()
    fill(database.path, "live")

    def lead_away():
        database.path.unlink()
        database.path.symlink_to(tmp_path / "theirs.db")

    with pytest.raises(BackupError, match=r"^no answer$"):
        Restorer(store, [database], Panel(False, writes=lead_away)).restore(restore.plan(store, [database]))
    assert notes(database.path) == ["live"]
    assert not database.path.is_symlink()
    assert (tmp_path / "theirs.db").read_bytes() == before


def test_log_that_disappears_meanwhile_is_ignored(database, monkeypatch):
    """An app that closes its database removes the log."""
    fill(database.path, "text")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name.endswith("-wal") or exists(path))
    assert database.size() == database.path.stat().st_size


def test_damaged_database_is_rolled_back_with_its_log(store, database, data):
    """A manual repair may still recover data from it."""
    fill(database.path, "of the backup")
    create.create(store, [database])
    present = {"panel.db": os.urandom(8192), "panel.db-wal": os.urandom(4096)}
    for name, content in present.items():
        (data / name).write_bytes(content)
    fail_to_restore(store, [database], snapshot=False)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == present


def test_symlink_in_place_of_a_log_is_not_copied(store, database, data, tmp_path):
    """Otherwise, root would copy the target to a place where the owner of the symlink can read it."""
    fill(database.path, "of the backup")
    create.create(store, [database])
    (tmp_path / "secret").write_text("secret")
    database.path.write_bytes(os.urandom(8192))
    panel = Panel(False, ends=lambda: Path(f"{database.path}-wal").symlink_to(tmp_path / "secret"))
    with pytest.raises(BackupError, match=r"panel\.db-wal: Too many levels of symbolic links"):
        Restorer(store, [database], panel).restore(restore.plan(store, [database]), snapshot=False)
    assert not [path for path in data.iterdir() if not path.is_symlink() and path.read_bytes() == b"secret"]
    assert (tmp_path / "secret").read_text() == "secret"


def test_missing_folder_of_a_database_is_created(store, tmp_path):
    database = Sqlite("database", tmp_path / "own" / "db" / "panel.db")
    database.path.parent.mkdir(parents=True)
    fill(database.path, "of the backup")
    create.create(store, [database])
    database.path.unlink()
    database.path.parent.rmdir()
    Restorer(store, [database], Panel()).restore(restore.plan(store, [database]))
    assert notes(database.path) == ["of the backup"]


@pytest.mark.parametrize("suffix", ["", *sqlite.COMPANIONS])
@pytest.mark.parametrize("among_files", [True, False])
def test_pipe_in_place_of_a_database_does_not_block(among_files, suffix, store, database, data):
    """SQLite would wait for a writer, so that any user who can write to the folder could stop all backups."""
    if suffix:
        fill(database.path, "text")
    os.mkfifo(f"{database.path}{suffix}")
    origins = [Files("data", data)] if among_files else [database]

    def back_up():
        with contextlib.nullcontext() if among_files else pytest.raises(BackupError, match="not a regular file"):
            assert create.create(store, origins).partial == bool(suffix)

    backup = multiprocessing.get_context("fork").Process(target=back_up)
    backup.start()
    backup.join(30)
    waits = backup.is_alive()
    backup.kill()
    assert not waits
    assert backup.exitcode == 0


def test_name_too_long_for_a_log_does_not_fail_the_backup(store, data):
    """A user who can create one file must not be able to stop all backups."""
    name = "a" * 255
    fill(data / "u.db", "text")
    (data / "u.db").rename(data / name)
    summary = create.create(store, [Files("data", data)])
    with store.open(summary.name) as found:
        assert f"files/data/{name}" in {entry.member.path for entry in found.entries()}


def test_folder_named_like_a_log_is_backed_up(store, data):
    fill(data / "u.db", "text")
    (data / "u.db-wal").mkdir()
    (data / "u.db-wal" / "file").write_text("")
    summary = create.create(store, [Files("data", data)])
    assert summary.partial
    with store.open(summary.name) as found:
        members = {entry.member.path for entry in found.entries()}
    assert {"files/data/u.db", "files/data/u.db-wal", "files/data/u.db-wal/file"} <= members


def test_copy_is_loaded_beside_a_folder_named_like_its_log(database):
    """The folder may appear between the check and the copy, and is then in the archive beside the copy."""
    fill(database.path, "text")
    Path(f"{database.path}-wal").mkdir()
    assert sqlite.check_and_count(database.path) == {"notes": 1}


def test_unreadable_file_is_named(store, data, monkeypatch):
    (data / "file").write_text("text")
    inode, read = (data / "file").stat().st_ino, os.read

    def fails(descriptor, size):
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", fails)
    with pytest.raises(BackupError, match=r"file: cannot read the file: Input/output error; repair it, or exclude it"):
        create.create(store, [Files("data", data)])


def test_virtual_table_of_an_extension_is_not_counted(store, database):
    """The app loads the extension. SQLite without it cannot read the table."""
    fill(database.path, "text")
    with opened(database.path) as changed:
        changed.execute("CREATE VIRTUAL TABLE vectors USING fts5(text)")
        changed.execute("PRAGMA writable_schema = ON")
        changed.execute("UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'vec0') WHERE name = 'vectors'")
    (source,) = create.create(store, [database]).sources
    assert source.rows["notes"] == 1
    assert "vectors" not in source.rows
    Restorer(store, [database], Panel()).restore(restore.plan(store, [database]))
    assert notes(database.path) == ["text"]


def test_too_many_tables_for_a_manifest(store, data):
    """A user who can write one file must not be able to stop all backups."""
    with opened(data / "many.db") as database:
        for number in range(300):
            database.execute(f"CREATE TABLE {'t' * 1000}{number} (id)")
    summary = create.create(store, [Files("data", data)])
    assert summary.sources[0].rows == {}
    assert "many to record" in summary.warnings[0]
    assert store.good()[-1].name == summary.name


def spoil_by_a_folder(data, _):
    (data / ".aapanel_canary").mkdir()


def spoil_by_a_table(_, database):
    with opened(database.path) as changed:
        changed.execute("CREATE TABLE aapanel_canary (other TEXT)")


@pytest.mark.parametrize("spoil", [spoil_by_a_folder, spoil_by_a_table])
def test_missing_canary_is_not_checked_by_a_restore(spoil, store, database, data):
    fill(database.path, "text")
    spoil(data, database)
    origins = [Files("data", data, exclude=("panel.db*",)), database]
    assert "no canary" in create.create(store, origins).warnings[0]
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert notes(database.path) == ["text"]


def test_changed_canary_is_reported(store, data, monkeypatch):
    write = directory._write_canary

    def change(folder, canary):
        write(folder, canary)
        (folder / ".aapanel_canary").write_bytes(b"\xff" * 1000)

    monkeypatch.setattr(directory, "_write_canary", change)
    origins = [Files("data", data)]
    create.create(store, origins)
    with pytest.raises(BackupError, match="the canary of the backup"):
        Restorer(store, origins, Panel()).restore(restore.plan(store, origins))


def test_excluded_file_stays_if_its_folder_was_not_backed_up(store, data):
    """The panel's own database is such a file. Its folder may be newer than the backup."""
    origins = [Files("data", data, exclude=("/db/panel.db", "*.lock"))]
    create.create(store, origins)
    (data / "db").mkdir(mode=0o750)
    if os.geteuid() == 0:
        os.chown(data / "db", 1234, 5678)
    before = (data / "db").stat()
    (data / "db" / "panel.db").write_text("live")
    (data / "db" / "other").write_text("younger than the backup")
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert [path.name for path in (data / "db").iterdir()] == ["panel.db"]
    after = (data / "db").stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_file_excluded_since_the_backup_does_not_survive_a_rollback(store, data):
    (data / "app.lock").write_text("of the backup")
    create.create(store, [Files("data", data)])
    (data / "app.lock").unlink()
    (data / "other.lock").write_text("live")
    fail_to_restore(store, [Files("data", data, exclude=("*.lock",))])
    assert {path.name for path in data.iterdir()} == {"other.lock", ".aapanel_canary"}


def test_file_excluded_since_the_backup_keeps_its_live_content(store, data):
    """The live file stays, because no snapshot contains it."""
    origins = [Files("data", data, exclude=("/uploads", "*.lock"))]
    (data / "uploads").mkdir()
    (data / "uploads" / "old").write_text("of the backup")
    (data / "app.lock").write_text("of the backup")
    (data / "only.lock").write_text("of the backup")
    (data / "file").write_text("of the backup")
    create.create(store, [Files("data", data)])
    (data / "uploads" / "old").rename(data / "uploads" / "new")
    (data / "app.lock").write_text("live")
    (data / "only.lock").unlink()
    (data / "file").write_text("live")
    fail_to_restore(store, origins)
    assert {path.name: path.read_text() for path in data.rglob("*") if path.is_file() and path.name[0] != "."} == {
        "new": "of the backup",
        "app.lock": "live",
        "file": "live",
    }
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert [path.name for path in (data / "uploads").iterdir()] == ["new"]
    assert (data / "app.lock").read_text() == "live"
    assert (data / "only.lock").read_text() == "of the backup"
    assert (data / "file").read_text() == "of the backup"


def test_excluded_files_are_not_searched_through_symlinks(store, data, tmp_path):
    """Files behind a symlink are not moved, so they must not replace files of the backup."""
    (data / "uploads").mkdir()
    (data / "uploads" / "one").write_text("of the backup")
    create.create(store, [Files("data", data)])
    (data / "uploads").rename(tmp_path / "uploads")
    (data / "uploads").symlink_to(tmp_path / "uploads")
    origins = [Files("data", data, exclude=("/uploads/*",))]
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert (data / "uploads" / "one").read_text() == "of the backup"
    assert not (data / "uploads").is_symlink()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY], ids=["immutable", "the root of a file system"])
def test_excluded_file_that_cannot_be_moved_back_is_kept(number, store, data, monkeypatch):
    """aaPanel makes .user.ini immutable, and so may a panel that was started on the restored data."""
    (data / ".user.ini").write_text("live")
    (data / "file").write_text("of the backup")
    origins = [Files("data", data, exclude=(".user.ini",))]
    create.create(store, origins)
    (data / "file").write_text("live")
    rename = os.rename

    def refused(name, *arguments, **folders):
        if name == ".user.ini":
            raise OSError(number, os.strerror(number))
        rename(name, *arguments, **folders)

    panel = Panel(False, writes=lambda: monkeypatch.setattr(os, "rename", refused))
    restorer = Restorer(store, origins, panel)
    with pytest.raises(
        BackupError, match=rf"^no answer; .*: \.user\.ini \({os.strerror(number)}\); move what you need"
    ):
        restorer.restore(restore.plan(store, origins))
    assert restorer.settle() == ""
    assert (data / "file").read_text() == "live"
    (aside,) = data.parent.glob("data.aside-*")
    assert (aside / ".user.ini").read_text() == "live"
    create.create(store, origins)


def test_excluded_file_without_a_place_in_the_live_folder_is_moved_aside(store, data):
    """The panel wrote it to the restored data, into a folder that is a file in the live data. It must not get lost."""
    (data / "foo").mkdir()
    (data / "foo" / "file").write_text("of the backup")
    (data / "kept.tmp").write_text("live")
    origins = [Files("data", data, exclude=("*.tmp",))]
    create.create(store, origins)
    (data / "foo" / "file").unlink()
    (data / "foo").rmdir()
    (data / "foo").write_text("live")
    panel = Panel(False, writes=lambda: (data / "foo" / "x.tmp").write_text("of the restored panel"))
    restorer = Restorer(store, origins, panel)
    with pytest.raises(BackupError, match=r"^no answer; .*/data: foo/x\.tmp \(Not a directory\)"):
        restorer.restore(restore.plan(store, origins))
    assert (data / "foo").read_text() == "live"
    assert (data / "kept.tmp").read_text() == "live"
    (aside,) = data.parent.glob("data.aside-*")
    assert (aside / "foo" / "x.tmp").read_text() == "of the restored panel"
    assert not restore.is_interrupted(store)


def test_excluded_file_without_a_place_in_the_backup_is_named(store, data):
    (data / "foo").write_text("of the backup")
    origins = [Files("data", data, exclude=("*.tmp",))]
    create.create(store, origins)
    (data / "foo").unlink()
    (data / "foo").mkdir()
    (data / "foo" / "x.tmp").write_text("live")
    with pytest.raises(BackupError, match=r"/data/foo/x\.tmp \(Not a directory\): it is excluded.*: move it"):
        Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert (data / "foo" / "x.tmp").read_text() == "live"
    assert not restore.is_interrupted(store)


def test_excluded_file_is_not_moved_through_a_symlink(store, data, tmp_path, monkeypatch):
    """An attacker may replace a folder by a symlink while the file is moved."""
    (data / "below").mkdir()
    origins = [Files("data", data, exclude=("*.lock",))]
    create.create(store, origins)
    (data / "below" / "evil.lock").write_text("theirs")
    (tmp_path / "cron.d").mkdir()
    swap = exchange.swap

    def exchanged(path, other):
        swap(path, other)
        (data / "below").rmdir()
        (data / "below").symlink_to(tmp_path / "cron.d")

    monkeypatch.setattr(exchange, "swap", exchanged)
    with contextlib.suppress(BackupError):
        Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert not list((tmp_path / "cron.d").iterdir())
    assert (data / "below" / "evil.lock").read_text() == "theirs"


def test_mounted_file_system_below_a_folder_is_refused(store):
    """It would be moved with the folder, and then emptied with the replaced data."""
    points = [Path(point) for point in directory._mounts(Path("/"))]
    assert Path("/proc") in points
    above = next((point.parent for point in points if point.parent not in {Path("/"), *points}), None)
    if above is None:
        pytest.skip("nothing is mounted in a folder that is no mount point")
    with pytest.raises(BackupError, match="is mounted below"):
        Files("data", above).staging_folder(above.parent / "restore")


def test_symlink_in_place_of_a_folder_is_refused(store, data, tmp_path):
    (tmp_path / "link").symlink_to(data)
    origins = [Files("data", tmp_path / "link")]
    create.create(store, origins)
    with pytest.raises(BackupError, match=r"link is a symlink, .*: configure its target"):
        Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["", "on another file system"])
def test_staging_folder_that_cannot_be_removed_is_reported_only(elsewhere, store, data, monkeypatch):
    (data / "file").write_text("text")
    origins = [Files("data", data)]
    create.create(store, origins)
    remove, name = restore.shutil.rmtree, ".aapanel.restore" if elsewhere else "restore"
    if elsewhere:
        monkeypatch.setattr(Files, "staging_folder", lambda mine, _: mine.path.parent / name)

    def fails(folder, ignore_errors=False):
        # With ignore_errors, rmtree raises nothing, but the folder stays.
        if folder.name.startswith(name) and not ignore_errors:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if not folder.name.startswith(name):
            remove(folder)

    monkeypatch.setattr(restore.shutil, "rmtree", fails)
    for _ in range(2):
        done = Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
        assert "left over and could not be removed (Operation not permitted)" in done.warnings[-1]
    create.create(store, origins)
    left = restore.leftovers(store)
    assert [folder.is_dir() and folder.name.startswith(name) for folder in left] == [True, True]
    problems = status.collect(store, origins, RecoveryObjectives(), {}).problems
    assert [f"{folder} is left over from a restore and could not be removed: remove it" for folder in left] == problems
    # A long operation may hold the locks.
    with restore.scratch_lock(store, 0), store.locked(0):
        assert Restorer(store, origins, Panel()).settle() == ""
        assert len(restore.leftovers(store)) == 2
        monkeypatch.undo()
        assert Restorer(store, origins, Panel()).settle() == ""
    assert not list(store.state_dir.glob("restore*"))
    # The operator has removed the folder.
    (store.state_dir / "restore.left-gone").symlink_to(data.parent / f"{name}.left-gone")
    assert restore.leftovers(store) == []
    assert not list(data.parent.glob(f"{name}*"))


def test_staging_folder_is_not_where_others_could_replace_it(tmp_path):
    home = tmp_path / "bob"
    (home / "mail").mkdir(parents=True)
    home.chmod(0o777)
    assert Files("mail", home / "mail")._staging_near(home) == tmp_path
    home.chmod(0o700)
    assert Files("mail", home / "mail")._staging_near(home) == home


def test_live_folder_is_recognised_by_its_inode_alone(tmp_path, monkeypatch):
    """The device number of its file system may change with a reboot."""
    present, other = tmp_path / "present", tmp_path / "other"
    present.mkdir()
    other.mkdir()
    (present / "file").write_text("live")
    exchange.swap(present, other)
    lstat = Path.lstat

    def rebooted(path):
        status = lstat(path)
        return os.stat_result([*status[:2], status.st_dev + 1, *status[3:10]])

    monkeypatch.setattr(Path, "lstat", rebooted)
    assert exchange.swap_back(present, other)
    assert (present / "file").read_text() == "live"


def test_unhealthy_panel_does_not_prevent_backups(store, data):
    """The live data is in place, and a deploy that repairs the panel needs a backup first."""
    (data / "file").write_text("of the backup")
    origins = [Files("data", data)]
    create.create(store, origins)
    (data / "file").write_text("live")
    restorer = Restorer(store, origins, Panel(False, False))
    with pytest.raises(BackupError, match=r"no answer\. The live data is back in place, but the panel is not healthy"):
        restorer.restore(restore.plan(store, origins))
    assert (data / "file").read_text() == "live"
    assert not restore.is_interrupted(store)
    assert restorer.settle() == ""


def test_interrupted_restore_is_settled_despite_an_unhealthy_panel(store, data):
    origins = [Files("data", data)]
    create.create(store, origins)
    (store.state_dir / "restore.json").write_text('{"phase": "loading", "staging": {}, "stopped": true}')
    with pytest.raises(UnhealthyError, match=r"no answer\. Solve that, and then run `panelctl start`"):
        Restorer(store, origins, Panel(False)).settle()
    assert not restore.is_interrupted(store)


def test_source_of_another_kind_is_not_restored(store, database, data):
    """It has the name of the source that was backed up, but another kind."""
    fill(database.path, "text")
    create.create(store, [database])
    with pytest.raises(BackupError, match="no good backup contains these sources"):
        restore.plan(store, [Files("database", data)])


def test_inner_folder_is_restored_after_the_outer_one(store, data):
    inner = data / "up"
    inner.mkdir()
    (inner / "file").write_text("older")
    create.create(store, [Files("data", data)])
    (inner / "file").write_text("newer")
    origins = [Files("a", inner), Files("data", data)]
    create.create(store, origins[:1])
    (inner / "file").write_text("live")
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert (inner / "file").read_text() == "newer"
