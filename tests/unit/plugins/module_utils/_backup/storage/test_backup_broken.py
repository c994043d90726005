# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No command reports a backup as good if its archive is known to be broken."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service import settings
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service.backups import BackupService
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.corrupt_markers import CorruptMarkers
from faulty_host import Host


@pytest.fixture
def host(memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    return host


@pytest.fixture
def made(host):
    """Create two backups; return their names."""
    return [host.panelctl("create")["name"] for _ in range(2)]


def archive(host, name):
    return host.folder / f"{name}.tar.gz"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def states(host, status):
    return {found["name"]: found["state"] for found in host.panelctl("list", status=status)}


def is_a_folder(path):
    path.unlink()
    path.mkdir()


def leads_elsewhere(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def is_longer(path):
    path.write_bytes(path.read_bytes() + b"\0")


SEEN = {
    "gone": (lambda path: path.unlink(), "the archive is missing"),
    "empty": (lambda path: path.write_bytes(b""), " 0 bytes"),
    "shorter": (lambda path: os.truncate(path, path.stat().st_size - 1), "the signed archive has"),
    "longer": (is_longer, "the signed archive has"),
    "folder": (is_a_folder, "not a regular file"),
    "link": (leads_elsewhere, "not a regular file"),
}


@pytest.mark.parametrize("kind", SEEN)
def test_damage_that_shows_without_reading_is_reported(kind, host, made):
    somebody, says = SEEN[kind]
    somebody(archive(host, made[1]))
    assert states(host, 4) == {made[0]: "good", made[1]: "broken"}
    assert f"{made[1]}  BROKEN: {archive(host, made[1])}: " in (told := host.command("list")[1])
    assert says in told
    status, told = host.command("status")
    assert status == 3
    assert f"PROBLEM: {made[1]}: {archive(host, made[1])}: " in told
    assert f"  data: {made[0]}, " in told
    # A check of the newest backup does not fall back to another one.
    assert host.panelctl("verify", status=4)[0]["name"] == made[1]


def test_an_unreadable_archive_does_not_hide_the_other_backups(host, made, monkeypatch):
    plain = Path.lstat

    def lstat(path):
        if path == archive(host, made[0]):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return plain(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert states(host, 4) == {made[0]: "broken", made[1]: "good"}
    assert f"{archive(host, made[0])}: Input/output error" in host.command("list")[1]


def test_damage_found_by_reading_is_remembered(host, made):
    flip(archive(host, made[1]))
    assert states(host, 0) == dict.fromkeys(made, "good")
    for _ in range(2):
        assert host.panelctl("verify", status=4)[0]["name"] == made[1]
    assert host.panelctl("verify", made[0])
    assert states(host, 4) == {made[0]: "good", made[1]: "broken"}
    assert "the content is not what was signed" in host.command("status")[1]
    # Putting the right archive back repairs the backup.
    flip(archive(host, made[1]))
    assert states(host, 0) == dict.fromkeys(made, "good")
    assert "PROBLEM: " + made[1] not in host.command("status")[1]


def test_a_wrong_mark_is_removed_by_the_next_verification(host, made):
    CorruptMarkers(host.state).mark(made[1], archive(host, made[1]).stat())
    assert states(host, 4) == {made[0]: "good", made[1]: "broken"}
    assert host.panelctl("verify", "--all")
    assert states(host, 0) == dict.fromkeys(made, "good")


def test_a_restore_uses_the_newest_good_backup_or_the_named_one(host, made, memory):
    flip(archive(host, made[1]))
    to = str(memory / "restored")
    # The damage is not known yet.
    assert "its content is not what was signed" in host.command("restore", "--to", to)[1]
    told = host.command("restore", "--to", to)[1]
    assert f"data from {made[0]}" in told
    assert f"warning: {made[1]} is newer, but was skipped: {archive(host, made[1])}: " in told
    shutil.rmtree(to)
    for where in (["--to", to], ["--yes"]):
        status, told = host.command("restore", made[1], *where)
        assert (status, "its content is not what was signed" in told) == (4, True)
    archive(host, made[1]).unlink()
    status, told = host.command("restore", made[1], "--yes")
    assert (status, "the archive is missing" in told) == (4, True)
    told = host.command("restore", "--yes")[1]
    assert f"restored data from {made[0]}" in told
    assert f"warning: {made[1]} is newer, but was skipped" in told
    host.panelctl("create")
    assert "is newer" not in host.command("restore", "--yes")[1]


def test_a_broken_backup_does_not_count_as_young_or_as_the_last_good_one(host, made):
    archive(host, made[1]).unlink()
    assert BackupService(settings.load(host.config)).newest().name == made[0]
    status, told = host.command("remove", made[0], "--yes")
    assert (status, "is the last good backup of the set full" in told) == (1, True)
    assert host.panelctl("remove", made[1], "--yes")
    assert states(host, 0) == {made[0]: "good"}


@pytest.mark.parametrize("known", [0, 1])
def test_a_backup_that_was_not_adopted_is_verified_too(known, host, made):
    catalog = host.state / "ledger"
    # The first two lines are about the first backup. To a machine that knows it, the second backup seems to be its own.
    catalog.write_text("".join(catalog.read_text().splitlines(keepends=True)[: 2 * known]))
    archive(host, made[1]).unlink()
    status, told = host.command("adopt", "--all")
    assert (status, f"{made[1]}  FAILED: " in told) == (4, True)
    assert (f"{made[0]}  adopted" in told) == (not known)
