# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup whose archive is broken is called good by nobody who could know it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service import settings
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service.backups import Backups
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.doubts import Doubts
from faulty_host import Host


@pytest.fixture
def host(memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    return host


@pytest.fixture
def made(host):
    """The names of two backups."""
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
    "gone": (lambda path: path.unlink(), "there should be an archive, and is none"),
    "empty": (lambda path: path.write_bytes(b""), "it has 0 bytes"),
    "shorter": (lambda path: os.truncate(path, path.stat().st_size - 1), "were signed"),
    "longer": (is_longer, "were signed"),
    "folder": (is_a_folder, "this is no file"),
    "link": (leads_elsewhere, "this is no file"),
}


@pytest.mark.parametrize("kind", SEEN)
def test_what_can_be_seen_without_reading_is_seen(kind, host, made):
    somebody, says = SEEN[kind]
    somebody(archive(host, made[1]))
    assert states(host, 4) == {made[0]: "good", made[1]: "broken"}
    assert f"{made[1]}  BROKEN: {archive(host, made[1])}: " in (told := host.command("list")[1])
    assert says in told
    status, told = host.command("status")
    assert status == 3
    assert f"PROBLEM: {made[1]}: {archive(host, made[1])}: " in told
    assert f"  data: {made[0]}, " in told
    # Who asks for the newest one is not told of another one that it is good.
    assert host.panelctl("verify", status=4)[0]["name"] == made[1]


def test_one_that_cannot_be_looked_at_keeps_nobody_from_the_others(host, made, monkeypatch):
    plain = Path.lstat

    def lstat(path):
        if path == archive(host, made[0]):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return plain(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert states(host, 4) == {made[0]: "broken", made[1]: "good"}
    assert f"{archive(host, made[0])}: Input/output error" in host.command("list")[1]


def test_what_was_found_by_reading_is_remembered(host, made):
    flip(archive(host, made[1]))
    assert states(host, 0) == dict.fromkeys(made, "good")
    for _ in range(2):
        assert host.panelctl("verify", status=4)[0]["name"] == made[1]
    assert host.panelctl("verify", made[0])
    assert states(host, 4) == {made[0]: "good", made[1]: "broken"}
    assert "its content was found not to be what was signed" in host.command("status")[1]
    # It is mended by whoever brings the right one.
    flip(archive(host, made[1]))
    assert states(host, 0) == dict.fromkeys(made, "good")
    assert "PROBLEM: " + made[1] not in host.command("status")[1]


def test_what_was_found_by_mistake_is_forgotten_by_who_reads_it_again(host, made):
    Doubts(host.state).note(made[1], archive(host, made[1]).stat())
    assert states(host, 4) == {made[0]: "good", made[1]: "broken"}
    assert host.panelctl("verify", "--all")
    assert states(host, 0) == dict.fromkeys(made, "good")


def test_a_restore_takes_the_newest_good_one_and_one_by_its_name_or_not_at_all(host, made, memory):
    flip(archive(host, made[1]))
    to = str(memory / "restored")
    # Nobody knew.
    assert "its content is not what was signed" in host.command("restore", "--to", to)[1]
    told = host.command("restore", "--to", to)[1]
    assert f"data of {made[0]}" in told
    assert f"warning: {made[1]} is newer, and nothing was taken of it: {archive(host, made[1])}: " in told
    shutil.rmtree(to)
    for where in (["--to", to], ["--yes"]):
        status, told = host.command("restore", made[1], *where)
        assert (status, "its content is not what was signed" in told) == (4, True)
    archive(host, made[1]).unlink()
    status, told = host.command("restore", made[1], "--yes")
    assert (status, "there should be an archive, and is none" in told) == (4, True)
    told = host.command("restore", "--yes")[1]
    assert f"data is what {made[0]} has" in told
    assert f"warning: {made[1]} is newer, and nothing was taken of it" in told
    host.panelctl("create")
    assert "is newer" not in host.command("restore", "--yes")[1]


def test_it_is_no_young_backup_and_not_the_last_good_one(host, made):
    archive(host, made[1]).unlink()
    assert Backups(settings.load(host.config)).newest().name == made[0]
    status, told = host.command("remove", made[0], "--yes")
    assert (status, "it is the last good one of full" in told) == (1, True)
    assert host.panelctl("remove", made[1], "--yes")
    assert states(host, 0) == {made[0]: "good"}


@pytest.mark.parametrize("known", [0, 1])
def test_one_that_nobody_has_adopted_is_not_left_out(known, host, made):
    ledger = host.state / "ledger"
    # Two lines for the first backup, to a machine that knows it, the other one seems to be its own.
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[: 2 * known]))
    archive(host, made[1]).unlink()
    status, told = host.command("adopt", "--all")
    assert (status, f"{made[1]}  FAILED: " in told) == (4, True)
    assert (f"{made[0]}  adopted" in told) == (not known)
