# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Progress of an operation, for the person who watches it."""

from __future__ import annotations


class Progress:
    """Receives the progress of an operation; this one discards it."""

    def __call__(self, text: str, total: int = 0) -> None:
        """Begin a step.

        :param total: its approximate size in bytes; 0 if that is unknown.
        """

    def advance(self, count: int) -> None:
        """Continue the current step.

        :param count: bytes done since the last call.
        """


SILENT = Progress()
