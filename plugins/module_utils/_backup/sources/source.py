# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Sources of backups: folders, and databases dumped by their own tools."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..._host import durable
from ..archive.manifest import SourceRecord
from ..archive.writer import Writer
from ..errors import BackupError

#: Name of the table, schema or file of a canary.
CANARY = "aapanel_canary"


class Source(Protocol):
    """Something that can be backed up and restored.

    A restore calls `load`, which leaves the live data alone; `swap`; `discard_previous`; and `discard_loaded`. To roll
    back, it calls `swap_back` instead of `discard_previous`. Each method finds out how far a process that died has
    come, so that it can be repeated.
    """

    @property
    def name(self) -> str:
        """Its name, unique on the host."""

    @property
    def kind(self) -> str:
        """Its kind: files, sqlite, postgresql or mysql."""

    @property
    def folder(self) -> str:
        """Path of the folder; empty for a database."""

    @property
    def is_database(self) -> bool:
        """Whether it is a database."""

    @property
    def optional(self) -> bool:
        """Whether it may be missing; after its first backup it must exist."""

    @property
    def in_place(self) -> bool:
        """Whether it can be restored in place; otherwise it can only be extracted."""

    @property
    def database(self) -> str:
        """Name of the database on a server; empty for anything else."""

    @property
    def scratch(self) -> str:
        """Name of the scratch database on a server, which a restore loads into; empty for anything else."""

    def size(self) -> int:
        """Return its approximate size in bytes, to estimate the room that a backup needs."""

    def write_canary(self, canary: str) -> None:
        """Write a value, like any client of the source: the backup that follows must contain it.

        :raises BackupError: the source cannot be written to.
        """

    def add(self, out: Writer, scratch: Path) -> SourceRecord:
        """Back it up.

        :param scratch: a private folder for temporary files.
        :raises AbsentError: the source does not exist.
        :raises BackupError: it cannot be read, or the dump is incomplete.
        """

    def exists(self) -> bool:
        """Tell whether the live data exists.

        :raises BackupError: that cannot be determined.
        """

    def staging_folder(self, default: Path) -> Path:
        """Return the folder to extract the staging copy to, from where `swap` can put it in place.

        :raises BackupError: the source cannot be restored in place.
        """

    def load(self, record: SourceRecord, staging: Path) -> None:
        """Load the backup beside the live data, and check that it is what was backed up.

        :param staging: the folder with the extracted members.
        :raises BackupError: it cannot be loaded, is not sound, or has other rows or another canary.
        """

    def swap(self, staging: Path) -> None:
        """Replace the live data with what was loaded, and keep the previous data.

        :raises BackupError: a step failed.
        """

    def swap_back(self, staging: Path) -> list[str]:
        """Put the previous data back in place, however far `swap` has come.

        :returns: messages for the operator.
        :raises BackupError: a step failed.
        """

    def discard_previous(self) -> None:
        """Remove the previous data, if it is kept outside of the staging folder.

        :raises BackupError: it cannot be removed.
        """

    def discard_loaded(self) -> None:
        """Remove what `load` has put outside of the staging folder.

        :raises BackupError: it cannot be removed.
        """


def check_loaded(name: str, record: SourceRecord, rows: Mapping[str, int], canary: str) -> None:
    """Check that loaded data has the rows and the canary of the backup.

    :raises BackupError: it has not.
    """
    if wrong := sorted(table for table in {*rows, *record.rows} if rows.get(table, 0) != record.rows.get(table, 0)):
        table = wrong[0]
        raise BackupError(
            f"{name}: {table} has {rows.get(table, 0)} rows after loading, but had {record.rows.get(table, 0)} in the "
            f"backup; tables that differ: {len(wrong)}"
        )
    if record.canary and canary != record.canary:
        raise BackupError(
            f"{name}: the canary of the backup, {record.canary}, is missing from the loaded data, which has "
            f"{canary or 'none'}"
        )


def kept_path(staging: Path, name: str) -> Path:
    """Return the path for a copy of the previous data, which is kept until the restore has succeeded."""
    folder = staging / "kept"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name


def quarantine_path(path: Path) -> Path:
    """Return an unused name beside a path, to move it aside."""
    return path.with_name(f"{path.name}.aside-{uuid.uuid4()}")


def record_absence(name: str, staging: Path) -> None:
    """Record that the source did not exist before the restore."""
    durable.write(kept_path(staging, f"{name}.none"), "")


def was_absent(name: str, staging: Path) -> bool:
    """Tell whether the source did not exist before the restore."""
    return kept_path(staging, f"{name}.none").exists()
