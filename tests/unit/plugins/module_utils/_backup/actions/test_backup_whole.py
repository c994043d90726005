# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From files and a database to an archive and back; every manipulation on the way is noticed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import sqlite3
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, extract
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import (
    compression,
    manifest,
    names,
    paths,
)
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError, NotAuthenticError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import directory, sqlite
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import State, Store
from faulty_host import records


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    (root / "empty").mkdir(parents=True)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "file").write_bytes(os.urandom(3000))
    (root / "deep" / "private").write_text("x" * 100_000)
    (root / "deep" / "private").chmod(0o600)
    (root / os.fsdecode(b"no utf-8 \xff")).write_text("y")
    (root / "none").touch()
    (root / "locked").mkdir(mode=0o500)
    (root / "link").symlink_to("none")
    os.mkfifo(root / "pipe")
    (root / "cache").mkdir()
    (root / "cache" / "left.out").write_text("z")
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "tool").chmod(0o4755)
    return root


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "panel.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, amount INTEGER)")
        connection.executemany("INSERT INTO accounts (amount) VALUES (?)", [(100,)] * 50)
    return path


@pytest.fixture
def origins(data, database):
    return [directory.Files("data", data, exclude=("cache",)), sqlite.Sqlite("panel", database)]


def tree(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o777, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def restore(store, name, to):
    with extract.verified_backup(store, name) as (found, archive):
        extract.extract(found, archive, to)


def test_extracted_content_equals_the_sources(store, origins, data, database, tmp_path):
    summary = create.create(store, origins)
    assert [backup.state for backup in store.backups()] == [State.GOOD]
    assert store.good()[-1].summary == summary
    restore(store, summary.name, tmp_path / "restored")
    expected = tree(data)
    for gone in ("link", "pipe", "cache", "cache/left.out"):
        del expected[gone]
    expected["tool"] = (0o755, b"#!/bin/sh\n")
    assert tree(tmp_path / "restored/files/data") == expected
    assert (tmp_path / "restored/files/data/none").stat().st_mtime == int((data / "none").stat().st_mtime)
    with sqlite3.connect(tmp_path / "restored/sqlite/panel.sqlite3") as copy:
        assert copy.execute("SELECT count(*), sum(amount) FROM accounts").fetchone() == (50, 5000)
    assert summary.sources[1].rows == {"accounts": 50, "aapanel_canary": 1}
    # Skipped files are reported, but are no failure: a pipe cannot be restored.
    assert [warning.split(": ")[0] for warning in summary.warnings] == [str(data / "link"), str(data / "pipe")]
    assert not summary.partial


def test_standard_tools_can_read_a_backup(store, origins):
    summary = create.create(store, origins)
    archive = store.path(summary.name, names.ARCHIVE)
    info = dict(line.split(": ", 1) for line in store.path(summary.name, names.INFO).read_text().splitlines())
    assert info["Format"] == "v2"
    assert info["SHA256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    with tarfile.open(archive) as other:
        assert len(other.getmembers()) == summary.members == int(info["Members"])
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in store.folder.iterdir())


@pytest.mark.parametrize("tools", [(), (("pigz", "-1", "--stdout"),), (("igzip", "-1", "--stdout"),)])
def test_all_compressors_and_readers(tools, store, origins, tmp_path, monkeypatch):
    if tools and not shutil.which(tools[0][0]):
        pytest.skip(f"{tools[0][0]} is not installed")
    readers = [(tool[0], "--decompress", "--stdout") for tool in tools]
    monkeypatch.setattr(compression.GzipWriter.__init__, "__defaults__", (tools,))
    monkeypatch.setattr(compression.GzipReader.__init__, "__defaults__", (readers,))
    summary = create.create(store, origins)
    restore(store, summary.name, tmp_path / "restored")


class Served(sqlite.Sqlite):
    """A database that is dumped like one of a database server."""

    database = "served"

    def size(self):
        return 40 << 20


@pytest.fixture
def sizes(origins, database, monkeypatch):
    """Sources of 10, 30 and 40 MiB; the last two are databases."""
    monkeypatch.setattr(directory.Files, "size", lambda _: 10 << 20)
    monkeypatch.setattr(sqlite.Sqlite, "size", lambda _: 30 << 20)
    return [*origins, Served("served", database)]


@pytest.mark.parametrize("beside", [True, False], ids=["one disk", "two disks"])
def test_backup_that_may_not_fit_is_refused(beside, store, sizes, memory, monkeypatch):
    store = store if beside else Store(store.folder, memory / "state", store.host, store.keys)
    store.state_dir.mkdir()
    if not beside and store.state_dir.stat().st_dev == store.folder.parent.stat().st_dev:
        pytest.skip("there is but one file system here")
    free = {store.folder: 64 + 80 + (40 if beside else 0), **({} if beside else {store.state_dir: 64 + 40})}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path] << 20))
    create.create(store, sizes)
    for folder in list(free):
        free[folder] -= 1
        with pytest.raises(BackupError, match=rf"^{folder}: {free[folder]} MiB .* may need {free[folder] + 1} MiB\."):
            create.create(store, sizes)
        free[folder] += 1
    assert len(store.good()) == 1
    # Files are not copied before they are archived.
    free |= {store.folder: 64 + 10, **({} if beside else {store.state_dir: 0})}
    create.create(store, sizes[:1])


