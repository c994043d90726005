# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What is below a folder, on its way into a backup: files, folders, and databases by SQLite's own means."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from ..._host import nofollow
from ..._host.nofollow import OPEN_FOLDER
from ..archive.paths import DEPTH_MAX, check_path
from ..archive.writer import Writer
from ..errors import BackupError, NotAuthenticError
from ..storage.store import check_room
from . import sqlite


class Warn(Protocol):
    """As `Writer.warn`."""

    def __call__(self, text: str, *, partial: bool = False) -> None:
        """Report a warning; ``partial`` means that the backup is incomplete."""


def ignore(text: str, *, partial: bool = False) -> None:
    """Tell nobody."""


class Found(NamedTuple):
    """What is in a folder.

    :param path: below the folder that is walked.
    :param place: where that is, for people, and for who cannot take a descriptor.
    :param folder: descriptor of the folder that it is in, until the walk goes on.
    """

    path: str
    place: str
    entry: os.DirEntry[str]
    folder: int


def add(out: Writer, prefix: str, found: Iterable[Found], scratch: Path) -> dict[tuple[str, str], int]:
    """Add what was found; what is neither file nor folder is told of.

    :param prefix: of the members, which are called as in the folder otherwise.
    :param found: by `walk`.
    :param scratch: a folder for copies of databases.
    :returns: the rows of each table, by the path of its database in the folder and its own name.
    """
    databases = _Databases(out, scratch)
    try:
        for one in found:
            _add(out, f"{prefix}/{one.path}", one, databases)
        databases.finish()
    finally:
        databases.close()
    return {(member.removeprefix(f"{prefix}/"), table): rows for (member, table), rows in databases.rows.items()}


def walk(root: Path, exclude: Sequence[str], warn: Warn) -> Iterator[Found]:
    """Give what is below a folder, folders before what they hold. Nobody can lead it elsewhere by a link meanwhile.

    :param exclude: names, or paths below the folder, with shell wildcards.
    :param warn: is told of folders that cannot be read.
    :raises OSError: the folder itself cannot be.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _walk(folder, "", os.fspath(root), exclude, warn)
    finally:
        os.close(folder)


def _walk(folder: int, below: str, place: str, exclude: Sequence[str], warn: Warn) -> Iterator[Found]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    found = [Found(f"{below}{entry.name}", f"{place}/{entry.name}", entry, folder) for entry in entries]
    wanted = [one for one in found if not matches(one.path, one.entry.name, exclude)]
    yield from wanted
    for one in wanted:
        if one.entry.is_dir(follow_symlinks=False):
            try:
                with _entered(one) as deeper:
                    yield from _walk(deeper, f"{one.path}/", one.place, exclude, warn)
            except OSError as error:
                _tell(warn, one.place, error)


@contextlib.contextmanager
def _entered(found: Found) -> Iterator[int]:
    if found.path.count("/") >= DEPTH_MAX:
        raise OSError(errno.ENAMETOOLONG, "there are too many folders in each other")
    folder = os.open(found.entry.name, OPEN_FOLDER, dir_fd=found.folder)
    try:
        yield folder
    finally:
        os.close(folder)


def matches(path: str, name: str, patterns: Sequence[str]) -> bool:
    """Tell whether one of the patterns means a path, which ends with the name."""
    return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern.strip("/")) for pattern in patterns)


def _add(out: Writer, member: str, found: Found, databases: _Databases) -> None:
    """Add a folder or a file."""
    entry = found.entry
    if not entry.is_dir(follow_symlinks=False) and not entry.is_file(follow_symlinks=False):
        out.warn(f"{found.place}: it is no file and no folder, and was left out")
        return
    if databases.take_companion(member, found):
        return
    descriptor = -1
    # What goes wrong here is this file's trouble; in what follows it would be the whole backup's.
    try:
        check_path(member)
        if entry.is_file(follow_symlinks=False):
            descriptor = _open(found)
        status = os.fstat(descriptor) if descriptor >= 0 else entry.stat(follow_symlinks=False)
    except (OSError, NotAuthenticError) as error:
        _tell(out.warn, found.place, error)
        return
    try:
        if descriptor < 0:
            out.folder(member, status)
        elif _is_database(descriptor):
            databases.take(member, Path(found.place), descriptor)
        else:
            out.file(member, descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(frozen=True)
class _Database:
    """One that is being copied.

    :param descriptor: what it is copied by as any other file, where it has to be.
    :param companions: descriptors of what SQLite keeps beside it, by their members. What they hold will be in the copy.
    """

    member: str
    descriptor: int
    copying: Future[tuple[IO[bytes], dict[str, int]]]
    companions: dict[str, int] = field(default_factory=dict)


class _Databases:
    """Databases among files: one at a time is copied by SQLite's own means, while other files go in."""

    def __init__(self, out: Writer, scratch: Path) -> None:
        self._out = out
        self._scratch = scratch
        self._beside = ThreadPoolExecutor(1)
        self._now: _Database | None = None
        self._left_out: set[str] = set()
        self.rows: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """End it, whatever it is at."""
        self._beside.shutdown()
        if self._now:
            self._close(self._now)

    def take(self, member: str, path: Path, descriptor: int) -> None:
        """Take a database; it goes in later."""
        self.finish()
        check_room(self._scratch, sqlite.size(path), f"the copy of {path}", "Make room.")
        copying = self._beside.submit(_copied, path, os.fstat(descriptor), self._scratch)
        self._now = _Database(member, os.dup(descriptor), copying)

    def take_companion(self, member: str, found: Found) -> bool:
        """Take what belongs to a database that is being copied, or was; returns whether it does."""
        now = self._now
        if not found.entry.is_file(follow_symlinks=False):
            # SQLite refuses the database then.
            return False
        if now and member in _companions(now.member):
            with contextlib.suppress(OSError):
                now.companions[member] = _open(found)
            return True
        return member in self._left_out

    def finish(self) -> None:
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
        for member, descriptor in database.companions.items():
            self._out.file(member, descriptor)

    @staticmethod
    def _close(database: _Database) -> None:
        for descriptor in (database.descriptor, *database.companions.values()):
            os.close(descriptor)
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


def _open(found: Found) -> int:
    return nofollow.read(found.entry.name, found.folder)


def _tell(warn: Warn, path: str, error: Exception) -> None:
    if isinstance(error, FileNotFoundError):
        warn(f"{path}: it went away meanwhile")
    else:
        warn(f"{path}: {error.strerror if isinstance(error, OSError) else error}", partial=True)
