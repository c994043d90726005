# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What is being done, for whoever watches."""

from __future__ import annotations


class Progress:
    """Is told what is being done; this one tells nobody."""

    def __call__(self, text: str, total: int = 0) -> None:
        """Begin something.

        :param total: about how many bytes it is; 0 where nobody knows.
        """

    def advance(self, count: int) -> None:
        """Go on with what began last.

        :param count: bytes more.
        """


SILENT = Progress()
