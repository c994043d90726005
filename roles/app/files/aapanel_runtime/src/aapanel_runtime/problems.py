# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with an environment, said without a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# Between "://" and the last "@" before the path stands whatever somebody may have put there as a credential.
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")
# Replacing every "a" of a message because the password is "a" would hide the message, and tell the password.
_SHORTEST_REDACTED = 4


@dataclass(frozen=True)
class Problem:
    """One finding about one variable.

    ``what`` and ``cure`` are sentences fit for a log: they hold no secret.
    """

    name: str
    what: str
    cure: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """Give the finding as one line."""
        return f"{self.name}: {self.what} {self.cure}".rstrip()


class SettingsError(ValueError):
    """The environment cannot be used. The message lists every problem, and no secret."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep the problems; the message is one line for each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` without the given secrets and without the credentials of any URL in it."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST_REDACTED:
            text = text.replace(secret, "***")
    return _CREDENTIALS.sub("***@", text)
