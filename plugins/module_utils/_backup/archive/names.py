# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What the files of a backup are called: `backup_20261122T213000Z_000042.tar.gz`, and others beside it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

ARCHIVE, INFO, MANIFEST = ".tar.gz", ".info", ".manifest"
SUFFIXES = (ARCHIVE, INFO, MANIFEST)
#: What a file is called first that is not whole yet; of no process that is at work, it goes.
TEMPORARY = ".new-"
#: What something is called that is no file, and was in the place of one.
QUARANTINED = ".aside-"
#: The set of all sources, which every host has.
FULL = "full"
#: The set of what there was before something was brought back.
BEFORE_RESTORE = "before-restore"
#: By which a clock may be corrected without anybody's wondering.
CLOCK_TOLERANCE = timedelta(minutes=5)
_SET = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_NAME = re.compile(r"backup_([0-9]{8}T[0-9]{6}Z)_([0-9]{6,12})")
_OLD_NAME = re.compile(r"backup_[0-9]{8}_[0-9]{6}")
_TIME = "%Y%m%dT%H%M%SZ"
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


def format_name(moment: datetime, seq: int) -> str:
    """Return the name of a backup.

    :param moment: when its snapshot began.
    :param seq: its number on this host; what makes the name unique, whatever the clock says.
    """
    return f"backup_{moment.astimezone(timezone.utc).strftime(_TIME)}_{seq:06d}"


def timestamp(moment: datetime) -> str:
    """Write a moment down as manifests and the ledger have it: in UTC, to the second."""
    return moment.astimezone(timezone.utc).strftime(_STAMP)


def parse_timestamp(stamp: str) -> datetime:
    """Read what `stamp` wrote.

    :raises ValueError: it is no moment.
    """
    return datetime.strptime(stamp, _STAMP).replace(tzinfo=timezone.utc)


def is_in_future(age: float) -> bool:
    """Tell whether what is so many seconds old is from the future: the clock is wrong now, or it was then."""
    return age < -CLOCK_TOLERANCE.total_seconds()


def is_name(text: str) -> bool:
    """Tell whether this is the name of a backup."""
    return _NAME.fullmatch(text) is not None


def is_set_name(text: str) -> bool:
    """Tell whether a set of sources may be called so."""
    return _SET.fullmatch(text) is not None


def is_old_name(text: str) -> bool:
    """Tell whether this is the name of a backup of the first format."""
    return _OLD_NAME.fullmatch(text) is not None


def printable(text: str) -> str:
    """Return a text as a line that can be shown: names of files may have line ends and bytes that are no characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def stem(file: str) -> str | None:
    """Return the name of the backup that a file belongs to; None for any other file."""
    for suffix in SUFFIXES:
        if file.endswith(suffix):
            found = file.removesuffix(suffix)
            return found if is_name(found) or is_old_name(found) else None
    return None
