# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Walk a folder, and add what is found to a backup: files, folders, and consistent copies of SQLite databases."""

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
from ..storage.store import check_free_space
from . import sqlite


class Warn(Protocol):
    """A function like `Writer.warn`."""

    def __call__(self, text: str, *, partial: bool = False) -> None:
        """Report a warning; ``partial`` means that the backup is incomplete."""


def no_warning(text: str, *, partial: bool = False) -> None:
    """Discard a warning."""


class Found(NamedTuple):
    """A file, folder or other entry that a walk has found.

    :param path: relative to the folder that is walked.
    :param full_path: the path for messages, and for functions that cannot use a descriptor.
    :param folder: descriptor of the folder that contains it; valid until the walk goes on.
    """

    path: str
    full_path: str
    entry: os.DirEntry[str]
    folder: int


def add(out: Writer, prefix: str, found: Iterable[Found], scratch: Path) -> dict[tuple[str, str], int]:
    """Add what was found; warn of anything but files and folders.

    :param prefix: path in the archive of the folder.
    :param found: from `walk_directory`.
    :param scratch: a folder for copies of databases.
    :returns: the number of rows by path of the database in the folder and name of the table.
    """
    databases = _Databases(out, scratch)
    try:
        for one in found:
            _add(out, f"{prefix}/{one.path}", one, databases)
        databases.finish()
    finally:
        databases.close()
    return {(member.removeprefix(f"{prefix}/"), table): rows for (member, table), rows in databases.rows.items()}


def walk_directory(root: Path, exclude: Sequence[str], warn: Warn) -> Iterator[Found]:
    """Yield what is below a folder, each folder before its content. Symlinks are never followed.

    :param exclude: names, or paths below the folder, with shell wildcards.
    :param warn: receives a warning for each folder that cannot be read.
    :raises OSError: the folder itself cannot be read.
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
                    yield from _walk(deeper, f"{one.path}/", one.full_path, exclude, warn)
            except OSError as error:
                _warn(warn, one.full_path, error)


@contextlib.contextmanager
def _entered(found: Found) -> Iterator[int]:
    if found.path.count("/") >= DEPTH_MAX:
        raise OSError(errno.ENAMETOOLONG, "folders are nested too deeply")
    folder = os.open(found.entry.name, OPEN_FOLDER, dir_fd=found.folder)
    try:
        yield folder
    finally:
        os.close(folder)


def matches(path: str, name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a pattern matches a path or its last part, the name."""
    return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern.strip("/")) for pattern in patterns)


def _add(out: Writer, member: str, found: Found, databases: _Databases) -> None:
    """Add a folder or a file."""
    entry = found.entry
    if not entry.is_dir(follow_symlinks=False) and not entry.is_file(follow_symlinks=False):
        out.warn(f"{found.full_path}: neither a regular file nor a folder; it was left out")
        return
    if databases.take_companion(member, found):
        return
    descriptor = -1
    # An error here leaves out one file. Once its header is written, an error fails the whole backup.
    try:
        check_path(member)
        if entry.is_file(follow_symlinks=False):
            descriptor = _open(found)
        status = os.fstat(descriptor) if descriptor >= 0 else entry.stat(follow_symlinks=False)
    except (OSError, NotAuthenticError) as error:
        _warn(out.warn, found.full_path, error)
        return
    try:
        if descriptor < 0:
            out.folder(member, status)
        elif _is_database(descriptor):
            databases.take(member, Path(found.full_path), descriptor)
        else:
            out.file(member, descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(frozen=True)
class _Database:
    """A database that is being copied.

    :param descriptor: the open file, to add it as it is if the copy fails.
    :param companions: descriptors of SQLite's files beside it, by path in the archive. The copy contains their content.
    """

    member: str
    descriptor: int
    copying: Future[tuple[IO[bytes], dict[str, int]]]
    companions: dict[str, int] = field(default_factory=dict)


class _Databases:
    """Copies databases among files with SQLite's backup API, one at a time, while other files are added."""

    def __init__(self, out: Writer, scratch: Path) -> None:
        self._out = out
        self._scratch = scratch
        self._executor = ThreadPoolExecutor(1)
        self._current: _Database | None = None
        self._left_out: set[str] = set()
        self.rows: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Wait for the current copy, and close all files."""
        self._executor.shutdown()
        if self._current:
            self._close(self._current)

    def take(self, member: str, path: Path, descriptor: int) -> None:
        """Begin to copy a database; `finish` adds it."""
        self.finish()
        check_free_space(self._scratch, sqlite.size(path), f"the copy of {path}", "Free some space.")
        copying = self._executor.submit(_copy_same_file, path, os.fstat(descriptor), self._scratch)
        self._current = _Database(member, os.dup(descriptor), copying)

    def take_companion(self, member: str, found: Found) -> bool:
        """Leave out a file of SQLite's beside a copied database; return False for any other file."""
        current = self._current
        if not found.entry.is_file(follow_symlinks=False):
            # SQLite refuses to open a database with such a file, so its copy fails.
            return False
        if current and member in _companions(current.member):
            with contextlib.suppress(OSError):
                current.companions[member] = _open(found)
            return True
        return member in self._left_out

    def finish(self) -> None:
        """Add the current copy; if it failed, add the database and its companions as they are."""
        current = self._current
        if current is None:
            return
        try:
            copy, rows = current.copying.result()
        except BackupError as error:
            self._out.warn(f"{error}; the file was added as it is, and may be inconsistent", partial=True)
            self._add_plain(current)
        else:
            self._out.file(current.member, copy.fileno(), os.fstat(current.descriptor))
            self.rows |= {(current.member, table): count for table, count in rows.items()}
            self._left_out |= _companions(current.member)
        self._current = None
        self._close(current)

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


def _copy_same_file(path: Path, status: os.stat_result, scratch: Path) -> tuple[IO[bytes], dict[str, int]]:
    """Copy a database, and check that it is still the file that was opened; see `sqlite.copy_and_check`.

    :param status: of the open file.
    """
    copy, rows = sqlite.copy_and_check(path, scratch)
    # SQLite has opened it by name once more, and others may have replaced it meanwhile.
    with contextlib.suppress(OSError):
        if os.path.samestat(path.lstat(), status):
            return copy, rows
    copy.close()
    raise BackupError(f"{path}: the file was replaced while it was copied")


def _is_database(descriptor: int) -> bool:
    try:
        return os.pread(descriptor, len(sqlite.MAGIC), 0) == sqlite.MAGIC
    except OSError:
        return False


def _open(found: Found) -> int:
    return nofollow.read(found.entry.name, found.folder)


def _warn(warn: Warn, path: str, error: Exception) -> None:
    if isinstance(error, FileNotFoundError):
        warn(f"{path}: removed while the backup was made")
    else:
        warn(f"{path}: {error.strerror if isinstance(error, OSError) else error}", partial=True)
