# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""An SQLite database, copied with SQLite's backup API: consistent, with the content of its write-ahead log.

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
from ..archive.manifest import SourceRecord
from ..archive.writer import Writer
from ..errors import AbsentError, BackupError
from .source import CANARY, check_loaded, kept_path, quarantine_path, record_absence, was_absent

SQLITE = "sqlite"
#: The first bytes of a database. https://www.sqlite.org/fileformat.html
MAGIC = b"SQLite format 3\0"
#: Suffixes of the files that SQLite keeps beside a database.
COMPANIONS = ("-wal", "-shm", "-journal")
_LOGS = ("-wal", "-journal")  # SQLite creates the other one anew
_BUSY = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
_TIMEOUT = 60.0  # seconds to wait for a lock
#: Mode for a database that nobody else writes to; files beside it are ignored.
_IMMUTABLE = "immutable=1"
_CANARY_TIMEOUT = 10.0  # seconds to wait for a lock


@dataclass(frozen=True)
class Sqlite:
    """An SQLite database.

    :param optional: whether the file may be missing; after its first backup it must exist.
    """

    name: str
    path: Path
    optional: bool = False

    kind = SQLITE
    folder = database = scratch = ""
    is_database = True
    in_place = True

    def size(self) -> int:
        """Return the size of the file and its log."""
        return size(self.path)

    def write_canary(self, canary: str) -> None:
        """Write the canary into a table of its own."""
        # pylint: disable-next=confusing-with-statement  # closes the connection, and commits
        with _path_in_errors(self.path), _connect(self.path, "mode=rw", _CANARY_TIMEOUT) as database, database:
            if not _count_rows(database):
                raise BackupError(f"{self.path}: the database has no tables yet, so no canary is written into it")
            database.execute(f"CREATE TABLE IF NOT EXISTS {CANARY} (id TEXT NOT NULL)")
            database.execute(f"DELETE FROM {CANARY}")  # noqa: S608 (a constant)
            database.execute(f"INSERT INTO {CANARY} (id) VALUES (?)", (canary,))  # noqa: S608 (a constant)

    def add(self, out: Writer, scratch: Path) -> SourceRecord:
        """Copy the database, check the copy, and count its rows."""
        member = f"{SQLITE}/{self.name}.sqlite3"
        if not self.exists():
            raise AbsentError(f"{self.path}: the database does not exist")
        copy, rows = copy_and_check(self.path, scratch)
        with copy:
            out.file(member, copy.fileno(), self.path.stat())
        return SourceRecord(SQLITE, self.name, member, f"SQLite {sqlite3.sqlite_version}", rows)

    def exists(self) -> bool:
        """Tell whether the file exists."""
        return os.path.lexists(self.path)

    def staging_folder(self, default: Path) -> Path:
        """Return the default: `swap` copies the database into place, from any folder."""
        _check(self.path)
        parent = self.path.parent
        if os.path.lexists(parent) and not parent.is_dir():
            raise BackupError(
                f"{parent}: not a folder, so {self.name} cannot be restored into it: move it out of the way"
            )
        return default

    def load(self, record: SourceRecord, staging: Path) -> None:
        """Check the integrity of the database, and compare rows and canary."""
        file = staging / record.member
        rows = check_and_count(file)
        check_loaded(self.name, record, rows, _canary(file) if record.canary and CANARY in rows else "")

    def swap(self, staging: Path) -> None:
        """Copy the loaded database over the live one, in one transaction; programs that have it open see the change."""
        with _path_in_errors(self.path):
            if self.exists():
                self._keep(staging)
            else:
                record_absence(self.name, staging)
            _copy_over(staging / SQLITE / f"{self.name}.sqlite3", self.path)

    def swap_back(self, staging: Path) -> list[str]:
        """Copy the previous database over the live one; quarantine any other file at its path."""
        with _path_in_errors(self.path):
            file, broken = self._kept(staging), self._broken(staging)
            if file.exists():
                return _copy_over(file, self.path)
            if broken.exists():
                moved = _replace(broken, self.path)
                _copy_logs(broken, self.path)
                return moved
            if was_absent(self.name, staging):
                return _remove_all(self.path, *_companions(self.path))
        return []

    def discard_previous(self) -> None:
        """Do nothing: everything is in the staging folder."""

    def discard_loaded(self) -> None:
        """Do nothing: everything is in the staging folder."""

    def _kept(self, staging: Path) -> Path:
        return kept_path(staging, f"{self.name}.sqlite3")

    def _broken(self, staging: Path) -> Path:
        return kept_path(staging, f"{self.name}.broken")

    def _keep(self, staging: Path) -> None:
        """Copy the live database into the staging folder; a copy with one of the two final names is complete."""
        unfinished = kept_path(staging, f"{self.name}.new")
        try:
            _copy(self.path, unfinished)
        except BackupError:
            # The database is broken, which may be why it is restored. Keep the files: some data may be recoverable.
            _copy_logs(self.path, self._broken(staging))
            nofollow.copy(self.path, self._broken(staging))
            unfinished.unlink(missing_ok=True)
            try:
                # Let SQLite roll back what an app that died has left unfinished, as the next connection would.
                _copy(self.path, unfinished, "mode=rw")
            except BackupError:
                return
        with unfinished.open("rb") as copy, os.fdopen(nofollow.read(self.path), "rb") as live:
            nofollow.copy_metadata(copy.fileno(), live.fileno())
            os.fsync(copy.fileno())
        unfinished.rename(self._kept(staging))
        durable.sync(unfinished.parent)


