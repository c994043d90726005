# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""A folder, with what is below it."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import exchange, sqlite
from .errors import BackupError, NotAuthenticError
from .extract import check_path
from .manifest import Source
from .sources import CANARY, compare
from .writer import Writer

FILES = "files"
_CANARY_FILE = f".{CANARY}"
#: Between the path of a database in a folder and the name of one of its tables; no path has it.
_TABLE = "//"


class Warn(Protocol):
    """As `Writer.warn`."""

    def __call__(self, text: str, *, partial: bool = False) -> None: ...


@dataclass(frozen=True)
class Files:
    """A folder.

    :param exclude: names, or paths below the folder, with shell wildcards; they stay where they are when the rest is
        brought back.
    :param in_place: whether it can be brought back to where it came from; otherwise only elsewhere.
    """

    name: str
    path: Path
    exclude: tuple[str, ...] = ()
    in_place: bool = True

    optional = False
    database = scratch = ""
    is_database = False

    def size(self) -> int:
        """Sum of the files."""
        files = (entry for _, entry in self._walk(_ignore) if entry.is_file(follow_symlinks=False))
        return sum(_size(entry) for entry in files)

    def mark(self, canary: str) -> None:
        """Write the word into a file of its own."""
        if not self.in_place:
            return
        try:
            _write_canary(self.path, canary)
        except OSError as error:
            raise BackupError(f"{self.path}: {error.strerror}") from None

    def add(self, out: Writer, scratch: Path) -> Source:
        """Add all files and folders; what is neither is told of."""
        prefix = f"{FILES}/{self.name}"
        rows: dict[str, int] = {}
        try:
            out.folder(prefix, self.path.stat())
        except OSError as error:
            raise BackupError(f"{self.path}: {error.strerror}") from None
        companions: set[str] = set()
        for path, entry in self._walk(out.warn):
            if path in companions:
                continue
            if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
                counts = _add(out, f"{prefix}/{path}", entry, scratch)
                if counts is not None:
                    # What they hold is in the copy of the database already.
                    companions |= {f"{path}{suffix}" for suffix in sqlite.COMPANIONS}
                    rows |= {f"{path}{_TABLE}{table}": count for table, count in counts.items()}
            else:
                out.warn(f"{entry.path}: it is no file and no folder, and was left out")
        return Source(FILES, self.name, prefix, rows=rows)

    def present(self) -> bool:
        """Whether the folder is there."""
        return self.path.is_dir()

    def staging(self, default: Path) -> Path:
        """Return the folder that was given, or one beside it where that is on another file system."""
        beside = self.path.parent
        try:
            same = beside.stat().st_dev == default.parent.stat().st_dev
        except OSError as error:
            raise BackupError(f"{beside}: {error.strerror}; {self.name} is to be brought back there") from None
        if self.path.is_mount():
            raise BackupError(
                f"{self.path} is the root of a file system, which nothing can take the place of: restore {self.name} "
                "elsewhere with --to, and move what you need"
            )
        return default if same else beside / f".{self.path.name}.restore"

    def load(self, source: Source, staging: Path) -> None:
        """Look into its databases, and compare."""
        folder = staging / source.member
        rows: dict[str, int] = {}
        for path in sorted({key.partition(_TABLE)[0] for key in source.rows}):
            rows |= {f"{path}{_TABLE}{table}": count for table, count in sqlite.inspect(folder / path).items()}
        file = folder / _CANARY_FILE
        compare(self.name, source, rows, file.read_text(encoding="utf-8") if file.exists() else "")

    def swap(self, staging: Path) -> None:
        """Exchange the two folders, by one rename where the file system can; take along what was excluded."""
        try:
            exchange.begin(self.path, self._loaded(staging))
            self._carry(self._loaded(staging), self.path)
        except OSError as error:
            raise BackupError(f"{self.path}: {error.strerror}") from None

    def put_back(self, staging: Path) -> None:
        """Exchange them again, if they were."""
        try:
            if exchange.undo(self.path, self._loaded(staging)):
                self._carry(self._loaded(staging), self.path)
        except OSError as error:
            raise BackupError(f"{self.path}: {error.strerror}") from None

    def forget(self) -> None:
        """Do nothing: it is in the staging."""

    def drop(self) -> None:
        """Do nothing: it is in the staging."""

    def _loaded(self, staging: Path) -> Path:
        return staging / FILES / self.name

    def _carry(self, origin: Path, target: Path) -> None:
        """Move what is excluded from one folder to the other, where that has nothing of the name."""
        for path, entry in _walk(origin, (), _ignore) if origin.exists() else ():
            if _matches(path, entry.name, self.exclude) and not os.path.lexists(target / path):
                # A folder that is not there any more needs nothing of what was excluded from it.
                with contextlib.suppress(FileNotFoundError):
                    Path(entry.path).rename(target / path)

    def _walk(self, warn: Warn) -> Iterator[tuple[str, os.DirEntry[str]]]:
        return _walk(self.path, self.exclude, warn)


