# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files and folders that change, disappear or are replaced just before they are read."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, extract
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import manifest, names, writer
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import directory
from faulty_host import Host

NOBODY = 65534


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_text("x" * 3000)
    (root / "other").write_text("other\n")
    return root


@pytest.fixture
def meanwhile(monkeypatch):
    """Call a function just before a path is opened."""

    def install(path, action):
        waiting, function = [action], os.open

        def call(given, *rest, dir_fd=None):
            folder = Path() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
            if folder / given == path and waiting:
                waiting.pop()()
            return function(given, *rest, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", call)

    return install


def back_up(store, data):
    """Back up, verify the backup, and return its summary and the restored names."""
    summary = create.create(store, [directory.Files("data", data)])
    to = store.folder.parent / "restored"
    with extract.verified_backup(store, summary.name) as (found, archive):
        extract.extract(found, archive, to)
    there = {str(path.relative_to(to / "files/data")) for path in (to / "files/data").rglob("*")}
    return summary, there - {".aapanel_canary"}


def replaced(path, make):
    def action():
        path.unlink()
        make(path)

    return action


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("/etc/passwd"),
        os.mkfifo,
        lambda path: path.mkdir(),
    ],
    ids=["link", "pipe", "folder"],
)
def test_a_replaced_file_is_left_out_with_a_warning(make, data, store, meanwhile):
    file = data / "folder" / "file"
    meanwhile(file, replaced(file, make))
    summary, found = back_up(store, data)
    assert summary.partial
    assert len(summary.warnings) == 1
    assert summary.warnings[0].startswith(f"{file}: ")
    assert found == {"folder", "other"}


def test_a_removed_file_causes_a_warning(data, store, meanwhile):
    file = data / "folder" / "file"
    meanwhile(file, file.unlink)
    summary, found = back_up(store, data)
    assert summary.warnings == (f"{file}: removed while the backup was made",)
    # The backup is the same as one that began a moment later.
    assert not summary.partial
    assert found == {"folder", "other"}


def test_a_removed_folder_causes_a_warning(data, store, meanwhile):
    folder = data / "folder"

    def first(*_):
        # The folder is listed once before, to estimate the size.
        meanwhile(folder, lambda: shutil.rmtree(folder))

    meanwhile(folder, first)
    summary, found = back_up(store, data)
    assert summary.warnings == (f"{folder}: removed while the backup was made",)
    assert found == {"folder", "other"}


def test_a_file_removed_during_the_estimate_is_ignored(data, store, monkeypatch):
    walk = directory.Files._walk

    def going(self, warn):
        for found in walk(self, warn):
            if found.path == "folder/file":
                Path(found.full_path).unlink(missing_ok=True)
            yield found

    monkeypatch.setattr(directory.Files, "_walk", going)
    assert back_up(store, data)[1] == {"folder", "other"}


def test_a_folder_replaced_by_a_file_is_left_out_with_a_warning(data, store, meanwhile):
    folder = data / "folder"

    def become():
        shutil.rmtree(folder)
        folder.touch()

    meanwhile(folder, lambda: meanwhile(folder, become))
    summary, _ = back_up(store, data)
    assert summary.partial
    assert summary.warnings == (f"{folder}: Not a directory",)


@pytest.fixture
def elsewhere(data):
    """Return a function that replaces a folder with a symlink to data that must not be backed up."""
    secret = data.parent / "secret"
    secret.mkdir()
    (secret / "file").write_text("of somebody else\n")

    def become():
        (data / "folder").rename(data.parent / "away")
        (data / "folder").symlink_to(secret)

    return become


def test_a_folder_replaced_by_a_symlink_is_not_entered(data, store, meanwhile, elsewhere):
    folder = data / "folder"
    meanwhile(folder, lambda: meanwhile(folder, elsewhere))
    summary, found = back_up(store, data)
    assert summary.partial
    assert summary.warnings == (f"{folder}: Not a directory",)
    assert found == {"folder", "other"}


def test_a_folder_replaced_by_a_symlink_while_it_is_walked_is_not_left(data, store, meanwhile, elsewhere):
    meanwhile(data / "folder" / "file", elsewhere)
    _, found = back_up(store, data)
    assert found == {"folder", "folder/file", "other"}
    assert (store.folder.parent / "restored/files/data/folder/file").read_text() == "x" * 3000


def test_folders_that_are_nested_too_deeply(data, store):
    place = data
    for _ in range(200):
        place /= "d"
        place.mkdir()
    summary, _ = back_up(store, data)
    assert summary.partial
    assert summary.warnings[-1].endswith("/d: folders are nested too deeply")