def size(path: Path) -> int:
    """Return the size of a database and its log in bytes."""
    found = map(_status, (path, path.with_name(f"{path.name}-wal")))
    return sum(status.st_size for status in found if status)


def copy_and_check(path: Path, scratch: Path) -> tuple[IO[bytes], dict[str, int]]:
    """Copy a database, and check the copy.

    :returns: the copy, which is removed when it is closed, and the number of rows by table.
    :raises BackupError: the database cannot be read, or is corrupt.
    """
    with contextlib.ExitStack() as stack:
        copy = stack.enter_context(tempfile.NamedTemporaryFile(dir=scratch, prefix=f"{names.TEMPORARY}sqlite-"))
        _copy(path, Path(copy.name))
        rows = check_and_count(Path(copy.name))
        stack.pop_all()
    return copy, rows


def check_and_count(path: Path) -> dict[str, int]:
    """Check a database that nobody writes to; return the number of rows by table.

    :raises BackupError: it is corrupt.
    """
    with _path_in_errors(path), _connect(path, _IMMUTABLE) as database:
        problems = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)")]
        if problems != ["ok"]:
            raise BackupError(f"{path}: the database is corrupt: {'; '.join(problems)}")
        return _count_rows(database)


def _copy(origin: Path, target: Path, mode: str = "mode=ro") -> None:
    # Neither mode creates a missing database, which would then be backed up as an empty one.
    with _path_in_errors(origin), _connect(origin, mode) as source, contextlib.closing(sqlite3.connect(target)) as copy:
        # The caller flushes a copy that has to be durable.
        copy.execute("PRAGMA synchronous = OFF")
        _backup(source, copy)


