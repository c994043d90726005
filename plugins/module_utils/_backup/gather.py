# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What is below a folder, on its way into a backup: files, folders, and databases by SQLite's own means."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from . import sqlite
from .errors import BackupError, NotAuthenticError
from .extract import check_path
from .writer import Writer


class Warn(Protocol):
    """As `Writer.warn`."""

    def __call__(self, text: str, *, partial: bool = False) -> None: ...


def add(
    out: Writer, prefix: str, found: Iterator[tuple[str, os.DirEntry[str]]], scratch: Path
) -> dict[tuple[str, str], int]:
    """Add what was found; what is neither file nor folder is told of.

    :param prefix: of the members, which are called as in the folder otherwise.
    :param found: by `walk`.
    :param scratch: a folder for copies of databases.
    :returns: the rows of each table, by the path of its database in the folder and its own name.
    """
    with _Databases(out, scratch) as databases:
        for path, entry in found:
            _add(out, f"{prefix}/{path}", entry, databases)
    return {(member.removeprefix(f"{prefix}/"), table): rows for (member, table), rows in databases.rows.items()}


def walk(root: Path, exclude: Sequence[str], warn: Warn) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Give what is below a folder, each with its path there, folders before what they hold.

    :param exclude: names, or paths below the folder, with shell wildcards.
    :param warn: is told of folders that cannot be read.
    :raises OSError: the folder itself cannot be.
    """
    waiting = [("", os.fspath(root))]
    while waiting:
        below, folder = waiting.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not below:
                raise
            _tell(warn, folder, error)
            continue
        deeper = []
        for entry in entries:
            path = f"{below}{entry.name}"
            if matches(path, entry.name, exclude):
                continue
            yield path, entry
            if entry.is_dir(follow_symlinks=False):
                deeper.append((f"{path}/", entry.path))
        waiting += reversed(deeper)


def matches(path: str, name: str, patterns: Sequence[str]) -> bool:
    """Tell whether one of the patterns means a path, which ends with the name."""
    return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern.strip("/")) for pattern in patterns)


def _add(out: Writer, member: str, entry: os.DirEntry[str], databases: _Databases | None = None) -> None:
    """Add a folder or a file.

    :param databases: takes those; where there is none, they are files like any other.
    """
    if not entry.is_dir(follow_symlinks=False) and not entry.is_file(follow_symlinks=False):
        out.warn(f"{entry.path}: it is no file and no folder, and was left out")
        return
    if databases and databases.take_companion(member, entry):
        return
    descriptor = -1
    # What goes wrong here is this file's trouble; in what follows it would be the whole backup's.
    try:
        check_path(member)
        if entry.is_file(follow_symlinks=False):
            descriptor = _open(entry.path)
        status = os.fstat(descriptor) if descriptor >= 0 else entry.stat(follow_symlinks=False)
    except (OSError, NotAuthenticError) as error:
        _tell(out.warn, entry.path, error)
        return
    try:
        if descriptor < 0:
            out.folder(member, status)
        elif not stat.S_ISREG(status.st_mode):
            out.warn(f"{entry.path}: something else took its place meanwhile", partial=True)
        elif databases and _is_database(descriptor):
            databases.take(member, Path(entry.path), descriptor)
        else:
            out.file(member, descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(frozen=True)
class _Database:
    """One that is being copied.

    :param descriptor: what it is copied by as any other file, where it has to be.
    :param companions: what SQLite keeps beside it, by their members. What they hold will be in the copy.
    """

    member: str
    descriptor: int
    copying: Future[tuple[IO[bytes], dict[str, int]]]
    companions: dict[str, os.DirEntry[str]] = field(default_factory=dict)


class _Databases:
    """Databases among files: one at a time is copied by SQLite's own means, while other files go in."""

    def __init__(self, out: Writer, scratch: Path) -> None:
        self._out = out
        self._scratch = scratch
        self._beside = ThreadPoolExecutor(1)
        self._now: _Database | None = None
        self._left_out: set[str] = set()
        self.rows: dict[tuple[str, str], int] = {}

    def __enter__(self) -> _Databases:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._beside.shutdown()
            if self._now:
                self._close(self._now)

    def take(self, member: str, path: Path, descriptor: int) -> None:
        """Take a database; it goes in later."""
        self._finish()
        copying = self._beside.submit(_copied, path, os.fstat(descriptor), self._scratch)
        self._now = _Database(member, os.dup(descriptor), copying)

    def take_companion(self, member: str, entry: os.DirEntry[str]) -> bool:
        """Take what belongs to a database that is being copied, or was; returns whether it does."""
        now = self._now
        if now and member in _companions(now.member):
            now.companions[member] = entry
            return True
        return member in self._left_out

    def _finish(self) -> None:
        """Add the copy; the database as any other file, with its companions, where there is none."""
        now = self._now
        if now is None:
            return
        try:
            copy, rows = now.copying.result()
        except BackupError as error:
            self._out.warn(f"{error}; it was copied as any other file, and may be torn", partial=True)
            self._add_plain(now)
        else:
            self._out.file(now.member, copy.fileno(), os.fstat(now.descriptor))
            self.rows |= {(now.member, table): count for table, count in rows.items()}
            self._left_out |= _companions(now.member)
        self._now = None
        self._close(now)

    def _add_plain(self, database: _Database) -> None:
        self._out.file(database.member, database.descriptor)
        for member, entry in database.companions.items():
            _add(self._out, member, entry)

    @staticmethod
    def _close(database: _Database) -> None:
        os.close(database.descriptor)
        if not database.copying.exception():
            database.copying.result()[0].close()


def _companions(member: str) -> set[str]:
    return {f"{member}{suffix}" for suffix in sqlite.COMPANIONS}


def _copied(path: Path, status: os.stat_result, scratch: Path) -> tuple[IO[bytes], dict[str, int]]:
    """Copy a database; see `sqlite.copied`.

    :param status: of the file that it has to be.
    """
    copy, rows = sqlite.copied(path, scratch)
    # It was opened by its name once more, and somebody may have put another one there.
    with contextlib.suppress(OSError):
        if os.path.samestat(path.lstat(), status):
            return copy, rows
    copy.close()
    raise BackupError(f"{path}: something else took its place meanwhile")


def _is_database(descriptor: int) -> bool:
    try:
        return os.pread(descriptor, len(sqlite.MAGIC), 0) == sqlite.MAGIC
    except OSError:
        return False


def _open(path: str) -> int:
    # Not through what somebody puts there in this moment, and not waiting for a pipe.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _tell(warn: Warn, path: str, error: Exception) -> None:
    if isinstance(error, FileNotFoundError):
        warn(f"{path}: it went away meanwhile")
    else:
        warn(f"{path}: {error.strerror if isinstance(error, OSError) else error}", partial=True)
