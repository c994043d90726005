# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""A database in a file, copied by SQLite's own backup: consistent, with what is in its write-ahead log.

https://www.sqlite.org/backup.html
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..._host import durable, nofollow
from ..archive import names
from ..archive.manifest import Source
from ..archive.writer import Writer
from ..errors import AbsentError, BackupError
from .source import CANARY, aside, compare, kept, note_absence, was_absent

SQLITE = "sqlite"
#: What a database begins with. https://www.sqlite.org/fileformat.html
MAGIC = b"SQLite format 3\0"
#: What SQLite keeps beside a database.
COMPANIONS = ("-wal", "-shm", "-journal")
_LOGS = ("-wal", "-journal")  # the other one is made anew
_BUSY = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
_TIMEOUT = 60.0  # seconds to wait for whoever writes
#: How one is opened that nobody else writes to; what is beside it is not looked at.
_ALONE = "immutable=1"
_MARK_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Sqlite:
    """A database in a file.

    :param optional: it may not be there yet; once it was backed up, it has to be.
    """

    name: str
    path: Path
    optional: bool = False

    kind = SQLITE
    folder = database = scratch = ""
    is_database = True
    in_place = True

    def size(self) -> int:
        """Of the file and its log."""
        return size(self.path)

    def mark(self, canary: str) -> None:
        """Write the word into a table of its own."""
        with _told(self.path), _opened(self.path, "mode=rw", _MARK_TIMEOUT) as database, database:
            if not _count_rows(database):
                raise BackupError(f"{self.path}: it has no table, and what is no database yet is not made one")
            database.execute(f"CREATE TABLE IF NOT EXISTS {CANARY} (id TEXT NOT NULL)")
            database.execute(f"DELETE FROM {CANARY}")  # noqa: S608 (ours)
            database.execute(f"INSERT INTO {CANARY} (id) VALUES (?)", (canary,))  # noqa: S608 (ours)

    def add(self, out: Writer, scratch: Path) -> Source:
        """Copy it, check the copy, count its rows."""
        member = f"{SQLITE}/{self.name}.sqlite3"
        if not self.present():
            raise AbsentError(f"{self.path}: there is no such database")
        copy, rows = copied(self.path, scratch)
        with copy:
            out.file(member, copy.fileno(), self.path.stat())
        return Source(SQLITE, self.name, member, f"SQLite {sqlite3.sqlite_version}", rows)

    def present(self) -> bool:
        """Whether the file is there."""
        return os.path.lexists(self.path)

    def staging(self, default: Path) -> Path:
        """Return any folder: it is copied into its place."""
        _check(self.path)
        parent = self.path.parent
        if os.path.lexists(parent) and not parent.is_dir():
            raise BackupError(f"{parent}: this is no folder, and {self.name} is to be brought back into one: move it")
        return default

    def load(self, source: Source, staging: Path) -> None:
        """Check its integrity, and compare."""
        file = staging / source.member
        rows = inspect(file)
        compare(self.name, source, rows, _canary(file) if source.canary and CANARY in rows else "")

    def swap(self, staging: Path) -> None:
        """Copy it over the present one, in one transaction; whoever has that open sees the change."""
        with _told(self.path):
            if self.present():
                self._keep(staging)
            else:
                note_absence(self.name, staging)
            _put(staging / SQLITE / f"{self.name}.sqlite3", self.path)

    def put_back(self, staging: Path) -> list[str]:
        """Copy the kept one over what is there; what else is in its place goes aside."""
        with _told(self.path):
            file, broken = self._kept(staging), self._broken(staging)
            if file.exists():
                return _put(file, self.path)
            if broken.exists():
                moved = _replace(broken, self.path)
                _copy_logs(broken, self.path)
                return moved
            if was_absent(self.name, staging):
                return _remove_all(self.path, *_companions(self.path))
        return []

    def forget(self) -> None:
        """Do nothing: it is in the staging."""

    def drop(self) -> None:
        """Do nothing: it is in the staging."""

    def _kept(self, staging: Path) -> Path:
        return kept(staging, f"{self.name}.sqlite3")

    def _broken(self, staging: Path) -> Path:
        return kept(staging, f"{self.name}.broken")

    def _keep(self, staging: Path) -> None:
        """Copy the present one aside; what has one of the two names is whole."""
        unfinished = kept(staging, f"{self.name}.new")
        try:
            _copy(self.path, unfinished)
        except BackupError:
            # It is about to be replaced, perhaps because of that; somebody may yet save something from it.
            _copy_logs(self.path, self._broken(staging))
            nofollow.copy(self.path, self._broken(staging))
            unfinished.unlink(missing_ok=True)
            try:
                # What an app that died has left half done is undone, as for the next one who asks.
                _copy(self.path, unfinished, "mode=rw")
            except BackupError:
                return
        with unfinished.open("rb") as whole, os.fdopen(nofollow.read(self.path), "rb") as present:
            nofollow.copy_metadata(whole.fileno(), present.fileno())
            os.fsync(whole.fileno())
        unfinished.rename(self._kept(staging))
        durable.sync(unfinished.parent)


def size(path: Path) -> int:
    """Return the bytes of a database and its log."""
    found = map(_status, (path, path.with_name(f"{path.name}-wal")))
    return sum(status.st_size for status in found if status)


def copied(path: Path, scratch: Path) -> tuple[IO[bytes], dict[str, int]]:
    """Copy a database, and check the copy; returns that, which goes when it is closed, and the rows of each table.

    :raises BackupError: it cannot be read, or is not sound.
    """
    with contextlib.ExitStack() as stack:
        copy = stack.enter_context(tempfile.NamedTemporaryFile(dir=scratch, prefix=f"{names.TEMPORARY}sqlite-"))
        _copy(path, Path(copy.name))
        rows = inspect(Path(copy.name))
        stack.pop_all()
    return copy, rows


