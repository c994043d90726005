# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What there is to back up: folders, and databases by their own means."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import sqlite3
import stat
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import names
from .errors import BackupError, NotAuthenticError
from .extract import check_path
from .manifest import Source
from .writer import Writer

FILES, SQLITE = "files", "sqlite"


class Warn(Protocol):
    """As `Writer.warn`."""

    def __call__(self, text: str, *, partial: bool = False) -> None: ...


class Origin(Protocol):
    """Something that can be backed up."""

    @property
    def name(self) -> str:
        """What it is called; no other one of the host is."""

    def size(self) -> int:
        """About how many bytes it is, and so how much room its backup may need."""

    def add(self, out: Writer, scratch: Path) -> Source:
        """Back it up.

        :param scratch: a folder for what has to be written before it can be read; nobody else's.
        :raises BackupError: it cannot be, or what came of it is none.
        """


@dataclass(frozen=True)
class Files:
    """A folder, with what is below it.

    :param exclude: names, or paths below the folder, with shell wildcards.
    """

    name: str
    path: Path
    exclude: tuple[str, ...] = ()

    def size(self) -> int:
        """Sum of the files."""
        files = (entry for _, entry in self._walk(_ignore) if entry.is_file(follow_symlinks=False))
        return sum(_size(entry) for entry in files)

    def add(self, out: Writer, scratch: Path) -> Source:  # noqa: ARG002 (files need none)
        """Add all files and folders; what is neither is told of."""
        prefix = f"{FILES}/{self.name}"
        try:
            out.folder(prefix, self.path.stat())
        except OSError as error:
            raise BackupError(f"{self.path}: {error.strerror}") from None
        for path, entry in self._walk(out.warn):
            if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
                self._add(out, f"{prefix}/{path}", entry)
            else:
                out.warn(f"{entry.path}: it is no file and no folder, and was left out")
        return Source(FILES, self.name, prefix)

    def _add(self, out: Writer, member: str, entry: os.DirEntry[str]) -> None:
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
            elif stat.S_ISREG(status.st_mode):
                out.file(member, descriptor)
            else:
                out.warn(f"{entry.path}: something else took its place meanwhile", partial=True)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _walk(self, warn: Warn) -> Iterator[tuple[str, os.DirEntry[str]]]:
        waiting = [("", os.fspath(self.path))]
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
                if _matches(path, entry.name, self.exclude):
                    continue
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    deeper.append((f"{path}/", entry.path))
            waiting += reversed(deeper)


@dataclass(frozen=True)
class Sqlite:
    """A database in a file, copied by SQLite's own backup: consistent, with what is in its write-ahead log.

    https://www.sqlite.org/backup.html
    """

    name: str
    path: Path

    def size(self) -> int:
        """Of the file and its log; twice, because it is copied first."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return 2 * sum(file.stat().st_size for file in files if file.exists())

    def add(self, out: Writer, scratch: Path) -> Source:
        """Copy it, check the copy, count its rows."""
        member = f"{SQLITE}/{self.name}.sqlite3"
        with tempfile.NamedTemporaryFile(dir=scratch, prefix=f"{names.TEMPORARY}sqlite-") as copy:
            try:
                rows = self._copy(copy.name)
            except sqlite3.Error as error:
                raise BackupError(f"{self.path}: {error}") from None
            out.file(member, copy.fileno())
        return Source(SQLITE, self.name, member, f"SQLite {sqlite3.sqlite_version}", rows)

    def _copy(self, target: str) -> dict[str, int]:
        # Read only: a database that is not there must not be made, and then be backed up as an empty one.
        origin = sqlite3.connect(f"file:{urllib.parse.quote(os.fspath(self.path))}?mode=ro", uri=True, timeout=60)
        copy = sqlite3.connect(target)
        try:
            # All in one step: between two of them somebody may write, and it would begin again.
            origin.backup(copy)
            problems = [str(row[0]) for row in copy.execute("PRAGMA integrity_check(5)")]
            if problems != ["ok"]:
                raise BackupError(f"{self.path}: its copy is not sound: {'; '.join(problems)}")
            return count_rows(copy)
        finally:
            copy.close()
            origin.close()


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


def count_rows(database: sqlite3.Connection) -> dict[str, int]:
    """Return the number of rows of each table of a SQLite database."""
    tables = database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    quoted = {str(name): str(name).replace('"', '""') for (name,) in tables}
    return {name: int(database.execute(f'SELECT count(*) FROM "{q}"').fetchone()[0]) for name, q in quoted.items()}  # noqa: S608 (quoted)


def _matches(path: str, name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern.strip("/")) for pattern in patterns)