def _walk(root: Path, exclude: Sequence[str], warn: Warn) -> Iterator[tuple[str, os.DirEntry[str]]]:
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
            if _matches(path, entry.name, exclude):
                continue
            yield path, entry
            if entry.is_dir(follow_symlinks=False):
                deeper.append((f"{path}/", entry.path))
        waiting += reversed(deeper)


def _add(out: Writer, member: str, entry: os.DirEntry[str], scratch: Path) -> dict[str, int] | None:
    """Add a folder or a file; returns the rows of each table where it is a database."""
    descriptor = -1
    # What goes wrong here is this file's trouble; in what follows it would be the whole backup's.
    try:
        check_path(member)
        if entry.is_file(follow_symlinks=False):
            descriptor = _open(entry.path)
        status = os.fstat(descriptor) if descriptor >= 0 else entry.stat(follow_symlinks=False)
    except (OSError, NotAuthenticError) as error:
        _tell(out.warn, entry.path, error)
        return None
    try:
        if descriptor < 0:
            out.folder(member, status)
        elif not stat.S_ISREG(status.st_mode):
            out.warn(f"{entry.path}: something else took its place meanwhile", partial=True)
        elif _is_database(descriptor):
            return _add_database(out, member, Path(entry.path), descriptor, scratch)
        else:
            out.file(member, descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


def _add_database(out: Writer, member: str, path: Path, descriptor: int, scratch: Path) -> dict[str, int] | None:
    """Add a database, by SQLite's own means; as any other file where that cannot be."""
    status = os.fstat(descriptor)
    try:
        with sqlite.copied(path, scratch) as (copy, rows):
            # It was opened by its name once more, and somebody may have put another one there.
            if os.path.samestat(path.lstat(), status):
                out.file(member, copy, status)
                return rows
    except BackupError as error:
        out.warn(f"{error}; it was copied as any other file, and may be torn", partial=True)
    out.file(member, descriptor)
    return None


def _is_database(descriptor: int) -> bool:
    try:
        return os.pread(descriptor, len(sqlite.MAGIC), 0) == sqlite.MAGIC
    except OSError:
        return False


def _open(path: str) -> int:
    # Not through what somebody puts there in this moment, and not waiting for a pipe.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _size(entry: os.DirEntry[str]) -> int:
    with contextlib.suppress(OSError):
        return entry.stat(follow_symlinks=False).st_size
    return 0


def _ignore(text: str, *, partial: bool = False) -> None:
    pass


def _tell(warn: Warn, path: str, error: Exception) -> None:
    if isinstance(error, FileNotFoundError):
        warn(f"{path}: it went away meanwhile")
    else:
        warn(f"{path}: {error.strerror if isinstance(error, OSError) else error}", partial=True)


def _write_canary(folder: Path, canary: str) -> None:
    # Of one that was killed at this; nobody else is at it now.
    for left in folder.glob(f"{_CANARY_FILE}.*"):
        left.unlink(missing_ok=True)
    # Others can write there, and so no name is used that they could have guessed.
    temporary = folder / f"{_CANARY_FILE}.{uuid.uuid4()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, canary.encode("ascii"))
        temporary.rename(folder / _CANARY_FILE)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _matches(path: str, name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern.strip("/")) for pattern in patterns)
