# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolves ``AAPANEL_MIGRATE_COMMAND``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

AUTO = "auto"


class MigrationCommandError(Exception):
    """Raised for a command line that cannot be parsed."""


def resolve(setting: str, home: Path) -> list[str] | None:
    """Return the arguments of the command that migrates the database, None if there is nothing to migrate.

    Programs of the virtualenv are preferred, so ``python`` is this interpreter.

    :param setting: ``auto`` (Alembic, if there is an ``alembic.ini``), a command line, or empty for no command.
    :param home: directory of the application.
    :raises MigrationCommandError: *setting* has an unclosed quotation mark.
    """
    if setting == AUTO:
        return [sys.executable, "-m", "alembic", "upgrade", "head"] if (home / "alembic.ini").is_file() else None
    try:
        words = shlex.split(setting)
    except ValueError as error:
        raise MigrationCommandError(
            f"AAPANEL_MIGRATE_COMMAND cannot be parsed: {error}. Check its quotation marks."
        ) from None
    if not words:
        return None
    program = Path(sys.executable).with_name(words[0])
    return [str(program) if program.is_file() else words[0], *words[1:]]
