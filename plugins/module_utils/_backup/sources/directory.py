# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""A folder with everything below it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..._host import durable, nofollow
from ..archive.manifest import SourceRecord
from ..archive.writer import Writer
from ..errors import BackupError
from . import exchange, excluded, gather, sqlite
from .gather import Found, Warn
from .source import CANARY, check_loaded, kept_path, quarantine_path

FILES = "files"
_CANARY_FILE = f".{CANARY}"
#: Separates the path of a database in a folder from the name of a table; no path contains it.
_TABLE = "//"
_TABLES_MAX = 256 << 10  # bytes of the names of all tables, which are in one line of the manifest
_STAGING = ".aapanel.restore"
_CANARY_MAX = 64  # bytes
#: Escapes of blanks and other characters in the names of mount points. proc_pid_mountinfo(5)
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Files:
    """A folder.

    :param exclude: names, or paths below the folder, with shell wildcards; a restore leaves them in place.
    :param in_place: whether it can be restored in place; otherwise it can only be extracted.
    """

    name: str
    path: Path
    exclude: tuple[str, ...] = ()
    in_place: bool = True

    kind = FILES
    optional = False
    database = scratch = ""
    is_database = False

    @property
    def folder(self) -> str:
        """Path of the folder."""
        return os.fspath(self.path)

    def size(self) -> int:
        """Return the sum of the sizes of all files."""
        found = (one.entry for one in self._walk(gather.no_warning))
        return sum(_size(entry) for entry in found if entry.is_file(follow_symlinks=False))

    def write_canary(self, canary: str) -> None:
        """Write the canary into a file of its own."""
        if not self.in_place:
            return
        try:
            _write_canary(self.path, canary)
        except OSError as error:
            raise BackupError(f"{self.path}: cannot write the canary: {error.strerror}") from None

    def add(self, out: Writer, scratch: Path) -> SourceRecord:
        """Add all files and folders; warn of anything else."""
        prefix = f"{FILES}/{self.name}"
        try:
            out.folder(prefix, self.path.stat())
        except OSError as error:
            raise BackupError(f"{self.path}: cannot read the folder: {error.strerror}") from None
        rows = gather.add(out, prefix, self._walk(out.warn), scratch)
        named = {f"{path}{_TABLE}{table}": count for (path, table), count in rows.items()}
        if sum(map(len, named)) > _TABLES_MAX:
            out.warn(f"{self.path}: the databases have {len(named)} tables, too many to record the rows of each")
            named = {}
        return SourceRecord(FILES, self.name, prefix, rows=named)

    def exists(self) -> bool:
        """Tell whether the folder exists."""
        return self.path.is_dir()

    def staging_folder(self, default: Path) -> Path:
        """Return the default, or a folder near the live one if that is on another file system."""
        beside = self.path.parent
        try:
            same = beside.stat().st_dev == default.parent.stat().st_dev
        except OSError as error:
            raise BackupError(f"{beside}: cannot restore {self.name} there: {error.strerror}") from None
        if self.path.is_symlink():
            raise BackupError(
                f"{self.path} is a symlink, which a restore would replace with a folder: configure its target instead"
            )
        if self.path.is_mount():
            raise BackupError(
                f"{self.path} is a mount point, which cannot be replaced: restore {self.name} to another folder with "
                "--to, and move what you need"
            )
        if below := _mounts(self.path):
            raise BackupError(
                f"{', '.join(below)}: a file system is mounted below {self.path}, and would be moved away with it: "
                f"unmount it, restore, and mount it again; or restore {self.name} to another folder with --to"
            )
        return default if same else self._staging_near(beside) / _STAGING

    def _staging_near(self, beside: Path) -> Path:
        """Return the nearest folder above, on the same file system, whose content nobody else can replace."""
        device = beside.stat().st_dev
        for folder in (beside, *beside.parents):
            if folder.stat().st_dev == device and all(map(_is_ours, (folder, *folder.parents))):
                return folder
        raise BackupError(
            f"{self.path}: others can write to all folders above it on its file system, and could replace what is "
            f"extracted there: restore {self.name} to another folder with --to, and move what you need"
        )

    def load(self, record: SourceRecord, staging: Path) -> None:
        """Check the databases in it, and compare rows and canary."""
        folder = staging / record.member
        rows: dict[str, int] = {}
        for path in sorted({key.partition(_TABLE)[0] for key in record.rows}):
            rows |= {f"{path}{_TABLE}{table}": count for table, count in sqlite.check_and_count(folder / path).items()}
        check_loaded(self.name, record, rows, _read_canary(folder) if record.canary else "")

    def swap(self, staging: Path) -> None:
        """Swap the two folders, in one step if possible; then move excluded files into the restored one."""
        try:
            loaded = self._loaded(staging)
            # `swap_back` must not move these into the previous folder.
            own = excluded.remove_excluded(self.path, loaded, self.exclude)
            durable.write(self._own(staging), json.dumps(own))
            exchange.swap(self.path, loaded)
            unmovable = excluded.move_excluded(loaded, self.path, self.exclude)
        except OSError as error:
            raise BackupError(f"{self.path}: cannot swap the folder: {error.strerror}") from None
        if unmovable:
            raise BackupError(
                f"{self.path}/{unmovable[0]}: it is excluded from backups, but cannot be moved into the restored "
                "folder: move it out of the way, and restore again"
            )

    def swap_back(self, staging: Path) -> list[str]:
        """Swap the folders back, if they were swapped; keep the restored one if excluded files are stuck in it."""
        try:
            loaded = self._loaded(staging)
            if not exchange.swap_back(self.path, loaded):
                return []
            own = json.loads(self._own(staging).read_text(encoding="utf-8"))
            unmovable = excluded.move_excluded(loaded, self.path, self.exclude, but=frozenset(own))
            if not unmovable:
                return []
            left = loaded.rename(quarantine_path(self.path))
            durable.sync(left.parent)
        except OSError as error:
            raise BackupError(f"{self.path}: cannot put the previous folder back: {error.strerror}") from None
        text = f"{left} has the restored data, and excluded files that could not be moved back into {self.path}"
        return [f"{text}: {', '.join(unmovable)}; move what you need, and remove that folder"]

    def discard_previous(self) -> None:
        """Do nothing: everything is in the staging folder."""

    def discard_loaded(self) -> None:
        """Do nothing: everything is in the staging folder."""

    def _loaded(self, staging: Path) -> Path:
        return staging / FILES / self.name

    def _own(self, staging: Path) -> Path:
        return kept_path(staging, f"{self.name}.own")

    def _walk(self, warn: Warn) -> Iterator[Found]:
        return gather.walk_directory(self.path, self.exclude, warn)


