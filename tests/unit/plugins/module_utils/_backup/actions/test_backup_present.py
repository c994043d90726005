# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is when somebody backs up or restores: left half done by an app, odd, or made so by who wants to harm."""

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

# Dies in a transaction of which some is in the file already.
DIES = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA cache_size = 5")
database.execute("UPDATE notes SET text = 'changed' || text")
os.kill(os.getpid(), 9)
"""


class Panel:
    """An app that becomes healthy, or not, as often as is said; and then always.

    :param writes: what it does where it does not become healthy.
    :param ends: what it does when it is stopped.
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


def test_a_present_of_another_page_size_comes_back(store, database):
    """SQLite copies none over one of another page size in WAL mode."""
    fill(database.path, "of the backup", page_size=1024, wal=True)
    create.create(store, [database])
    database.path.unlink()
    fill(database.path, "the present", wal=True)
    fail_to_restore(store, [database])
    assert notes(database.path) == ["the present"]


def test_what_an_app_left_half_done_is_undone_and_comes_back(store, database):
    fill(database.path, *["a" * 500] * 2000)
    create.create(store, [database])
    subprocess.run([sys.executable, "-c", DIES, str(database.path)], check=False)
    assert Path(f"{database.path}-journal").exists()
    fail_to_restore(store, [database], snapshot=False)
    assert notes(database.path) == ["a" * 500] * 2000


def other_folder(path):
    """What an app might make of its database on what was restored, or somebody who wants to harm."""
    path.unlink()
    path.mkdir()
    (path / "file").write_text("theirs")


def folder_beside(path):
    path.unlink()
    Path(f"{path}-wal").mkdir()


@pytest.mark.parametrize("present", ["whole", "broken", "absent"])
@pytest.mark.parametrize("make", [other_folder, folder_beside])
def test_a_folder_in_the_place_of_a_database_goes_aside(make, present, store, database, data):
    fill(database.path, "of the backup")
    create.create(store, [database])
    database.path.unlink()
    if present == "whole":
        fill(database.path, "the present")
    elif present == "broken":
        database.path.write_bytes(b"no database")
    panel = Panel(False, writes=lambda: make(database.path))
    restorer = Restorer(store, [database], panel)
    with pytest.raises(BackupError, match=r"^no answer; .* was in the way, and is .*\.aside-.* now$"):
        restorer.restore(restore.plan(store, [database]), snapshot=False)
    assert restorer.settle() == ""
    aside = [path for path in data.iterdir() if ".aside-" in path.name]
    assert len(aside) == 1
    assert make is folder_beside or (aside[0] / "file").read_text() == "theirs"
    assert len(list(data.iterdir())) == (1 if present == "absent" else 2)
    if present == "whole":
        assert notes(database.path) == ["the present"]
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
def test_what_is_no_folder_above_a_database_goes_aside(make, present, store, database, data):
    fill(database.path, "the present")
    create.create(store, [database])
    if not present:
        database.path.unlink()
    restorer = Restorer(store, [database], Panel(False, writes=lambda: make(database.path)))
    with pytest.raises(BackupError, match=r"^no answer"):
        restorer.restore(restore.plan(store, [database]), snapshot=False)
    assert not restore.is_interrupted(store)
    if present:
        assert notes(database.path) == ["the present"]
        assert len(list(data.parent.glob("data.aside-*"))) == 1
    else:
        with pytest.raises(BackupError, match=rf"^{data}: this is no folder, .*: move it$"):
            restorer.restore(restore.plan(store, [database]), snapshot=False)


@pytest.mark.parametrize("gone", ["staging", "room"])
def test_what_keeps_the_present_from_its_place_is_told_with_its_cure(gone, store, database, monkeypatch):
    fill(database.path, "text")
    create.create(store, [database])

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    def writes():
        if gone == "staging":
            restore.shutil.rmtree(store.state_dir / "restore")
        else:
            monkeypatch.setattr(sqlite, "_put", fail)

    with pytest.raises(BackupError, match=r"^no answer\. And the rollback failed: .*panelctl backup settle"):
        Restorer(store, [database], Panel(False, writes=writes)).restore(restore.plan(store, [database]))
    assert restore.is_interrupted(store)