def test_databases_among_files_count_for_the_free_space(store, data, database, monkeypatch):
    """Databases among files are copied beside the archive."""
    database.rename(data / "mail.db")
    (data / "mail.db").open("ab").truncate(30 << 20)
    free = {store.folder: 1024, store.state_dir: 64 + 30}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path] << 20))
    create.create(store, [directory.Files("data", data)])
    free[store.state_dir] -= 1
    with pytest.raises(BackupError, match=rf"^{store.state_dir}: 93 MiB .* the copy of .*/mail.db may need 94 MiB\."):
        create.create(store, [directory.Files("data", data)])
    assert len(store.good()) == 1


def test_each_backup_names_its_predecessor(store, origins):
    made = [create.create(store, origins) for _ in range(3)]
    found = store.backups()
    assert [backup.summary for backup in found] == made
    assert [backup.summary.previous for backup in found] == ["", found[0].sha256, found[1].sha256]


def test_backup_of_a_busy_database_is_consistent(store, database, tmp_path):
    """Money moves between accounts all the time, but the sum never changes."""
    stop = threading.Event()

    def move():
        connection = sqlite3.connect(database, timeout=30, isolation_level=None)
        moves = 0
        while not stop.is_set():
            connection.execute("BEGIN IMMEDIATE")
            for number, amount in ((moves % 50 + 1, -7), ((moves * 3 + 1) % 50 + 1, 7)):
                connection.execute("UPDATE accounts SET amount = amount + ? WHERE id = ?", (amount, number))
            connection.execute("COMMIT")
            moves += 1
        connection.close()

    mover = threading.Thread(target=move)
    mover.start()
    try:
        made = [create.create(store, [sqlite.Sqlite("panel", database)]) for _ in range(5)]
    finally:
        stop.set()
        mover.join()
    for number, summary in enumerate(made):
        restore(store, summary.name, tmp_path / str(number))
        with sqlite3.connect(tmp_path / str(number) / "sqlite/panel.sqlite3") as copy:
            assert copy.execute("SELECT sum(amount) FROM accounts").fetchone() == (5000,)


@pytest.mark.parametrize("content", [None, b"", b"no database" * 100])
def test_file_that_is_no_database_fails_the_backup(content, store, tmp_path, origins):
    good = create.create(store, origins)
    broken = tmp_path / "broken.db"
    if content is not None:
        broken.write_bytes(content)
    if content == b"":
        # An empty file is a valid empty database for SQLite, but a lost one for its owner.
        assert create.create(store, [sqlite.Sqlite("broken", broken)]).sources[0].rows == {}
        return
    with pytest.raises(BackupError, match=r"broken\.db"):
        create.create(store, [*origins, sqlite.Sqlite("broken", broken)])
    assert not broken.exists() or content is not None
    assert [backup.name for backup in store.backups()] == [good.name]
    assert len(list(store.folder.iterdir())) == 3


