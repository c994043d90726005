# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks an environment, and on request whether its database and Redis answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from .health import from_settings
from .problems import Problem, redact
from .settings import BaseSettings, examine, secret_values, unknown


def check(environ: Mapping[str, str], *, whole: bool = False, connect: bool = False) -> list[Problem]:
    """Return the problems of an environment, without secrets.

    :param whole: *environ* holds only settings (it comes from a file), so similar names are reported too.
    :param connect: also check that the database and Redis answer.
    """
    settings, problems = examine(environ)
    problems += unknown(environ, whole=whole)
    if connect and settings is not None:
        problems += _unreachable(settings)
    secrets = secret_values(environ)
    return [Problem(each.name, redact(each.what, secrets), redact(each.cure, secrets), each.level) for each in problems]


def _unreachable(settings: BaseSettings) -> list[Problem]:
    database = "DATABASE_URL" if settings.database_url else "DB_ENGINE"
    shown = {"database": (database, "the database"), "redis": ("REDIS_URL", "Redis")}
    return [
        Problem(
            variable,
            f"is set, but the health check of {title} failed: {result.detail or result.error}.",
            "Check that it runs, and that the address, user and password are correct.",
        )
        for name, result in from_settings(settings).checks().items()
        if result.status == "failed"
        for variable, title in [shown[name]]
    ]


def failed(problems: list[Problem]) -> bool:
    """Return whether *problems* include an error."""
    return any(problem.level == "error" for problem in problems)


def render(problems: list[Problem], *, as_json: bool) -> str:
    """Return the problems as text or as JSON."""
    if as_json:
        answer = {"ok": not failed(problems), "problems": [asdict(problem) for problem in problems]}
        return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"
    errors = sum(problem.level == "error" for problem in problems)
    lines = [f"{problem.level.upper():<8}{problem}" for problem in problems]
    lines.append(f"{errors} errors, {len(problems) - errors} warnings" if problems else "The settings are valid.")
    return "\n".join(lines) + "\n"
