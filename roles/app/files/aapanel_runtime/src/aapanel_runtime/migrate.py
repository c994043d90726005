# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrate the application's database with its own tools."""

from __future__ import annotations

import os
import shlex
import sys
import tokenize
from pathlib import Path

from . import expand, expand_pending
from .expand import Finding
from .expand_pending import Pending

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


def judge() -> tuple[Pending, list[tuple[str, Finding]]]:
    """Return the pending revisions of the application in the working directory, and what in them contracts.

    Raises:
        expand_pending.PendingError: it cannot be told which are pending.
    """
    pending = expand_pending.ask()
    return pending, expand.judge_all((os.path.relpath(file), _read(file)) for file in pending.in_use)


def render(findings: list[tuple[str, Finding]], *, allowed: bool) -> str:
    """Return a line for each finding, and one that says what becomes of them."""
    lines = [f"{file}:{each.line}: {each.operation}: {each.reason} {each.cure}" for file, each in findings]
    if allowed:
        lines.append("Warning: the migrations do more than add. AAPANEL_MIGRATE_CONTRACT=allow lets them run.")
    else:
        lines.append(
            "Refused: the migrations do more than add, and the release that serves still needs what they change. "
            "Nothing was migrated. To run them all the same, deploy with panel_migrations_contract: true."
        )
    return "\n".join(lines) + "\n"


def _read(file: Path) -> str:
    if file.suffix != ".py":
        raise expand_pending.PendingError(
            f"{file}: the migration has no source, so it cannot be judged. Deploy its .py."
        )
    with tokenize.open(file) as source:
        return source.read()