def test_damaged_database_fails_the_backup(store, database, origins):
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE INDEX amounts ON accounts (amount)")
        connection.execute("PRAGMA writable_schema = ON")
        # The index now refers to another column, and does not contain its values.
        connection.execute(
            "UPDATE sqlite_master SET sql = 'CREATE INDEX amounts ON accounts (id)' WHERE name = 'amounts'"
        )
    connection.close()
    with pytest.raises(BackupError, match=r"the database is corrupt: .*amounts"):
        create.create(store, origins)
    assert store.backups() == []


def test_file_that_changes_is_reported(store, data, monkeypatch):
    read = os.read

    def slow(descriptor, size):
        if descriptor > 2 and Path(f"/proc/self/fd/{descriptor}").readlink() == data / "deep" / "private":
            os.truncate(data / "deep" / "private", 50_000)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", slow)
    summary = create.create(store, [directory.Files("data", data)])
    assert summary.partial
    assert any("became shorter" in warning for warning in summary.warnings)


@pytest.fixture
def small(store, tmp_path):
    root = tmp_path / "small"
    root.mkdir()
    (root / "file").write_text("content\n")
    return create.create(store, [directory.Files("small", root)])


def untouched(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(store, name, tmp_path):
    with pytest.raises(NotAuthenticError):
        restore(store, name, tmp_path / "restored")
    assert not (tmp_path / "restored").exists(), "something was read before it was verified"


@pytest.mark.parametrize("suffix", [names.ARCHIVE, names.MANIFEST])
def test_flipped_bit_is_found_at_every_byte(suffix, store, small, tmp_path):
    path = store.path(small.name, suffix)
    good = path.read_bytes()
    for place in range(len(good)):
        broken = bytearray(good)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        refused(store, small.name, tmp_path)
    path.write_bytes(good)
    restore(store, small.name, tmp_path / "restored")


@pytest.mark.parametrize("suffix", [names.ARCHIVE, names.MANIFEST])
def test_truncation_is_found_at_every_length(suffix, store, small, tmp_path):
    path = store.path(small.name, suffix)
    good = path.read_bytes()
    for size in (*range(len(good)), len(good) + 1):
        path.write_bytes((good + b"\n")[:size])
        refused(store, small.name, tmp_path)


def test_manifest_of_another_backup_is_refused(store, small, origins, tmp_path, keys):
    other = create.create(store, origins)
    for suffix in names.SUFFIXES:
        shutil.copy(store.path(other.name, suffix), store.path(small.name, suffix))
    refused(store, small.name, tmp_path)
    assert {backup.name: backup.state for backup in store.backups()} == {
        small.name: State.REPLAYED,
        other.name: State.GOOD,
    }
    # Another installation with the same key.
    elsewhere = Store(tmp_path / "elsewhere", tmp_path / "elsewhere-state", "host-2", keys)
    theirs = create.create(elsewhere, origins)
    for suffix in names.SUFFIXES:
        shutil.copy(elsewhere.path(theirs.name, suffix), store.path(theirs.name, suffix))
    refused(store, theirs.name, tmp_path)


def test_pruned_backup_that_reappears_is_refused(store, small, origins, tmp_path):
    kept = untouched(store.folder)
    create.create(store, origins)
    with store.locked() as ledger:
        store.remove(store.backups()[0], ledger, "2026-11-22T00:00:00Z")
    for name, content in kept.items():
        (store.folder / name).write_bytes(content)
    refused(store, small.name, tmp_path)
    assert store.backups()[0].state is State.REPLAYED


def test_deleted_backup_is_reported_as_missing(store, small):
    for path in store.folder.iterdir():
        path.unlink()
    assert [(backup.name, backup.state) for backup in store.backups()] == [(small.name, State.MISSING)]


def test_forged_catalog_is_refused(store, small, origins, tmp_path):
    create.create(store, origins)
    ledger = store.state_dir / "ledger"
    good = ledger.read_bytes()
    announced, first, second = good.splitlines(keepends=True)
    for forged in (
        *(first, second, announced + second, first + announced + second, announced + second + first),
        *(announced + announced, announced + first + first),
        announced + first + second.replace(b"created", b"pruned "),
    ):
        ledger.write_bytes(forged)
        refused(store, small.name, tmp_path)
    # A line that a crash has cut off was never acknowledged.
    ledger.write_bytes(announced + first + second[:-5])
    assert [backup.state for backup in store.backups()] == [State.GOOD, State.GOOD]
    with store.locked():
        pass
    assert len(records(store)) == 3


def test_wrong_key_and_old_key(store, small, tmp_path, keys):
    rotated = keys.rotated("2026-11-23")
    after = Store(store.folder, store.state_dir, store.host, rotated)
    restore(after, small.name, tmp_path / "restored")
    shutil.rmtree(tmp_path / "restored")
    gone = Store(
        store.folder,
        store.state_dir,
        store.host,
        type(keys)(rotated.signer, {rotated.signer: rotated.masters[rotated.signer]}),
    )
    refused(gone, small.name, tmp_path)


def test_manifest_cannot_choose_its_algorithm(store, small, tmp_path):
    path = store.path(small.name, names.MANIFEST)
    good = path.read_bytes()
    for word in (b"signature none ", b"signature md5 ", b"signature  "):
        path.write_bytes(good.replace(b"signature ", word))
        refused(store, small.name, tmp_path)


@pytest.mark.parametrize("path", ["000", "001", "099", "100"])
def test_digest_of_each_file_is_compared(path, store, tmp_path):
    """This protects against changes after the digest of the whole archive was compared."""
    root = tmp_path / "many"
    root.mkdir()
    for number in range(101):
        # Large files are hashed in another thread.
        (root / f"{number:03}").write_bytes(b"x" * (300_000 if number % 2 else 10))
    made = create.create(store, [directory.Files("many", root)])
    with extract.verified_backup(store, made.name) as (found, archive):
        lines = store.path(made.name, names.MANIFEST).read_bytes()
        wrong = re.sub(rb'(many/%s","sha256":")[0-9a-f]{64}' % path.encode(), rb"\g<1>" + b"0" * 64, lines)
        assert wrong != lines
        forged = replace(found, _stream=io.BytesIO(wrong))
        with pytest.raises(NotAuthenticError, match=f"content of 'files/many/{path}' is not what was signed"):
            extract.extract(forged, archive, tmp_path / "restored")
        extract.extract(found, archive, tmp_path / "again")


def test_failed_sync_fails_the_restore(store, small, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(extract, "_sync_all", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        restore(store, small.name, tmp_path / "restored")
    monkeypatch.undo()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        extract._sync_all(-1)


def test_existing_folder_is_not_overwritten(store, small, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(BackupError, match="already"):
        restore(store, small.name, tmp_path / "there")


def test_symlink_in_place_of_an_archive_is_not_followed(store, small, tmp_path):
    path = store.path(small.name, names.ARCHIVE)
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")
    refused(store, small.name, tmp_path)


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../b", "a//b", "./a", "a/", "", "a\0b", "/".join(["d"] * 200), "n" * 5000]
)
def test_path_outside_of_the_folder_is_refused(path):
    with pytest.raises(NotAuthenticError):
        paths.check_path(path)


def test_first_line_of_a_manifest_names_its_format(store, small):
    with store.path(small.name, names.MANIFEST).open("rb") as stream:
        found = manifest.read(stream, store.keys)
        assert found.summary == small
        assert [entry.member.path for entry in found.entries()] == [
            "files/small",
            "files/small/.aapanel_canary",
            "files/small/file",
        ]
