# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kills, power cuts and disk errors at every call: no false backup is called good, and no good one is lost."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from faulty_host import Died, Disk, Host, Kill, Refuse, lay_down, watched

STORIES = {
    "create": ["create"],
    "first create": ["create"],
    "prune": ["prune"],
    "remove": ["remove", "{oldest}", "--yes"],
    "restore": ["restore", "--to", "{to}"],
    "key-rotate": ["key-rotate"],
    "first key-rotate": ["key-rotate"],
}


class Story:
    """A command that is interrupted by a fault."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.host = host = Host(root)
        if name != "first key-rotate":
            host.panelctl("key-rotate")
        for _ in range({"first create": 0, "first key-rotate": 0, "prune": 3}.get(name, 2)):
            host.panelctl("create")
        self.keys = 0 if name == "first key-rotate" else 1
        self.before = host.names() if host.keyring.exists() else []
        oldest = self.before[0] if self.before else ""
        self.arguments = [argument.format(to=host.to, oldest=oldest) for argument in STORIES[name]]
        self.may_go = 1 if name in ("prune", "remove") else 0
        if self.before:
            # Leftovers of an earlier run that was killed.
            unfinished = "backup_20240101T000000Z_000009"
            for left in (f".new-{unfinished}.info", f"{unfinished}.tar.gz"):
                (host.folder / left).write_text("left")
        host.keep()

    def is_done(self) -> bool:
        """Tell whether the command has reached its goal."""
        host, made = self.host, len(self.before)
        if self.name == "restore":
            return host.to.exists()
        if self.name.endswith("key-rotate"):
            return len(json.loads(host.keyring.read_text())["keys"]) == self.keys + 1
        return len(host.names()) == (made - self.may_go if self.may_go else made + 1)

    def assert_sound(self) -> None:
        """Use the current state as the starting point."""
        host = self.host
        if self.name.endswith("key-rotate"):
            host.panelctl("key-rotate")
        if self.name == "restore" and not host.to.exists():
            host.panelctl("restore", "--to", str(host.to))
        if host.to.exists():
            assert (host.to / "files/data/folder/file").read_text() == "content\n"
            assert (host.to / "files/data/empty").exists()
            assert (host.to / "sqlite/panel.sqlite3").stat().st_size > 0
            shutil.rmtree(host.to)
        host.assert_sound(self.before, may_go=self.may_go)


@pytest.fixture(params=STORIES)
def story(request, memory):
    return Story(request.param, memory)


@contextlib.contextmanager
def told(what):
    """Name the place of the fault in the test report."""
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise


@pytest.mark.parametrize("half", [False, True], ids=["before", "half done"])
def test_killed_at_any_call(half, story):
    for number in itertools.count(1):
        story.host.reset()
        fault = Kill(number, half=half)
        done = story.host.run(*story.arguments, hook=fault)
        if not fault.where:
            break
        with told(f"killed at {fault.where}"):
            assert done.status == -signal.SIGKILL
            story.assert_sound()
    assert done.status == 0, done.err
    assert story.is_done()
    assert number > 1


def test_power_cut_after_any_call(story):
    story.host.reset()
    with contextlib.closing(Disk(story.host.root)) as disk:
        with watched(disk):
            story.host.panelctl(*story.arguments)
        for image in disk.cut("at the end"):
            lay_down(image, story.host.root)
            assert story.is_done(), "it said that it was done, and it was not on the disk"
        for when, image in disk.images():
            lay_down(image, story.host.root)
            with told(f"power was cut after {when}"):
                story.assert_sound()


@pytest.mark.parametrize("story", ["create", "first create", "prune", "remove"], indirect=True)
def test_power_cut_after_the_run_that_follows_a_killed_one(story):
    """Data written by a killed run is readable, but may be in memory only. The next run must not rely on it."""
    calls = []
    story.host.reset()
    with watched(lambda call: (calls.append(call), call.perform())[1]):
        story.host.panelctl(*story.arguments)
    for synced in (call for call in calls if call.name == "fsync"):
        story.host.reset()
        with contextlib.closing(Disk(story.host.root)) as disk:
            disk.dies_at = synced.number
            with watched(disk), contextlib.suppress(Died):
                story.host.panelctl(*story.arguments)
            disk.revive()
            with watched(disk):
                # This command only takes the lock.
                assert "is not pinned" in story.host.command("unpin", "none")[1]
            for when, image in disk.images():
                lay_down(image, story.host.root)
                with told(f"killed at {synced}, power was cut after {when}"):
                    story.assert_sound()


@pytest.mark.parametrize("story", ["create", "prune", "remove", "restore", "key-rotate"], indirect=True)
@pytest.mark.parametrize(
    ("code", "on"), [(errno.ENOSPC, True), (errno.EIO, False)], ids=["no room from then on", "broken once"]
)
def test_disk_error_at_any_call(code, on, story):
    hidden = story.host.hidden()
    for number in itertools.count(1):
        story.host.reset()
        fault = Refuse(number, code, on=on)
        done = story.host.run(*story.arguments, hook=fault)
        if not fault.where:
            break
        with told(f"refused was {fault.where}, and it said: {done.err}"):
            if done.status == 0:
                assert not fault.where.split()[2].startswith("fsync")
                assert story.is_done()
            else:
                assert (done.status, done.err.count("\n")) == (1, 1)
                assert os.strerror(code) in done.err
                assert "unlink" in fault.where or story.host.hidden() <= hidden, "it has not tidied up"
            story.assert_sound()
    assert done.status == 0, done.err
    assert number > 1


@pytest.fixture
def fsync_fails(monkeypatch):
    """Make fsync(2) fail while a condition on the path of the file or folder is met."""

    def install(condition):
        fsync = os.fsync

        def failing(descriptor):
            if condition(Path(f"/proc/self/fd/{descriptor}").readlink()):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)

    return install


def test_backup_that_could_not_be_synced_is_not_published(memory, fsync_fails):
    """The kernel reports lost writes only once, and the next fsync succeeds. So a failed fsync must not be retried."""
    host = Story("create", memory).host
    before = host.names()
    fsync_fails(lambda path: path == host.folder and len(list(path.glob("backup_*.manifest"))) > len(before))
    status, told = host.command("create")
    assert (status, told) == (1, "panelctl: the host: Input/output error\n")
    assert host.names() == before


@pytest.mark.parametrize("command", ["create", "prune"])
def test_catalog_line_that_could_not_be_synced_is_removed(command, memory, fsync_fails, monkeypatch):
    host = Story(command, memory).host
    ledger = host.state / "ledger"
    before, listed = ledger.read_bytes(), host.names()
    fsync_fails(lambda path: path == ledger and ledger.read_bytes() != before)
    assert host.command(command)[0] == 1
    assert ledger.read_bytes() == before
    monkeypatch.undo()
    host.assert_sound(listed)


def test_file_size_limit_at_any_size(memory):
    """Here the kernel refuses, which also covers writes that the hook cannot see: of SQLite, and of buffered files."""
    host = Story("create", memory).host
    before = host.names()
    for limit in itertools.count(512, 512):
        host.reset()
        done = host.run("create", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))  # noqa: B023
        if done.status == 0:
            break
        with told(f"limit is {limit}, and it said: {done.err}"):
            assert (done.status, done.err.count("\n")) == (1, 1)
            assert "Traceback" not in done.err
            assert host.names() == before
            host.assert_sound(before)
    # The size of the database.
    assert limit >= 8192