def test_the_present_comes_back_with_all_that_it_is(store, database):
    """Also where it cannot be copied into what is there by then."""
    fill(database.path, "the present")
    create.create(store, [database])
    database.path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(database.path, 1234, 5678)
    os.utime(database.path, (1e9, 1e9))
    with contextlib.suppress(OSError):
        os.setxattr(database.path, "user.of", b"the present")
    before, attributes = database.path.stat(), os.listxattr(database.path)
    fail_to_restore(store, [database], snapshot=False)
    panel = Panel(False, writes=database.path.unlink)
    with pytest.raises(BackupError, match=r"^no answer$"):
        Restorer(store, [database], panel).restore(restore.plan(store, [database]), snapshot=False)
    after = database.path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert os.listxattr(database.path) == attributes


def test_a_copy_is_what_it_was_copied_from_and_sweeps(tmp_path):
    origin, target = tmp_path / "origin", tmp_path / "a[b]"
    origin.write_text("text")
    os.utime(origin, (1e9, 1e9))
    (tmp_path / f".{target.name}.unfinished-of-one-that-was-killed").write_text("")
    nofollow.copy(origin, target)
    assert (target.read_text(), target.stat().st_mtime) == ("text", 1e9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a[b]", "origin"]


def test_nobody_is_given_another_folder(tmp_path, monkeypatch):
    """By an exchange of what was made just now, which he sees, for one that is root's."""
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
def test_what_is_no_file_is_refused_before_anything_is_touched(what, store, database):
    fill(database.path, "text")
    create.create(store, [database])
    odd = database.path if what == "database" else Path(f"{database.path}-wal")
    odd.unlink(missing_ok=True)
    odd.mkdir()
    with pytest.raises(BackupError, match=rf"^{odd}: this is no file"):
        Restorer(store, [database], Panel()).restore(restore.plan(store, [database]), snapshot=False)
    assert not restore.is_interrupted(store)
    assert odd.is_dir()


def test_no_link_leads_to_another_database(store, database, tmp_path):
    """Who can write where a database is would have root write into one that is not his."""
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
        with pytest.raises(BackupError, match=r"panel\.db is a link, .*: name where it leads to"):
            action()
    # And where it becomes one only when it is put back.
    database.path.unlink()
    fill(database.path, "the present")

    def lead_away():
        database.path.unlink()
        database.path.symlink_to(tmp_path / "theirs.db")

    with pytest.raises(BackupError, match=r"^no answer$"):
        Restorer(store, [database], Panel(False, writes=lead_away)).restore(restore.plan(store, [database]))
    assert notes(database.path) == ["the present"]
    assert not database.path.is_symlink()
    assert (tmp_path / "theirs.db").read_bytes() == before


def test_a_log_that_goes_meanwhile_is_not_missed(database, monkeypatch):
    """An app that closes its database removes it."""
    fill(database.path, "text")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name.endswith("-wal") or exists(path))
    assert database.size() == database.path.stat().st_size


def test_a_broken_present_comes_back_with_its_log(store, database, data):
    """Somebody may yet save something from it."""
    fill(database.path, "of the backup")
    create.create(store, [database])
    present = {"panel.db": os.urandom(8192), "panel.db-wal": os.urandom(4096)}
    for name, content in present.items():
        (data / name).write_bytes(content)
    fail_to_restore(store, [database], snapshot=False)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == present


def test_nobody_reads_what_his_log_leads_to(store, database, data, tmp_path):
    """Root would copy it, and put the copy back where he can read it."""
    fill(database.path, "of the backup")
    create.create(store, [database])
    (tmp_path / "secret").write_text("secret")
    database.path.write_bytes(os.urandom(8192))
    panel = Panel(False, ends=lambda: Path(f"{database.path}-wal").symlink_to(tmp_path / "secret"))
    with pytest.raises(BackupError, match=r"panel\.db-wal: Too many levels of symbolic links"):
        Restorer(store, [database], panel).restore(restore.plan(store, [database]), snapshot=False)
    assert not [path for path in data.iterdir() if not path.is_symlink() and path.read_bytes() == b"secret"]
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_database_s_folder_that_is_gone_is_made_again(store, tmp_path):
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
def test_a_pipe_where_a_database_is_makes_nobody_wait(among_files, suffix, store, database, data):
    """SQLite would, for somebody who writes into it: whoever can write there would have stopped all backups."""
    if suffix:
        fill(database.path, "text")
    os.mkfifo(f"{database.path}{suffix}")
    origins = [Files("data", data)] if among_files else [database]

    def back_up():
        with contextlib.nullcontext() if among_files else pytest.raises(BackupError, match="this is no file"):
            assert create.create(store, origins).partial == bool(suffix)

    backup = multiprocessing.get_context("fork").Process(target=back_up)
    backup.start()
    backup.join(30)
    waits = backup.is_alive()
    backup.kill()
    assert not waits
    assert backup.exitcode == 0