def test_a_removed_source_fails_the_backup(data, store, meanwhile):
    meanwhile(data, lambda: meanwhile(data, lambda: shutil.rmtree(data)))
    with pytest.raises((BackupError, OSError)):
        create.create(store, [directory.Files("data", data)])
    assert store.backups() == []


@pytest.mark.parametrize("change", [lambda file: os.truncate(file, 9000), lambda file: os.truncate(file, 10)])
def test_a_growing_or_shrinking_file_keeps_its_first_size(change, data, store, monkeypatch):
    file = data / "folder" / "file"
    read = os.read

    def changing(descriptor, size):
        if Path(f"/proc/self/fd/{descriptor}").readlink() == file:
            change(file)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", changing)
    summary, _ = back_up(store, data)
    assert summary.partial
    assert (store.folder.parent / "restored/files/data/folder/file").stat().st_size == 3000


def test_a_file_that_shrinks_a_lot_causes_one_warning(data, store, monkeypatch):
    file = data / "large"
    file.touch()
    os.truncate(file, 5 << 20)
    read = os.read

    def shrinking(descriptor, size):
        if Path(f"/proc/self/fd/{descriptor}").readlink() == file:
            os.truncate(file, 0)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", shrinking)
    assert len(back_up(store, data)[0].warnings) == 2


def test_a_write_error_fails_the_backup(data, store, monkeypatch):
    """Otherwise the archive would have a header without content, and could not be restored."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(writer.os, "read", refuse)
    with pytest.raises(BackupError, match="Operation not permitted"):
        create.create(store, [directory.Files("data", data)])
    assert store.backups() == []


def test_a_path_that_a_restore_would_refuse_is_left_out_with_a_warning(data, store):
    deep = data
    for _ in range(130):
        deep /= "d"
        deep.mkdir()
    summary, found = back_up(store, data)
    assert summary.partial
    assert "is too long" in summary.warnings[0]
    assert {"folder/file", "other"} < found


def test_too_many_warnings_are_cut_to_fit_the_manifest(data, store):
    for number in range(3000):
        (data / f"{number:04}{'l' * 200}").symlink_to("nowhere")
    summary, _ = back_up(store, data)
    assert "more warnings" in summary.warnings[-1]
    assert 500 < len(summary.warnings) == len(set(summary.warnings))


def test_a_manifest_with_a_line_that_is_too_long_is_not_written(data, store, monkeypatch):
    monkeypatch.setattr(directory.Files, "add", lambda *_: manifest.SourceRecord("files", "n" * (2 << 20), "files/n"))
    with pytest.raises(BackupError, match="the manifest would have a line of"):
        create.create(store, [directory.Files("data", data)])
    assert list(store.folder.iterdir()) == []


def test_a_warning_about_a_name_with_odd_bytes_is_one_line(tmp_path):
    host = Host(tmp_path)
    host.panelctl("key-rotate")
    strange = os.fsdecode(b"line\nSHA256: 0 \xff")
    (host.data / strange).symlink_to("nowhere")
    done = host.run("create")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1].startswith(f"warning: {host.data}/line?SHA256: 0 ?: ")
    name = host.names()[0]
    info = (host.folder / f"{name}{names.INFO}").read_text()
    assert info.splitlines()[-2].startswith(f"Warning 1: {host.data}/line?SHA256: 0 ?: ")


@pytest.fixture
def ordinary():
    """Return a host of an ordinary user, and a function that switches to that user."""
    root = Path(tempfile.mkdtemp())
    try:
        host = Host(root)
        host.panelctl("key-rotate")
        if os.geteuid() == 0:
            for path in (root, *root.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        yield host
    finally:
        # Without root, the tests cannot read the folder either.
        for closed in root.rglob("closed"):
            closed.chmod(0o700)
        shutil.rmtree(root)


def become_ordinary():
    # Import it now: a restore imports it late, and the ordinary user may not be able to read root's Python.
    importlib.import_module("ctypes")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def test_files_that_an_ordinary_user_cannot_read_are_left_out_with_a_warning(ordinary):
    (ordinary.data / "closed").mkdir(mode=0)
    (ordinary.data / "secret").touch(mode=0)
    done = ordinary.run("create", before=become_ordinary)
    assert done.status == 3, done.err
    assert done.out.count("Permission denied") == 2
    restored = ordinary.run("restore", "--to", str(ordinary.to), before=become_ordinary)
    assert restored.status == 3, restored.err
    assert (ordinary.to / "files/data/folder/file").read_text() == "content\n"
    assert not (ordinary.to / "files/data/secret").exists()
