# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

from __future__ import annotations


class ReleaseError(Exception):
    """Anything about a release that the operator can act on.

    :param message: what is wrong, where, and the cure; never a secret.
    :param step: the step of the build that failed, empty when nothing had begun.
    :param command: the command that failed, credentials masked.
    :param output: the last lines that it printed, credentials masked.
    """

    def __init__(self, message: str, *, step: str = "", command: str = "", output: list[str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.command = command
        self.output = output or []
        self.log = ""