def _backup(origin: sqlite3.Connection, target: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _TIMEOUT

    def check_deadline(status: int, *_: int) -> None:
        # Python retries without limit, and another process may never release its lock.
        if status in _BUSY and time.monotonic() >= deadline:
            raise sqlite3.OperationalError(
                f"the database was locked for {_TIMEOUT:g} s; find out which program holds it, and try again"
            )

    # In one step: between two steps another process may write, and the copy would start again.
    origin.backup(target, progress=check_deadline)


def _copy_over(file: Path, path: Path) -> list[str]:
    """Copy a database over another one; if that is missing, broken or of another kind, replace the file.

    :returns: a message for each file or folder that was moved aside.
    """
    try:
        _overwrite(file, path)
    except BackupError:
        return _replace(file, path)
    return []


def _overwrite(file: Path, path: Path) -> None:
    with _path_in_errors(path), _connect(file, _IMMUTABLE) as loaded, _connect(path, "mode=rw") as live:
        _backup(loaded, live)


def _replace(file: Path, path: Path) -> list[str]:
    moved = _make_folder(path.parent)
    # Otherwise SQLite would apply these logs to a database that they do not belong to.
    moved += _remove_all(*_companions(path))
    if path.is_dir() and not path.is_symlink():
        moved += _quarantine(path)
    nofollow.copy(file, path)
    return moved


def _make_folder(folder: Path) -> list[str]:
    """Create a folder with the owner and mode of its parent; return a message for each file that was moved aside."""
    if folder.is_dir():
        return []
    moved = _make_folder(folder.parent)
    if os.path.lexists(folder):
        moved += _quarantine(folder)
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        nofollow.make_folder(folder.name, parent, parent)
        os.fsync(parent)
    finally:
        os.close(parent)
    return moved


def _copy_logs(origin: Path, target: Path) -> None:
    """Copy the logs of a database whose files are copied as they are."""
    for suffix in _LOGS:
        with contextlib.suppress(FileNotFoundError):
            nofollow.copy(*(path.with_name(f"{path.name}{suffix}") for path in (origin, target)))


def _companions(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{suffix}") for suffix in COMPANIONS]


def _remove_all(*paths: Path) -> list[str]:
    return [moved for path in paths for moved in _remove(path)]


def _remove(path: Path) -> list[str]:
    """Remove a file; if a folder has its name, move that aside, and return a message."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        return _quarantine(path)
    except NotADirectoryError:
        # A path below a regular file does not exist.
        pass
    return []


def _quarantine(path: Path) -> list[str]:
    return [f"{path} was in the way, and was moved to {path.rename(quarantine_path(path))}"]


@contextlib.contextmanager
def _connect(path: Path, mode: str, timeout: float | None = None) -> Iterator[sqlite3.Connection]:
    if mode != _IMMUTABLE:
        _check(path)
    address = f"file:{urllib.parse.quote(os.fsencode(path))}?{mode}"
    wait = _TIMEOUT if timeout is None else timeout
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=wait)) as database:
        yield database


def _check(path: Path) -> None:
    """Refuse anything but regular files: SQLite would open a pipe and block, or follow a symlink.

    Others may be able to write to the folder of a database.
    """
    for file in (path, *_companions(path)):
        status = _status(file)
        if status and stat.S_ISLNK(status.st_mode) and file == path:
            raise BackupError(f"{path} is a symlink, which others may be able to change: configure its target instead")
        if status and not stat.S_ISREG(status.st_mode):
            raise BackupError(f"{file}: not a regular file, but SQLite would open it; remove it")


def _status(file: Path) -> os.stat_result | None:
    # SQLite removes a log when the last connection closes. A name that is too long has no file.
    with contextlib.suppress(OSError):
        return file.lstat()
    return None


@contextlib.contextmanager
def _path_in_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and the file system into messages with a path."""
    try:
        yield
    except sqlite3.Error as error:
        raise BackupError(f"{path}: {error}") from None
    except OSError as error:
        raise BackupError(f"{error.filename or path}: {error.strerror}") from None


def _canary(file: Path) -> str:
    with _path_in_errors(file), _connect(file, _IMMUTABLE) as database:
        return str(database.execute(f"SELECT max(id) FROM {CANARY}").fetchone()[0])  # noqa: S608 (a constant)


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
            # A virtual table of an extension that only the app loads. Its content is in ordinary tables.
            if not str(error).startswith("no such module: "):
                raise
    return rows
