# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host on which every call that changes something on its disk can go wrong, for the tests of faults.

A command runs in a process of its own that was forked, so that it can really be killed, and in milliseconds. Between
the logic and the kernel stands a hook that is asked before each call; what the calls are is in CALLS.
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
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.runs import Runs
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.cli import main
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service import backups, settings
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.ledger import CREATED
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import Store

#: Everything by which the logic changes a disk, or makes it keep something. Of `open` those that make or empty a file.
CALLS = (
    *("open", "write", "pwrite", "ftruncate", "fsync", "sync"),
    *("mkdir", "rmdir", "rename", "replace", "unlink", "remove", "link", "symlink"),
    *("chmod", "fchmod", "chown", "fchown", "utime"),
)
WRITES = ("write", "pwrite")
_MAKES = os.O_CREAT | os.O_TRUNC
_PLAIN_FDOPEN = os.fdopen
# They run hundreds of commands, and half of the time of each would be this.
_PARSER = functools.cache(main.build_parser)
RULES = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "newest": 2}


@dataclass(frozen=True)
class Call:
    """One call that is about to be made.

    :param number: counted from one, in this command.
    """

    number: int
    name: str
    arguments: tuple[Any, ...]
    perform: Callable[[], Any]

    def __str__(self) -> str:
        shown = [value for value in self.arguments if isinstance(value, (str, int, Path))]
        return f"call {self.number}: {self.name}({', '.join(map(str, shown))})"

    def half(self) -> None:
        """Write the first half of it only, as a disk does that is full, or a process that is killed."""
        descriptor, data, *rest = self.arguments
        {"write": os.write, "pwrite": os.pwrite}[self.name](descriptor, bytes(data)[: len(data) // 2], *rest)


Hook = Callable[[Call], Any]


@contextlib.contextmanager
def watched(hook: Hook) -> Iterator[None]:
    """Ask the hook at each call; it performs it, or does something else."""
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
        # It asks the C library for the same of one file system.
        with mock.patch.object(extract, "_sync_all", side_effect=lambda _: os.sync()):
            yield
    finally:
        os.fdopen = _PLAIN_FDOPEN
        for name, function in plain.items():
            setattr(os, name, function)


def _makes(flags: int) -> bool:
    return bool(flags & _MAKES) or flags & os.O_TMPFILE == os.O_TMPFILE


class _Raw(io.RawIOBase):
    """As io.FileIO, but it writes by `os.write`, where the hook is."""

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
    """A hook that strikes at one call; `where` says at which one, also when the process is gone that it struck."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._where = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def where(self) -> str:
        """What it struck; empty where the command had ended before."""
        return self._where[:].rstrip(b"\0").decode()

    def strikes(self, call: Call) -> bool:
        """Tell whether it is this call."""
        if call.number == self.number:
            shown = str(call).encode()[: mmap.PAGESIZE]
            self._where[: len(shown)] = shown
        return call.number == self.number


class Kill(Fault):
    """Kills the process before a call is made, or, with *half*, when half of what it writes is written."""

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
    """Lets a call fail; with *on* those that follow as well, but for those that a full disk has no trouble with."""

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
    """What came of a command.

    :param status: its exit status, or -9 where it was killed.
    """

    status: int
    out: str
    err: str


class Host:
    """A host with something to back up. Whatever a test does to it, `reset` gives it back as it was set up."""

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
        """Have the settings as they are now."""
        self.config.write_text(json.dumps(self.settings))

    def keep(self) -> None:
        """Remember the host as it is now."""
        shutil.copytree(self.root, self._kept)

    def reset(self) -> None:
        """Make it as it was."""
        shutil.rmtree(self.root)
        shutil.copytree(self._kept, self.root)

    def run(self, *arguments: str, hook: Hook | None = None, now: datetime | None = None, before: Any = None) -> Done:
        """Run a command in a process of its own.

        :param hook: is asked at each call.
        :param now: what its clock says.
        :param before: is called in that process before.
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
        """Run a command in this process, which has to end so; gives what it prints as JSON."""
        found, out = self.command(*arguments, "--json")
        assert found == status, out
        return json.loads(out)

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command in this process; gives its exit status, and what it prints."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            return _main(self.config, arguments), out.getvalue()

    def names(self) -> list[str]:
        """Return the backups that `list` shows, all of which have to be good."""
        return [found["name"] for found in self.panelctl("list")]

    def hidden(self) -> set[str]:
        """Return what has a name of its own until it is whole."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob(".*") if path.name != ".aapanel_canary"}

    def left(self) -> set[str]:
        """Return everything below the host that is neither a backup nor has to be there."""
        expected = {"backups", "state", "etc", "etc/keyring.json", "state/ledger", "state/lock"}
        found = {str(path.relative_to(self.root)) for path in self.root.rglob("*")}
        backups = {f"backups/{name}{suffix}" for name in self.names() for suffix in names.SUFFIXES}
        assert backups <= found
        # How the last runs went is written by a process of its own alone, and tidied up by the next one.
        return {path for path in found - backups - expected if not path.startswith(("state/runs.", "state/.runs."))}

    def assert_sound(self, before: list[str], *, may_go: int = 0) -> None:
        """Look at it with fresh eyes: nothing good is lost, nothing false is called good, and it goes on.

        :param before: the good backups that there were.
        :param may_go: how many of those, the oldest first, may have been pruned.
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
        """Check that each backup follows the one before it, and that the ledger knows of all."""
        store = settings.load(self.config).store()
        made = [record for record in records(store) if record["event"] == CREATED]
        assert [record["seq"] for record in made] == list(range(1, len(made) + 1))
        digests = ["", *(record["manifest"] for record in made)]
        for backup in store.good():
            assert backup.sha256 == digests[backup.summary.seq]
            assert backup.summary.previous == digests[backup.summary.seq - 1]


def records(store: Store) -> list[dict[str, Any]]:
    """Return what the lines of a ledger say, whatever they are worth."""
    file = store.state_dir / "ledger"
    return [json.loads(line.split(b" ")[0]) for line in file.read_bytes().splitlines()] if file.exists() else []


def _nothing(*_: object, **__: object) -> None:
    pass


def _main(config: Path, arguments: Sequence[str]) -> int:
    # How a run went is written down beside all this, and whether that works is nothing to it.
    with mock.patch.object(main, "build_parser", _PARSER), mock.patch.multiple(Runs, note=_nothing, export=_nothing):
        return main.main(str(config), arguments)


def _clock(now: datetime) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return now

    return Clock


class Died(BaseException):
    """Stands for a death in this process: until it is caught nothing reaches the disk."""


#: Of a folder: paths below it with their contents; None of a folder.
Image = dict[str, bytes | None]


class Disk:
    """What is left of a folder after a power cut. Strictly by POSIX: what fsync(2) was asked for, and has said yes.

    A file's content is kept by an fsync of it, its name by one of its folder. It is a hook: it performs each call, and
    after each one notes what a cut in that moment leaves, in the three ways that a file system may lose things.
    """

    def __init__(self, root: Path) -> None:
        #: The number of a call at which the process dies, for all that the disk sees of it.
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
        """Let another process go on with what there is; what was noted of the dead one is forgotten."""
        self.dies_at = 0
        self._images.clear()

    def cut(self, when: str) -> list[Image]:
        """Note, and return, what a power cut may leave now."""
        names = {inode: _entries(descriptor) for inode, descriptor in self._seen.items() if inode in self._names}
        data = {inode: _read(descriptor) for inode, descriptor in self._seen.items() if inode not in self._names}
        found = {
            f"{when}: what was not synced is lost": self._image(self._names, self._content),
            f"{when}: contents that were not synced are lost": self._image(names, self._content),
            f"{when}: names that were not synced are lost": self._image(self._names, data),
        }
        # A file system may also keep one change of a folder, and not those that were made before it.
        for inode, now in names.items():
            for name, kept in _changes(self._names[inode], now):
                image = self._image({**self._names, inode: kept}, self._content)
                found[f"{when}: what was not synced is lost, but for the change of {name}"] = image
        self._images |= found
        return list(found.values())

    def images(self) -> list[tuple[str, Image]]:
        """Return what was noted, each image once, with when it was."""
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
        # Held open: the number of a file that is gone could be another's, and its content may come back.
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
    """Give what a folder is by each of its changes alone; a rename is one."""
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
    """Make a folder what an image says."""
    shutil.rmtree(root)
    root.mkdir()
    for path, content in image.items():
        if content is None:
            (root / path).mkdir(mode=0o700)
        else:
            (root / path).touch(0o600)
            (root / path).write_bytes(content)


def at(year: int, *rest: int) -> datetime:
    """Return a moment in UTC."""
    return datetime(year, *(rest or (1, 1)), tzinfo=timezone.utc)
