# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validates an environment, and on request the servers that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from . import health
from .problems import Problem, redact
from .settings import BaseSettings, examine, secret_values, unknown


def check(environ: Mapping[str, str], *, whole: bool = False, connect: bool = False) -> list[Problem]:
    """Return everything that is wrong with an environment; no text holds a secret.

    ``whole``: the environment holds nothing but settings (a file). ``connect``: also ask the database and Redis.
    """
    settings, problems = examine(environ)
    problems += unknown(environ, whole=whole)
    if connect and settings is not None:
        problems += _unreachable(settings)
    secrets = secret_values(environ)
    return [Problem(each.name, redact(each.what, secrets), redact(each.cure, secrets), each.level) for each in problems]


def _unreachable(settings: BaseSettings) -> list[Problem]:
    names = {"database": "DATABASE_URL" if settings.database_url else "DB_ENGINE", "redis": "REDIS_URL"}
    return [
        Problem(
            names[name],
            f"is set, but the {name} does not answer as it should: {result.detail or result.error}.",
            "See that it runs, and that address, user and password are right.",
        )
        for name, result in health.from_settings(settings).checks().items()
        if result.status == "failed"
    ]


def failed(problems: list[Problem]) -> bool:
    """Tell whether anything in ``problems`` is more than a warning."""
    return any(problem.level == "error" for problem in problems)


def render(problems: list[Problem], *, as_json: bool) -> str:
    """Return the findings as lines for people, or as JSON."""
    if as_json:
        answer = {"ok": not failed(problems), "problems": [asdict(problem) for problem in problems]}
        return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"
    errors = sum(problem.level == "error" for problem in problems)
    lines = [f"{problem.level.upper():<8}{problem}" for problem in problems]
    lines.append(f"{errors} errors, {len(problems) - errors} warnings" if problems else "The environment is fine.")
    return "\n".join(lines) + "\n"
