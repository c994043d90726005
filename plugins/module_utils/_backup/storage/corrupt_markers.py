# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Which archives were found not to be what was signed: a file for each beside the ledger, where only root can write."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..._host import durable

_FOLDER = "broken"


class CorruptMarkers:
    """What whoever read archives has found, for those who only look. It is no proof: who restores reads all of it."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / _FOLDER

    def is_marked(self, name: str, archive: os.stat_result) -> bool:
        """Tell whether the archive of a backup was found to be another one, and is still the file that was read."""
        try:
            return (self._folder / name).read_text(encoding="ascii") == _identity(archive)
        except (OSError, ValueError):
            return False

    def mark(self, name: str, archive: os.stat_result) -> None:
        """Remember that it was; it is told in any case."""
        with contextlib.suppress(OSError):
            durable.make(self._folder)
            durable.write(self._folder / name, _identity(archive))

    def clear(self, name: str) -> None:
        """Forget it."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)


def _identity(archive: os.stat_result) -> str:
    # Who mends it changes one of these; the number of the device is another one after a reboot.
    return f"{archive.st_ino} {archive.st_size} {archive.st_ctime_ns}"