def test_a_name_that_is_too_long_for_a_log_ends_no_backup(store, data):
    """Whoever can write one file must not be able to."""
    name = "a" * 255
    fill(data / "u.db", "text")
    (data / "u.db").rename(data / name)
    summary = create.create(store, [Files("data", data)])
    with store.open(summary.name) as found:
        assert f"files/data/{name}" in {entry.member.path for entry in found.entries()}


def test_a_folder_that_is_called_like_a_log_is_one(store, data):
    fill(data / "u.db", "text")
    (data / "u.db-wal").mkdir()
    (data / "u.db-wal" / "file").write_text("")
    summary = create.create(store, [Files("data", data)])
    assert summary.partial
    with store.open(summary.name) as found:
        members = {entry.member.path for entry in found.entries()}
    assert {"files/data/u.db", "files/data/u.db-wal", "files/data/u.db-wal/file"} <= members


def test_a_copy_is_loaded_whatever_is_called_like_its_log(database):
    """It may have come between the look and the copy, and would be in the archive beside that."""
    fill(database.path, "text")
    Path(f"{database.path}-wal").mkdir()
    assert sqlite.inspect(database.path) == {"notes": 1}


def test_a_file_that_cannot_be_read_is_named(store, data, monkeypatch):
    (data / "file").write_text("text")
    inode, read = (data / "file").stat().st_ino, os.read

    def fails(descriptor, size):
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", fails)
    with pytest.raises(BackupError, match=r"files/data/file: Input/output error; mend that, or exclude it"):
        create.create(store, [Files("data", data)])


def test_a_table_of_an_extension_is_not_counted(store, database):
    """Its app loads that; SQLite by itself does not know it."""
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


def test_more_tables_than_a_manifest_has_room_for(store, data):
    """Whoever can write one file must not be able to end all backups."""
    with opened(data / "many.db") as database:
        for number in range(300):
            database.execute(f"CREATE TABLE {'t' * 1000}{number} (id)")
    summary = create.create(store, [Files("data", data)])
    assert summary.sources[0].rows == {}
    assert "many to write down" in summary.warnings[0]
    assert store.good()[-1].name == summary.name


def spoil_by_a_folder(data, _):
    (data / ".aapanel_canary").mkdir()


def spoil_by_a_table(_, database):
    with opened(database.path) as changed:
        changed.execute("CREATE TABLE aapanel_canary (other TEXT)")


@pytest.mark.parametrize("spoil", [spoil_by_a_folder, spoil_by_a_table])
def test_where_no_canary_could_be_written_none_is_looked_for(spoil, store, database, data):
    fill(database.path, "text")
    spoil(data, database)
    origins = [Files("data", data, exclude=("panel.db*",)), database]
    assert "no canary" in create.create(store, origins).warnings[0]
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert notes(database.path) == ["text"]


def test_a_canary_that_somebody_changed_is_told_of(store, data, monkeypatch):
    write = directory._write_canary

    def change(folder, canary):
        write(folder, canary)
        (folder / ".aapanel_canary").write_bytes(b"\xff" * 1000)

    monkeypatch.setattr(directory, "_write_canary", change)
    origins = [Files("data", data)]
    create.create(store, origins)
    with pytest.raises(BackupError, match="the canary that was written before the backup"):
        Restorer(store, origins, Panel()).restore(restore.plan(store, origins))


def test_what_is_excluded_stays_where_its_folder_was_not_backed_up(store, data):
    """The panel's own database is such a file, in a folder that may be younger than the backup."""
    origins = [Files("data", data, exclude=("/db/panel.db", "*.lock"))]
    create.create(store, origins)
    (data / "db").mkdir(mode=0o750)
    if os.geteuid() == 0:
        os.chown(data / "db", 1234, 5678)
    before = (data / "db").stat()
    (data / "db" / "panel.db").write_text("the present")
    (data / "db" / "other").write_text("younger than the backup")
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert [path.name for path in (data / "db").iterdir()] == ["panel.db"]
    after = (data / "db").stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_what_was_excluded_only_since_is_not_put_back_into_the_present(store, data):
    (data / "app.lock").write_text("of the backup")
    create.create(store, [Files("data", data)])
    (data / "app.lock").unlink()
    (data / "other.lock").write_text("the present")
    fail_to_restore(store, [Files("data", data, exclude=("*.lock",))])
    assert {path.name for path in data.iterdir()} == {"other.lock", ".aapanel_canary"}


