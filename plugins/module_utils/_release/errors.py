# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The error of the release code."""

from __future__ import annotations


class ReleaseError(Exception):
    """A failure to build a release that the operator can fix.

    :param message: what failed, why, and what to do; without secrets.
    :param step: the build step that failed; empty before the first step.
    :param command: the command that failed, with masked credentials.
    :param output: the last lines of its output, with masked credentials.
    """

    def __init__(self, message: str, *, step: str = "", command: str = "", output: list[str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.command = command
        self.output = output or []
        self.log = ""
