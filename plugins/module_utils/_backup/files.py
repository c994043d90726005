# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""A folder, with what is below it."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import exchange, gather, sqlite
from .errors import BackupError
from .gather import Found, Warn
from .manifest import Source
from .sources import CANARY, compare
from .writer import Writer

FILES = "files"
_CANARY_FILE = f".{CANARY}"
#: Between the path of a database in a folder and the name of one of its tables; no path has it.
_TABLE = "//"


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
        found = (one.entry for one in self._walk(_ignore))
        return sum(_size(entry) for entry in found if entry.is_file(follow_symlinks=False))

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
        try:
            out.folder(prefix, self.path.stat())
        except OSError as error:
            raise BackupError(f"{self.path}: {error.strerror}") from None
        rows = gather.add(out, prefix, self._walk(out.warn), scratch)
        named = {f"{path}{_TABLE}{table}": count for (path, table), count in rows.items()}
        return Source(FILES, self.name, prefix, rows=named)

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
        for path, _, entry, _ in gather.walk(origin, (), _ignore) if origin.exists() else ():
            if gather.matches(path, entry.name, self.exclude) and not os.path.lexists(target / path):
                # A folder that is not there any more needs nothing of what was excluded from it.
                with contextlib.suppress(FileNotFoundError):
                    (origin / path).rename(target / path)

    def _walk(self, warn: Warn) -> Iterator[Found]:
        return gather.walk(self.path, self.exclude, warn)


def _size(entry: os.DirEntry[str]) -> int:
    with contextlib.suppress(OSError):
        return entry.stat(follow_symlinks=False).st_size
    return 0


def _ignore(text: str, *, partial: bool = False) -> None:
    pass


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