def test_what_is_excluded_only_since_is_the_present_one(store, data):
    """What stays is what there is, and no backup of the present would have it."""
    origins = [Files("data", data, exclude=("/uploads", "*.lock"))]
    (data / "uploads").mkdir()
    (data / "uploads" / "old").write_text("of the backup")
    (data / "app.lock").write_text("of the backup")
    (data / "only.lock").write_text("of the backup")
    (data / "file").write_text("of the backup")
    create.create(store, [Files("data", data)])
    (data / "uploads" / "old").rename(data / "uploads" / "new")
    (data / "app.lock").write_text("the present")
    (data / "only.lock").unlink()
    (data / "file").write_text("the present")
    fail_to_restore(store, origins)
    assert {path.name: path.read_text() for path in data.rglob("*") if path.is_file() and path.name[0] != "."} == {
        "new": "of the backup",
        "app.lock": "the present",
        "file": "the present",
    }
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert [path.name for path in (data / "uploads").iterdir()] == ["new"]
    assert (data / "app.lock").read_text() == "the present"
    assert (data / "only.lock").read_text() == "of the backup"
    assert (data / "file").read_text() == "of the backup"


def test_what_is_excluded_only_since_is_not_looked_for_through_links(store, data, tmp_path):
    """What is elsewhere is not carried, and so does not take the place of what was here."""
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
def test_nothing_of_the_present_goes_that_cannot_get_back(number, store, data, monkeypatch):
    """aaPanel makes .user.ini immutable, and so may the panel that was started on what was restored."""
    (data / ".user.ini").write_text("the present")
    (data / "file").write_text("of the backup")
    origins = [Files("data", data, exclude=(".user.ini",))]
    create.create(store, origins)
    (data / "file").write_text("the present")
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
    assert (data / "file").read_text() == "the present"
    (aside,) = data.parent.glob("data.aside-*")
    assert (aside / ".user.ini").read_text() == "the present"
    create.create(store, origins)


def test_what_has_no_place_in_the_present_goes_aside(store, data):
    """Or nothing was backed up any more: the panel wrote it on what was restored, into a folder that is a file now."""
    (data / "foo").mkdir()
    (data / "foo" / "file").write_text("of the backup")
    (data / "kept.tmp").write_text("the present")
    origins = [Files("data", data, exclude=("*.tmp",))]
    create.create(store, origins)
    (data / "foo" / "file").unlink()
    (data / "foo").rmdir()
    (data / "foo").write_text("the present")
    panel = Panel(False, writes=lambda: (data / "foo" / "x.tmp").write_text("of the restored panel"))
    restorer = Restorer(store, origins, panel)
    with pytest.raises(BackupError, match=r"^no answer; .*/data: foo/x\.tmp \(Not a directory\)"):
        restorer.restore(restore.plan(store, origins))
    assert (data / "foo").read_text() == "the present"
    assert (data / "kept.tmp").read_text() == "the present"
    (aside,) = data.parent.glob("data.aside-*")
    assert (aside / "foo" / "x.tmp").read_text() == "of the restored panel"
    assert not restore.is_interrupted(store)


def test_what_has_no_place_in_the_backup_is_named(store, data):
    (data / "foo").write_text("of the backup")
    origins = [Files("data", data, exclude=("*.tmp",))]
    create.create(store, origins)
    (data / "foo").unlink()
    (data / "foo").mkdir()
    (data / "foo" / "x.tmp").write_text("the present")
    with pytest.raises(BackupError, match=r"/data/foo/x\.tmp \(Not a directory\): it is excluded.*: move it"):
        Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert (data / "foo" / "x.tmp").read_text() == "the present"
    assert not restore.is_interrupted(store)


def test_nobody_leads_what_is_excluded_elsewhere(store, data, tmp_path, monkeypatch):
    """By a link in the place of a folder, while it is on its way."""
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


def test_a_file_system_below_a_folder_is_not_moved_away(store):
    """And then emptied with what was there before."""
    points = [Path(point) for point in directory._mounts(Path("/"))]
    assert Path("/proc") in points
    above = next((point.parent for point in points if point.parent not in {Path("/"), *points}), None)
    if above is None:
        pytest.skip("nothing is mounted in a folder that is no mount point")
    with pytest.raises(BackupError, match="is mounted below"):
        Files("data", above).staging_folder(above.parent / "restore")


