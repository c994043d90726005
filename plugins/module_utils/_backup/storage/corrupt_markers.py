# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Marks for archives whose content is not what was signed: one file each, beside the catalog, for root only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..._host import durable

_FOLDER = "broken"


class CorruptMarkers:
    """Marks of the archives that were found corrupt, for commands that do not read archives.

    A mark is a hint and proves nothing: a restore reads the whole archive in any case.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / _FOLDER

    def is_marked(self, name: str, archive: os.stat_result) -> bool:
        """Tell whether the archive of a backup is marked, and still the file that was read."""
        try:
            return (self._folder / name).read_text(encoding="ascii") == _identity(archive)
        except (OSError, ValueError):
            return False

    def mark(self, name: str, archive: os.stat_result) -> None:
        """Mark an archive, if the mark can be written; the caller reports the problem in any case."""
        with contextlib.suppress(OSError):
            durable.make(self._folder)
            durable.write(self._folder / name, _identity(archive))

    def clear(self, name: str) -> None:
        """Remove the mark of an archive."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)


def _identity(archive: os.stat_result) -> str:
    # A repair of the file changes one of these. The device number is left out: it changes with a reboot.
    return f"{archive.st_ino} {archive.st_size} {archive.st_ctime_ns}"
