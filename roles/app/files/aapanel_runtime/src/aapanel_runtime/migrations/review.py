# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reviews the pending revisions of the application before they run."""

from __future__ import annotations

import os
import tokenize
from pathlib import Path

from .pending import Pending, PendingError, find_pending
from .revision import Finding, check_revisions


def review_pending() -> tuple[Pending, list[tuple[str, Finding]]]:
    """Return the pending revisions of the application in the working directory, and the findings by file.

    :raises PendingError: the pending revisions cannot be determined or read.
    """
    pending = find_pending()
    return pending, check_revisions((os.path.relpath(file), _read(file)) for file in pending.in_use)


def render(findings: list[tuple[str, Finding]], *, allowed: bool) -> str:
    """Return one line for each finding, and one line with the consequence.

    :param allowed: whether the migrations run in spite of the findings.
    """
    lines = [f"{file}:{each.line}: {each.operation}: {each.reason} {each.cure}" for file, each in findings]
    if allowed:
        lines.append("Warning: the migrations contract the schema. They run because AAPANEL_MIGRATE_CONTRACT is allow.")
    else:
        lines.append(
            "Refused: the migrations contract the schema, which the release that serves still needs. Nothing was "
            "migrated. Change the migrations, or run them anyway with panel_migrations_contract: true."
        )
    return "\n".join(lines) + "\n"


def _read(file: Path) -> str:
    if file.suffix != ".py":
        raise PendingError(f"{file} has no source, so the migration cannot be checked. Deploy its .py file.")
    with tokenize.open(file) as source:
        return source.read()