def test_a_link_does_not_become_a_folder(store, data, tmp_path):
    (tmp_path / "link").symlink_to(data)
    origins = [Files("data", tmp_path / "link")]
    create.create(store, origins)
    with pytest.raises(BackupError, match=r"link is a link, .*: name where it leads to"):
        Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["", "on another file system"])
def test_a_folder_that_cannot_be_removed_is_told_of_and_keeps_nobody(elsewhere, store, data, monkeypatch):
    (data / "file").write_text("text")
    origins = [Files("data", data)]
    create.create(store, origins)
    remove, name = restore.shutil.rmtree, ".aapanel.restore" if elsewhere else "restore"
    if elsewhere:
        monkeypatch.setattr(Files, "staging_folder", lambda mine, _: mine.path.parent / name)

    def fails(folder, ignore_errors=False):
        # Who ignores errors hears of none, and it stays all the same.
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
    # Something long may be at work meanwhile.
    with restore.scratch_lock(store, 0), store.locked(0):
        assert Restorer(store, origins, Panel()).settle() == ""
        assert len(restore.leftovers(store)) == 2
        monkeypatch.undo()
        assert Restorer(store, origins, Panel()).settle() == ""
    assert not list(store.state_dir.glob("restore*"))
    # Somebody did as he was told.
    (store.state_dir / "restore.left-gone").symlink_to(data.parent / f"{name}.left-gone")
    assert restore.leftovers(store) == []
    assert not list(data.parent.glob(f"{name}*"))


def test_what_is_loaded_is_not_where_others_could_exchange_it(tmp_path):
    home = tmp_path / "bob"
    (home / "mail").mkdir(parents=True)
    home.chmod(0o777)
    assert Files("mail", home / "mail")._staging_near(home) == tmp_path
    home.chmod(0o700)
    assert Files("mail", home / "mail")._staging_near(home) == home


def test_the_present_is_known_by_its_inode_alone(tmp_path, monkeypatch):
    """What number its file system has may be another one after a reboot."""
    present, other = tmp_path / "present", tmp_path / "other"
    present.mkdir()
    other.mkdir()
    (present / "file").write_text("the present")
    exchange.swap(present, other)
    lstat = Path.lstat

    def rebooted(path):
        status = lstat(path)
        return os.stat_result([*status[:2], status.st_dev + 1, *status[3:10]])

    monkeypatch.setattr(Path, "lstat", rebooted)
    assert exchange.swap_back(present, other)
    assert (present / "file").read_text() == "the present"


def test_a_panel_that_stays_unhealthy_is_no_reason_to_have_no_backups(store, data):
    """The present is in its place; a deploy that would mend the panel wants a backup first."""
    (data / "file").write_text("of the backup")
    origins = [Files("data", data)]
    create.create(store, origins)
    (data / "file").write_text("the present")
    restorer = Restorer(store, origins, Panel(False, False))
    with pytest.raises(BackupError, match=r"no answer\. The live data is back in place, but the panel is not healthy"):
        restorer.restore(restore.plan(store, origins))
    assert (data / "file").read_text() == "the present"
    assert not restore.is_interrupted(store)
    assert restorer.settle() == ""


def test_one_that_died_is_settled_though_the_panel_is_unhealthy(store, data):
    origins = [Files("data", data)]
    create.create(store, origins)
    (store.state_dir / "restore.json").write_text('{"phase": "loading", "staging": {}, "stopped": true}')
    with pytest.raises(UnhealthyError, match=r"no answer\. Solve that, and then run `panelctl start`"):
        Restorer(store, origins, Panel(False)).settle()
    assert not restore.is_interrupted(store)


def test_a_source_of_another_kind_is_not_brought_back(store, database, data):
    """It has the same name, and what was backed up under that is none of it."""
    fill(database.path, "text")
    create.create(store, [database])
    with pytest.raises(BackupError, match="no good backup contains these sources"):
        restore.plan(store, [Files("database", data)])


def test_a_folder_in_another_one_comes_after_it(store, data):
    inner = data / "up"
    inner.mkdir()
    (inner / "file").write_text("older")
    create.create(store, [Files("data", data)])
    (inner / "file").write_text("newer")
    origins = [Files("a", inner), Files("data", data)]
    create.create(store, origins[:1])
    (inner / "file").write_text("the present")
    Restorer(store, origins, Panel()).restore(restore.plan(store, origins))
    assert (inner / "file").read_text() == "newer"
