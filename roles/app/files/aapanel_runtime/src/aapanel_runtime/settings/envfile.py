# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parses an environment file as systemd does, see EnvironmentFile= in systemd.exec(5).

python-dotenv expands ``$`` and ends a value at a hash sign, so `check` would see another password than the unit. A line
that systemd silently ignores is an error here.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SKIPPED = re.compile(r"(?:\s+|[#;][^\n\r]*)*")
_ASSIGNED = re.compile(r"([^=\n\r]*?)[ \t]*=")
_QUOTED = re.compile(r"""[ \t]*(?:'([^']*)'|"((?:[^"\\]|\\.)*)")""", re.DOTALL)
_OPEN_QUOTE = re.compile(r"""[ \t]*['"]""")
_PLAIN = re.compile(r"[ \t]*((?:[^\\\n\r]|\\.)*)\\?", re.DOTALL)
_CHARACTER = re.compile(r"\\.|.", re.DOTALL)
# In double quotes a backslash is removed before these characters only, and together with a line break, as in a shell.
_ESCAPED_IN_QUOTES = re.compile(r'\\(["\\`$])|\\\n')


class EnvironmentFileError(ValueError):
    """Raised for a line that is not a setting. The message has the number of the line, but not its content."""


def parse(text: str) -> dict[str, str]:
    """Return the variables of an environment file. The last assignment of a name wins.

    :param text: content of the file.
    :raises EnvironmentFileError: a line is not of the form NAME=value, or a quote is not closed.
    """
    found: dict[str, str] = {}
    position = _skip(text, 0)
    while position < len(text):
        number = text.count("\n", 0, position) + 1
        assigned = _ASSIGNED.match(text, position)
        if not assigned or not _NAME.fullmatch(assigned[1]):
            raise EnvironmentFileError(f"Line {number} is not of the form NAME=value.")
        value, position = _value(text, assigned.end(), number)
        found[assigned[1]] = value
        position = _skip(text, position)
    return found


def _skip(text: str, position: int) -> int:
    skipped = _SKIPPED.match(text, position)
    return skipped.end() if skipped else position


def _value(text: str, position: int, number: int) -> tuple[str, int]:
    """Return the value that starts at *position*, and the position after it."""
    parts: list[str] = []
    # Quotes are special at the start of a value only: after an unquoted character they are part of the value.
    while quoted := _QUOTED.match(text, position):
        single, double = quoted.groups()
        parts.append(single if double is None else _ESCAPED_IN_QUOTES.sub(r"\1", double))
        position = quoted.end()
    if _OPEN_QUOTE.match(text, position):
        raise EnvironmentFileError(f"The quote that starts in line {number} is not closed.")
    plain = _PLAIN.match(text, position)
    if plain is None:
        return "".join(parts), position
    characters = _CHARACTER.findall(plain[1])
    while characters and characters[-1] in " \t":
        characters.pop()
    parts += ("" if character in ("\\\n", "\\\r") else character[-1] for character in characters)
    return "".join(parts), plain.end()
