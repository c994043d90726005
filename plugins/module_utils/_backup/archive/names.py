# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Names of the files of a backup: `backup_20261122T213000Z_000042.tar.gz`, and others beside it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

ARCHIVE, INFO, MANIFEST = ".tar.gz", ".info", ".manifest"
SUFFIXES = (ARCHIVE, INFO, MANIFEST)
#: Prefix of a file that is still being written. Without the lock held, it is a leftover.
TEMPORARY = ".new-"
#: Prefix of a folder that was in the place of a file, and was moved aside.
QUARANTINED = ".aside-"
#: The set of all sources, which every host has.
FULL = "full"
#: The set of the snapshots that are made just before a restore.
BEFORE_RESTORE = "before-restore"
#: Clock error or correction that is accepted without a warning.
CLOCK_TOLERANCE = timedelta(minutes=5)
_SET = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_NAME = re.compile(r"backup_([0-9]{8}T[0-9]{6}Z)_([0-9]{6,12})")
_OLD_NAME = re.compile(r"backup_[0-9]{8}_[0-9]{6}")
_TIME = "%Y%m%dT%H%M%SZ"
_TIMESTAMP = "%Y-%m-%dT%H:%M:%SZ"


def format_name(moment: datetime, seq: int) -> str:
    """Return the name of a backup.

    :param moment: start of its snapshot.
    :param seq: its number on this host; makes the name unique, whatever the clock says.
    """
    return f"backup_{moment.astimezone(timezone.utc).strftime(_TIME)}_{seq:06d}"


def timestamp(moment: datetime) -> str:
    """Return a time as in manifests and the catalog: in UTC, to the second."""
    return moment.astimezone(timezone.utc).strftime(_TIMESTAMP)


def parse_timestamp(text: str) -> datetime:
    """Parse a timestamp in the format of `timestamp`.

    :raises ValueError: it is not such a time.
    """
    return datetime.strptime(text, _TIMESTAMP).replace(tzinfo=timezone.utc)


def is_in_future(age: float) -> bool:
    """Tell whether an age in seconds is negative beyond the tolerance: the clock is, or was, wrong."""
    return age < -CLOCK_TOLERANCE.total_seconds()


def is_name(text: str) -> bool:
    """Tell whether a text is the name of a backup."""
    return _NAME.fullmatch(text) is not None


def is_set_name(text: str) -> bool:
    """Tell whether a text can be the name of a backup set."""
    return _SET.fullmatch(text) is not None


def is_old_name(text: str) -> bool:
    """Tell whether a text is the name of a backup of the first format."""
    return _OLD_NAME.fullmatch(text) is not None


def printable(text: str) -> str:
    """Return a text as one printable line: file names may contain line ends and invalid bytes."""
    return "".join(character if character.isprintable() else "?" for character in text)


def stem(file: str) -> str | None:
    """Return the name of the backup that a file belongs to; None for any other file."""
    for suffix in SUFFIXES:
        if file.endswith(suffix):
            found = file.removesuffix(suffix)
            return found if is_name(found) or is_old_name(found) else None
    return None
