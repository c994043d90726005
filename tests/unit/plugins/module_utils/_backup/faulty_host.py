# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host for the tests of faults: every call that changes its disk can fail.

A command runs in a forked process, so that it can be killed, and starts within milliseconds. A hook between the logic
and the kernel gets each call in CALLS before it is made.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import mmap
import os
import shutil
import signal
import sqlite3
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, extract
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.runs import RunHistory
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.cli import main
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service import backups, settings
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.catalog import CREATED
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import Store

#: All calls by which the logic changes the disk or syncs it. Of `open`, only calls that create or truncate a file.
CALLS = (
    *("open", "write", "pwrite", "ftruncate", "fsync", "sync"),
    *("mkdir", "rmdir", "rename", "replace", "unlink", "remove", "link", "symlink"),
    *("chmod", "fchmod", "chown", "fchown", "utime"),
)
WRITES = ("write", "pwrite")
_MAKES = os.O_CREAT | os.O_TRUNC
_PLAIN_FDOPEN = os.fdopen
# Cached, because building the parser takes half of the time of a command, and these tests run hundreds.
_PARSER = functools.cache(main.build_parser)
RULES = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "newest": 2}


@dataclass(frozen=True)
class Call:
    """A call that is about to be made.

    :param number: the number of the call in this command, from one.
    """

    number: int
    name: str
    arguments: tuple[Any, ...]
    perform: Callable[[], Any]

    def __str__(self) -> str:
        shown = [value for value in self.arguments if isinstance(value, (str, int, Path))]
        return f"call {self.number}: {self.name}({', '.join(map(str, shown))})"

    def half(self) -> None:
        """Write only the first half of the data, like a full disk or a killed process."""
        descriptor, data, *rest = self.arguments
        {"write": os.write, "pwrite": os.pwrite}[self.name](descriptor, bytes(data)[: len(data) // 2], *rest)


Hook = Callable[[Call], Any]


@contextlib.contextmanager
def watched(hook: Hook) -> Iterator[None]:
    """Pass each call to the hook, which performs it or does something else."""
    plain = {name: getattr(os, name) for name in CALLS}
    made, inside = 0, False

    def watch(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal made, inside
            if inside or (name == "open" and not _makes(args[1])):
                return plain[name](*args, **options)
            made, inside = made + 1, True
            try:
                return hook(Call(made, name, args, lambda: plain[name](*args, **options)))
            finally:
                inside = False

        return call

    try:
        for name in CALLS:
            setattr(os, name, watch(name))
        os.fdopen = _fdopen
        # It would call syncfs(2) through the C library, past the hook.
        with mock.patch.object(extract, "_sync_all", side_effect=lambda _: os.sync()):
            yield
    finally:
        os.fdopen = _PLAIN_FDOPEN
        for name, function in plain.items():
            setattr(os, name, function)


def _makes(flags: int) -> bool:
    return bool(flags & _MAKES) or flags & os.O_TMPFILE == os.O_TMPFILE


class _Raw(io.RawIOBase):
    """Like io.FileIO, but writes with `os.write`, so that the hook gets the calls."""

    def __init__(self, descriptor: int, *, closes: bool) -> None:
        self._descriptor, self._closes = descriptor, closes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        return os.write(self._descriptor, bytes(data))

    def close(self) -> None:
        if not self.closed and self._closes:
            os.close(self._descriptor)
        super().close()


def _fdopen(descriptor: int, mode: str = "r", *args: Any, closefd: bool = True, **options: Any) -> Any:
    if "w" not in mode:
        return _PLAIN_FDOPEN(descriptor, mode, *args, closefd=closefd, **options)
    binary = io.BufferedWriter(_Raw(descriptor, closes=closefd))
    return binary if "b" in mode else io.TextIOWrapper(binary, **options)


class Fault:
    """A hook that fails one call; `where` names the call, even after the process has died."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._where = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def where(self) -> str:
        """The call that failed; empty if the command ended before."""
        return self._where[:].rstrip(b"\0").decode()

    def strikes(self, call: Call) -> bool:
        """Tell whether to fail this call."""
        if call.number == self.number:
            shown = str(call).encode()[: mmap.PAGESIZE]
            self._where[: len(shown)] = shown
        return call.number == self.number


class Kill(Fault):
    """Kills the process before a call; with *half*, after the call has written half of its data."""

    def __init__(self, number: int, *, half: bool = False) -> None:
        super().__init__(number)
        self._half = half
        self._writes = 0

    def __call__(self, call: Call) -> Any:
        self._writes += call.name in WRITES
        if self._half:
            call = replace(call, number=self._writes if call.name in WRITES else 0)
        if self.strikes(call):
            if self._half:
                call.half()
            os.kill(os.getpid(), signal.SIGKILL)
        return call.perform()


class Refuse(Fault):
    """Makes a call fail; with *on* also all later calls, except those that succeed on a full disk."""

    def __init__(self, number: int, code: int, *, on: bool = False) -> None:
        super().__init__(number)
        self._code = code
        self._on = on

    def __call__(self, call: Call) -> Any:
        later = self._on and call.number > self.number and call.name not in ("unlink", "rmdir", "ftruncate")
        if self.strikes(call) or later:
            raise OSError(self._code, os.strerror(self._code))
        return call.perform()


@dataclass(frozen=True)
class Done:
    """The result of a command.

    :param status: its exit status, or -9 if it was killed.
    """

    status: int
    out: str
    err: str


class Host:
    """A host with sources to back up. `reset` restores the state that `keep` has saved."""

    def __init__(self, root: Path) -> None:
        self.root = root / "host"
        self._kept = root / "kept"
        self.data = root / "data"
        self.config = root / "settings.json"
        self.folder, self.state = self.root / "backups", self.root / "state"
        self.keyring, self.to = self.root / "etc" / "keyring.json", self.root / "restored"
        (self.root / "etc").mkdir(parents=True)
        (self.data / "folder").mkdir(parents=True)
        (self.data / "folder" / "file").write_text("content\n")
        (self.data / "empty").touch()
        with contextlib.closing(sqlite3.connect(root / "panel.db")) as database:
            database.execute("CREATE TABLE items (id INTEGER)")
        self.settings = {
            "folder": str(self.folder),
            "state_dir": str(self.state),
            "keyring": str(self.keyring),
            "host": "an-installation",
            "sets": {"full": {"retention": RULES}},
            "sources": [
                {"kind": "files", "name": "data", "path": str(self.data)},
                {"kind": "sqlite", "name": "panel", "path": str(root / "panel.db")},
            ],
        }
        self.write_settings()

    def write_settings(self) -> None:
        """Write the current settings to the settings file."""
        self.config.write_text(json.dumps(self.settings))

    def keep(self) -> None:
        """Save the current state of the host."""
        shutil.copytree(self.root, self._kept)

    def reset(self) -> None:
        """Restore the saved state of the host."""
        shutil.rmtree(self.root)
        shutil.copytree(self._kept, self.root)

    def run(self, *arguments: str, hook: Hook | None = None, now: datetime | None = None, before: Any = None) -> Done:
        """Run a command in a forked process.

        :param hook: gets each call.
        :param now: the time of its clock.
        :param before: called in the forked process first.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = os.fork()
            if not process:
                status = 70
                try:
                    sys.stdout, sys.stderr = out, err
                    if now is not None:
                        backups.datetime = create.datetime = _clock(now)
                    if before is not None:
                        before()
                    with watched(hook) if hook else contextlib.nullcontext():
                        status = _main(self.config, arguments)
                except BaseException:  # noqa: BLE001 (nothing of this process may get back into pytest)
                    traceback.print_exc(file=err)
                finally:
                    with contextlib.suppress(OSError):
                        out.flush()
                        err.flush()
                    os._exit(status)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            out.seek(0)
            err.seek(0)
            return Done(status, out.read(), err.read())

    def panelctl(self, *arguments: str, status: int = 0) -> Any:
        """Run a command in this process; check its exit status, and return its JSON."""
        found, out = self.command(*arguments, "--json")
        assert found == status, out
        return json.loads(out)

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command in this process; return its exit status and its output."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            return _main(self.config, arguments), out.getvalue()

    def names(self) -> list[str]:
        """Return the names of all backups, which must all be good."""
        return [found["name"] for found in self.panelctl("list")]

    def hidden(self) -> set[str]:
        """Return the hidden files, which are temporary ones, except for the canary."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob(".*") if path.name != ".aapanel_canary"}

    def left(self) -> set[str]:
        """Return all leftovers: files that belong neither to a backup nor to the host."""
        expected = {"backups", "state", "etc", "etc/keyring.json", "state/ledger", "state/lock"}
        found = {str(path.relative_to(self.root)) for path in self.root.rglob("*")}
        backups = {f"backups/{name}{suffix}" for name in self.names() for suffix in names.SUFFIXES}
        assert backups <= found
        # Ignores the records of runs, whose leftovers the next run removes.
        return {path for path in found - backups - expected if not path.startswith(("state/runs.", "state/.runs."))}

    def assert_sound(self, before: list[str], *, may_go: int = 0) -> None:
        """Check that no good backup is lost, no false one is called good, and new backups work.

        :param before: the good backups before the fault.
        :param may_go: how many of the oldest ones may have been pruned.
        """
        there = self.names()
        assert set(before[may_go:]) <= set(there), "a good backup is lost"
        assert len(set(there) - set(before)) <= 1
        made = self.panelctl("create")["name"]
        assert [(found["name"], found["result"]) for found in self.panelctl("verify", "--all")] == [
            (name, "good") for name in [*there, made]
        ]
        assert not self.left(), "something was left behind"
        self.assert_chained()

    def assert_chained(self) -> None:
        """Check that each backup names its predecessor, and that the catalog contains all of them."""
        store = settings.load(self.config).store()
        made = [record for record in records(store) if record["event"] == CREATED]
        assert [record["seq"] for record in made] == list(range(1, len(made) + 1))
        digests = ["", *(record["manifest"] for record in made)]
        for backup in store.good():
            assert backup.sha256 == digests[backup.summary.seq]
            assert backup.summary.previous == digests[backup.summary.seq - 1]


def records(store: Store) -> list[dict[str, Any]]:
    """Return the records of a catalog without checking them."""
    file = store.state_dir / "ledger"
    return [json.loads(line.split(b" ")[0]) for line in file.read_bytes().splitlines()] if file.exists() else []


def _nothing(*_: object, **__: object) -> None:
    pass


def _main(config: Path, arguments: Sequence[str]) -> int:
    # The record of runs is left out, because a failure to write it does not matter.
    with (
        mock.patch.object(main, "build_parser", _PARSER),
        mock.patch.multiple(RunHistory, record=_nothing, export=_nothing),
    ):
        return main.main(str(config), arguments)


def _clock(now: datetime) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return now

    return Clock


class Died(BaseException):
    """Simulates the death of this process: until it is caught, nothing reaches the disk."""


#: The content of a folder: paths with file contents, or None for a folder.
Image = dict[str, bytes | None]


class Disk:
    """Simulates power cuts: only what a successful fsync(2) covers is kept, strictly as POSIX guarantees it.

    An fsync of a file keeps its content, an fsync of a folder the names in it. The object is a hook: it performs each
    call, and then records what a power cut at this moment leaves, in the three ways that a file system may lose data.
    """

    def __init__(self, root: Path) -> None:
        #: The number of the call at which the simulated process dies; 0 for never.
        self.dies_at = 0
        self._root = root
        self._seen: dict[int, int] = {}
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._sync()
        self._images: dict[str, Image] = {}

    def __call__(self, call: Call) -> Any:
        if 0 < self.dies_at <= call.number:
            raise Died
        result = call.perform()
        if call.name == "open":
            self._see(result)
        elif call.name == "mkdir":
            self._see_all()
        elif call.name == "fsync":
            self._keep(call.arguments[0])
        elif call.name == "sync":
            self._sync()
        self.cut(str(call))
        return result

    def revive(self) -> None:
        """Continue with another process, and forget the images that were recorded so far."""
        self.dies_at = 0
        self._images.clear()

    def cut(self, when: str) -> list[Image]:
        """Record and return what a power cut may leave now."""
        names = {inode: _entries(descriptor) for inode, descriptor in self._seen.items() if inode in self._names}
        data = {inode: _read(descriptor) for inode, descriptor in self._seen.items() if inode not in self._names}
        found = {
            f"{when}: what was not synced is lost": self._image(self._names, self._content),
            f"{when}: contents that were not synced are lost": self._image(names, self._content),
            f"{when}: names that were not synced are lost": self._image(self._names, data),
        }
        # A file system may also keep one change of a folder, but lose earlier ones.
        for inode, now in names.items():
            for name, kept in _changes(self._names[inode], now):
                image = self._image({**self._names, inode: kept}, self._content)
                found[f"{when}: what was not synced is lost, but for the change of {name}"] = image
        self._images |= found
        return list(found.values())

    def images(self) -> list[tuple[str, Image]]:
        """Return each recorded image once, with its time."""
        return list({str(image): (when, image) for when, image in self._images.items()}.values())

    def close(self) -> None:
        for descriptor in self._seen.values():
            os.close(descriptor)

    def _image(self, names: dict[int, dict[str, int]], data: dict[int, bytes]) -> Image:
        image: Image = {}
        waiting = [("", self._root.stat().st_ino)]
        while waiting:
            path, inode = waiting.pop()
            for name, found in names.get(inode, {}).items():
                image[f"{path}{name}"] = None if found in self._names else data.get(found, b"")
                waiting.append((f"{path}{name}/", found))
        return dict(sorted(image.items()))

    def _see(self, descriptor: int) -> int:
        # Kept open: the inode number of a removed file could be reused, and its content may reappear after a cut.
        status = os.fstat(descriptor)
        if status.st_ino not in self._seen:
            self._seen[status.st_ino] = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
            if stat.S_ISDIR(status.st_mode):
                self._names[status.st_ino] = {}
        return status.st_ino

    def _see_all(self) -> list[int]:
        found = []
        for path in (self._root, *self._root.rglob("*")):
            descriptor = os.open(path, os.O_RDONLY)
            self._see(descriptor)
            found.append(descriptor)
        return found

    def _sync(self) -> None:
        for descriptor in self._see_all():
            self._keep(descriptor)
            os.close(descriptor)

    def _keep(self, descriptor: int) -> None:
        inode = self._see(descriptor)
        if inode in self._names:
            self._names[inode] = _entries(descriptor)
        else:
            self._content[inode] = _read(self._seen[inode])


def _changes(before: dict[str, int], now: dict[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the entries of a folder after each of its changes alone; a rename is one change."""
    for name in {name for name, _ in before.items() ^ now.items()}:
        if name in now:
            yield name, {**{old: inode for old, inode in before.items() if inode != now[name]}, name: now[name]}
        elif before[name] not in now.values():
            yield name, {old: inode for old, inode in before.items() if old != name}


def _entries(descriptor: int) -> dict[str, int]:
    with os.scandir(descriptor) as listing:
        return {entry.name: entry.inode() for entry in listing}


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def lay_down(image: Image, root: Path) -> None:
    """Replace the content of a folder by an image."""
    shutil.rmtree(root)
    root.mkdir()
    for path, content in image.items():
        if content is None:
            (root / path).mkdir(mode=0o700)
        else:
            (root / path).touch(0o600)
            (root / path).write_bytes(content)


def at(year: int, *rest: int) -> datetime:
    """Return a time in UTC."""
    return datetime(year, *(rest or (1, 1)), tzinfo=timezone.utc)
