# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What there is to back up, and to bring back: folders, and databases by their own means."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..._host import durable
from ..archive.manifest import SourceRecord
from ..archive.writer import Writer
from ..errors import BackupError

#: Name of the table, schema or file that a canary is in.
CANARY = "aapanel_canary"


class Source(Protocol):
    """Something that can be backed up, and brought back.

    Bringing back is: `load` beside the present, `swap`, `forget` the present, `drop` what is left over; or `put_back`
    instead of forgetting. Each of them finds out itself how far a run that died has come, so that it can be repeated.
    """

    @property
    def name(self) -> str:
        """What it is called; no other one of the host is."""

    @property
    def kind(self) -> str:
        """What kind of source comes of it."""

    @property
    def folder(self) -> str:
        """The folder that it is; empty where it is none."""

    @property
    def is_database(self) -> bool:
        """Whether it is a database."""

    @property
    def optional(self) -> bool:
        """Whether it may not be there yet; once it was backed up, it has to be."""

    @property
    def in_place(self) -> bool:
        """Whether it can be brought back to where it came from; otherwise only elsewhere."""

    @property
    def database(self) -> str:
        """Name of the database of a server; empty where it is none."""

    @property
    def scratch(self) -> str:
        """Name of the database of a server that it is loaded into; empty where there is none."""

    def size(self) -> int:
        """About how many bytes it is, and so how much room its backup may need."""

    def write_canary(self, canary: str) -> None:
        """Write a word into it, as any client of it would: the backup that follows has to have it.

        :raises BackupError: it cannot be written to.
        """

    def add(self, out: Writer, scratch: Path) -> SourceRecord:
        """Back it up.

        :param scratch: a folder for what has to be written before it can be read; nobody else's.
        :raises AbsentError: there is none.
        :raises BackupError: it cannot be, or what came of it is none.
        """

    def exists(self) -> bool:
        """Whether there is one at its place.

        :raises BackupError: that cannot be found out.
        """

    def staging_folder(self, default: Path) -> Path:
        """Return the folder that it has to be extracted to: one from where it can get to its place by a rename."""

    def load(self, record: SourceRecord, staging: Path) -> None:
        """Bring it back beside the present, and see that it is what went in.

        :param staging: where the members of its backup are.
        :raises BackupError: it cannot be, or it is not sound, or has other rows or another canary.
        """

    def swap(self, staging: Path) -> None:
        """Put what was loaded in the place of the present, which is kept.

        :raises BackupError: it cannot be.
        """

    def swap_back(self, staging: Path) -> list[str]:
        """Give the present its place again, wherever a swap has stopped.

        :returns: what else became of that, in words.
        :raises BackupError: it cannot be.
        """

    def discard_previous(self) -> None:
        """Remove the present that was kept outside of the staging.

        :raises BackupError: it cannot be.
        """

    def discard_loaded(self) -> None:
        """Remove what was loaded outside of the staging.

        :raises BackupError: it cannot be.
        """


def compare(name: str, record: SourceRecord, rows: Mapping[str, int], canary: str) -> None:
    """See that what was loaded is what went in.

    :raises BackupError: it is not.
    """
    if wrong := sorted(table for table in {*rows, *record.rows} if rows.get(table, 0) != record.rows.get(table, 0)):
        table = wrong[0]
        raise BackupError(
            f"{name}: {table} has {rows.get(table, 0)} rows after loading, and had {record.rows.get(table, 0)}; so "
            f"{len(wrong)} tables"
        )
    if record.canary and canary != record.canary:
        raise BackupError(
            f"{name}: the canary that was written before the backup, {record.canary}, is not in it; there is "
            f"{canary or 'none'}"
        )


def kept(staging: Path, name: str) -> Path:
    """Return where a copy of the present is kept while another one takes its place."""
    folder = staging / "kept"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name


def quarantine_path(path: Path) -> Path:
    """Return the name that what is in the way of a present gets; nothing has it."""
    return path.with_name(f"{path.name}.aside-{uuid.uuid4()}")


def record_absence(name: str, staging: Path) -> None:
    """Write down that there was none at its place."""
    durable.write(kept(staging, f"{name}.none"), "")


def was_absent(name: str, staging: Path) -> bool:
    """Whether there was none at its place."""
    return kept(staging, f"{name}.none").exists()
