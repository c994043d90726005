# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrate the application's database with its own tools."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

AUTO = "auto"


class MigrationCommandError(Exception):
    """The command cannot be run as it stands."""


def command(wish: str, home: Path) -> list[str] | None:
    """Return the command that migrates the application in *home*, or None where there is nothing to migrate.

    *wish* is ``auto`` (Alembic, where the application has an ``alembic.ini``), a command line, or empty for never. A
    command named ``python`` is this interpreter, and one that the virtualenv has is found there.

    Raises:
        MigrationCommandError: *wish* has a quotation mark too few.
    """
    if wish == AUTO:
        return [sys.executable, "-m", "alembic", "upgrade", "head"] if (home / "alembic.ini").is_file() else None
    try:
        words = shlex.split(wish)
    except ValueError as error:
        raise MigrationCommandError(f"AAPANEL_MIGRATE_COMMAND: {error}; check its quotation marks") from None
    if not words:
        return None
    own = Path(sys.executable).with_name(words[0])
    return [str(own) if own.is_file() else words[0], *words[1:]]
