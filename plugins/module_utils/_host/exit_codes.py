# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The exit codes of all panelctl commands; ``docs/panelctl.md`` has them as a table."""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

SUCCESS, FAILED, USAGE, UNHEALTHY, REFUSED, BUSY = range(6)


class Meaning(NamedTuple):
    """The meaning of an exit code.

    :param result: the value of ``result`` in the JSON of a command that ended with an error of this kind.
    :param text: for people.
    """

    result: str
    text: str


MEANINGS = MappingProxyType(
    {
        SUCCESS: Meaning("success", "success, or nothing to do"),
        FAILED: Meaning("failed", "failed"),
        USAGE: Meaning("usage", "usage error"),
        UNHEALTHY: Meaning("unhealthy", "completed, but something is unhealthy or incomplete"),
        REFUSED: Meaning("refused", "refused: a precondition does not hold, not confirmed, or not authentic"),
        BUSY: Meaning("busy", "another operation is in progress"),
    }
)