def _size(entry: os.DirEntry[str]) -> int:
    with contextlib.suppress(OSError):
        return entry.stat(follow_symlinks=False).st_size
    return 0


def _mounts(folder: Path) -> list[str]:
    """Return the mount points below a folder, without the folder itself."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    points = [_ESCAPED.sub(lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in table.splitlines()]
    return sorted(point for point in points if folder.resolve() in Path(point).parents)


def _is_ours(folder: Path) -> bool:
    """Tell whether no other account can rename or replace files that this process creates in a folder."""
    status = folder.stat()
    # Without root, the group counts as trusted: it is usually the user's own.
    others = stat.S_IWOTH if os.geteuid() else stat.S_IWOTH | stat.S_IWGRP
    return status.st_uid in (0, os.geteuid()) and (not status.st_mode & others or bool(status.st_mode & stat.S_ISVTX))


def _read_canary(folder: Path) -> str:
    # The file comes from the live folder, where others could have replaced it: read a few bytes of a regular file only.
    file = folder / _CANARY_FILE
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        return content.read(_CANARY_MAX).decode("ascii", "replace")


def _write_canary(folder: Path, canary: str) -> None:
    # Leftovers of killed processes; the lock keeps other processes out.
    for left in folder.glob(f"{_CANARY_FILE}.*"):
        left.unlink(missing_ok=True)
    # Others can write to the folder: use a name that they cannot guess.
    temporary = folder / f"{_CANARY_FILE}.{uuid.uuid4()}"
    descriptor = nofollow.make(temporary)
    try:
        os.write(descriptor, canary.encode("ascii"))
        temporary.rename(folder / _CANARY_FILE)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
