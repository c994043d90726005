# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Problems of an environment, and messages without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# User and password of a URL: all between "://" and the last "@" before the path.
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")
# Replacing a password of one letter everywhere would make the message unreadable, and reveal the password.
_MIN_REDACTED_LENGTH = 4


@dataclass(frozen=True)
class Problem:
    """A problem of one variable. Its texts contain no secret.

    :param name: the variable.
    :param what: what is wrong, as a sentence without its subject.
    :param cure: what to do, as a sentence.
    """

    name: str
    what: str
    cure: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """Return the problem as one line."""
        return f"{self.name}: {self.what} {self.cure}".rstrip()


class SettingsError(ValueError):
    """Raised if the environment is not valid. The message lists every problem, without secrets."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Build a message with one line for each problem."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return *text* with ``***`` in place of the given secrets and of the credentials of URLs."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _MIN_REDACTED_LENGTH:
            text = text.replace(secret, "***")
    return _CREDENTIALS.sub("***@", text)