def inspect(path: Path) -> dict[str, int]:
    """Check a database that nobody writes to; returns the number of rows of each of its tables.

    :raises BackupError: it is not sound.
    """
    with _told(path), _opened(path, _ALONE) as database:
        problems = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)")]
        if problems != ["ok"]:
            raise BackupError(f"{path}: this copy is not sound: {'; '.join(problems)}")
        return _count_rows(database)


def _copy(origin: Path, target: Path, mode: str = "mode=ro") -> None:
    # In neither mode a database that is not there is made, and then backed up as an empty one.
    with _told(origin), _opened(origin, mode) as present, contextlib.closing(sqlite3.connect(target)) as copy:
        # A copy that is to outlast this process is synced by who made it.
        copy.execute("PRAGMA synchronous = OFF")
        _backup(present, copy)


def _backup(origin: sqlite3.Connection, target: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _TIMEOUT

    def look(status: int, *_: int) -> None:
        # Python tries again for ever, and one who does not let go of a lock may never do so.
        if status in _BUSY and time.monotonic() >= deadline:
            raise sqlite3.OperationalError(f"it was locked for {_TIMEOUT:g} s")

    # All in one step: between two of them somebody may write, and it would begin again.
    origin.backup(target, progress=look)


def _put(file: Path, path: Path) -> list[str]:
    """Copy a database over another one; where that is missing, broken, or of another kind, into its place.

    :returns: what had to go aside, in words.
    """
    try:
        _overwrite(file, path)
    except BackupError:
        return _replace(file, path)
    return []


def _overwrite(file: Path, path: Path) -> None:
    with _told(path), _opened(file, _ALONE) as loaded, _opened(path, "mode=rw") as present:
        _backup(loaded, present)


def _replace(file: Path, path: Path) -> list[str]:
    moved = _make(path.parent)
    # What would be applied to a database that it does not belong to.
    moved += _remove_all(*_companions(path))
    if path.is_dir() and not path.is_symlink():
        moved += _put_aside(path)
    nofollow.copy(file, path)
    return moved


def _make(folder: Path) -> list[str]:
    """Make a folder where there is none; it is whose the one is that it is in. Returns what had to go aside."""
    if folder.is_dir():
        return []
    moved = _make(folder.parent)
    if os.path.lexists(folder):
        moved += _put_aside(folder)
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        nofollow.make_folder(folder.name, parent, parent)
        os.fsync(parent)
    finally:
        os.close(parent)
    return moved


def _copy_logs(origin: Path, target: Path) -> None:
    """Copy what a database that is copied as it is cannot be understood without."""
    for suffix in _LOGS:
        with contextlib.suppress(FileNotFoundError):
            nofollow.copy(*(path.with_name(f"{path.name}{suffix}") for path in (origin, target)))


def _companions(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{suffix}") for suffix in COMPANIONS]


def _remove_all(*paths: Path) -> list[str]:
    return [moved for path in paths for moved in _remove(path)]


def _remove(path: Path) -> list[str]:
    """Remove a file; a folder that has its name goes aside, and that is returned, in words."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        return _put_aside(path)
    except NotADirectoryError:
        # Below what is no folder there is none.
        pass
    return []


def _put_aside(path: Path) -> list[str]:
    return [f"{path} was in the way, and is {path.rename(aside(path))} now"]


@contextlib.contextmanager
def _opened(path: Path, mode: str, timeout: float | None = None) -> Iterator[sqlite3.Connection]:
    if mode != _ALONE:
        _check(path)
    address = f"file:{urllib.parse.quote(os.fsencode(path))}?{mode}"
    wait = _TIMEOUT if timeout is None else timeout
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=wait)) as database:
        yield database


def _check(path: Path) -> None:
    """Refuse what SQLite would open, and perhaps wait for, for ever, or what it would be led elsewhere by.

    Others can write where databases are.
    """
    for file in (path, *_companions(path)):
        status = _status(file)
        if status and stat.S_ISLNK(status.st_mode) and file == path:
            raise BackupError(f"{path} is a link, and others may lead that elsewhere: name where it leads to")
        if status and not stat.S_ISREG(status.st_mode):
            raise BackupError(f"{file}: this is no file, and SQLite would take it for one; remove it")


def _status(file: Path) -> os.stat_result | None:
    # A log goes when nobody has its database open any more, and there is none whose name would be too long.
    with contextlib.suppress(OSError):
        return file.lstat()
    return None


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say which database an error is about."""
    try:
        yield
    except sqlite3.Error as error:
        raise BackupError(f"{path}: {error}") from None
    except OSError as error:
        raise BackupError(f"{error.filename or path}: {error.strerror}") from None


def _canary(file: Path) -> str:
    with _told(file), _opened(file, _ALONE) as database:
        return str(database.execute(f"SELECT max(id) FROM {CANARY}").fetchone()[0])  # noqa: S608 (ours)


def _count_rows(database: sqlite3.Connection) -> dict[str, int]:
    tables = database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    rows = {}
    for (name,) in tables.fetchall():
        quoted = str(name).replace('"', '""')
        try:
            rows[str(name)] = int(database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 (quoted)
        except sqlite3.OperationalError as error:
            # Of an extension that its app loads. What it holds is in tables of the usual kind.
            if not str(error).startswith("no such module: "):
                raise
    return rows
