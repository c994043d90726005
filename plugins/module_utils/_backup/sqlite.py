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
import shutil
import sqlite3
import stat
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .. import _durable
from . import names
from .errors import AbsentError, BackupError
from .manifest import Source
from .sources import CANARY, compare, kept, note_absence, was_absent
from .writer import Writer

SQLITE = "sqlite"
#: What a database begins with. https://www.sqlite.org/fileformat.html
MAGIC = b"SQLite format 3\0"
#: What SQLite keeps beside a database.
COMPANIONS = ("-wal", "-shm", "-journal")
_LOGS = ("-wal", "-journal")  # the other one is made anew
_BUSY = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
_TIMEOUT = 60.0  # seconds to wait for whoever writes
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
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

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
        return self.path.exists()

    def staging(self, default: Path) -> Path:
        """Return any folder: it is copied into its place."""
        return default

    def load(self, source: Source, staging: Path) -> None:
        """Check its integrity, and compare."""
        file = staging / source.member
        rows = inspect(file)
        compare(self.name, source, rows, _canary(file) if source.canary and CANARY in rows else "")

    def swap(self, staging: Path) -> None:
        """Copy it over the present one, in one transaction; whoever has that open sees the change."""
        if self.present():
            self._keep(staging)
        else:
            note_absence(self.name, staging)
        loaded = staging / SQLITE / f"{self.name}.sqlite3"
        _put(loaded, self.path)

    def put_back(self, staging: Path) -> None:
        """Copy the kept one over what is there."""
        file, broken = self._kept(staging), self._broken(staging)
        if file.exists():
            _put(file, self.path)
        elif broken.exists():
            _replace(broken, self.path)
            _copy_logs(broken, self.path)
        elif was_absent(self.name, staging):
            _remove_companions(self.path)
            self.path.unlink(missing_ok=True)

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
            shutil.copyfile(self.path, unfinished)
            _copy_logs(self.path, self._broken(staging))
            self._settle(unfinished, self._broken(staging))
            try:
                # What an app that died has left half done is undone, as for the next one who asks.
                _copy(self.path, unfinished, "mode=rw")
            except BackupError:
                return
        self._settle(unfinished, self._kept(staging))

    def _settle(self, unfinished: Path, file: Path) -> None:
        _dress(unfinished, self.path)
        unfinished.rename(file)
        _durable.sync(file.parent)


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
    with _told(path), _opened(path, "immutable=1") as database:
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


def _put(file: Path, path: Path) -> None:
    """Copy a database over another one; where that is missing, broken, or of another kind, into its place."""
    try:
        _overwrite(file, path)
    except BackupError:
        _replace(file, path)


def _overwrite(file: Path, path: Path) -> None:
    with _told(path), _opened(file, "immutable=1") as loaded, _opened(path, "mode=rw") as present:
        _backup(loaded, present)


def _replace(file: Path, path: Path) -> None:
    _make(path.parent)
    unfinished = path.with_name(f".{path.name}.restored")
    unfinished.unlink(missing_ok=True)
    shutil.copyfile(file, unfinished)
    _dress(unfinished, file)
    _remove_companions(path)
    unfinished.rename(path)
    _durable.sync(path.parent)


def _make(folder: Path) -> None:
    """Make a folder where there is none; it is whose the one is that it is in."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(0o700)
        status = folder.parent.stat()
        # Whoever can write there may have put a link in its place.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
        finally:
            os.close(descriptor)
        _durable.sync(folder.parent)


def _copy_logs(origin: Path, target: Path) -> None:
    """Copy what a database that is copied as it is cannot be understood without."""
    for suffix in _LOGS:
        log, copy = (path.with_name(f"{path.name}{suffix}") for path in (origin, target))
        # Others can write to where both are: neither is read nor written what a link leads to.
        with contextlib.suppress(FileNotFoundError), open(log, "rb", opener=_no_link) as content:
            status = os.fstat(content.fileno())
            if not stat.S_ISREG(status.st_mode):
                continue
            copy.unlink(missing_ok=True)
            with open(copy, "xb", opener=_private) as written:
                shutil.copyfileobj(content, written)
                os.fchown(written.fileno(), status.st_uid, status.st_gid)
                os.fchmod(written.fileno(), stat.S_IMODE(status.st_mode))
                written.flush()
                os.fsync(written.fileno())


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _remove_companions(path: Path) -> None:
    """Remove what would be applied to a database that it does not belong to."""
    for suffix in COMPANIONS:
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _dress(file: Path, like: Path) -> None:
    """Give a new file the mode, owner and time of another one, and have it on the disk."""
    status = like.stat()
    os.chown(file, status.st_uid, status.st_gid)
    shutil.copystat(like, file)
    _sync(file)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(path: Path, mode: str, timeout: float | None = None) -> Iterator[sqlite3.Connection]:
    _check_companions(path)
    address = f"file:{urllib.parse.quote(os.fsencode(path))}?{mode}"
    wait = _TIMEOUT if timeout is None else timeout
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=wait)) as database:
        yield database


def _check_companions(path: Path) -> None:
    """Refuse what SQLite would open, and perhaps wait for, for ever: others can write where databases are."""
    for suffix in COMPANIONS:
        companion = path.with_name(f"{path.name}{suffix}")
        if os.path.lexists(companion) and not stat.S_ISREG(companion.lstat().st_mode):
            raise BackupError(f"{companion}: this is no file, and SQLite would take it for one; remove it")


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say which database an error is about."""
    try:
        yield
    except sqlite3.Error as error:
        raise BackupError(f"{path}: {error}") from None


def _canary(file: Path) -> str:
    with _told(file), _opened(file, "immutable=1") as database:
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
