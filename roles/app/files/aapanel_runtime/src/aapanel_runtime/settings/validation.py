# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validates an environment and explains its problems."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from pydantic import ValidationError

from ..database.url import KINDS
from ..problems import Problem, SettingsError, redact
from .base import BaseSettings
from .environments import CLASSES, FIELDS, NEW_KEY, ProductionSettings, extra, secret_values
from .source import current_environ, reading
from .variable import ERROR_TYPE

_OWN_PREFIX = "AAPANEL_"
# Similarity from which a name is suggested, see difflib: lower for AAPANEL_*, which is certainly for the runtime.
_SIMILAR, _VERY_SIMILAR = 0.6, 0.85
_MAX_SHOWN = 80


def get_settings(environment: str | None = None, **overrides: object) -> BaseSettings:
    """Return the settings of this process.

    :param environment: overrides ``ENVIRONMENT``, which selects the class.
    :param overrides: fields (lower case), which override variables.
    :raises SettingsError: lists every problem, without secrets.
    """
    settings, problems = examine(current_environ(), environment, **overrides)
    if settings is None:
        raise SettingsError(problem for problem in problems if problem.level == "error")
    return settings


def examine(
    environ: Mapping[str, str], environment: str | None = None, **overrides: object
) -> tuple[BaseSettings | None, list[Problem]]:
    """Validate an environment.

    Unknown ``AAPANEL_*`` names are reported by :func:`unknown` only, because the app can start in spite of them.

    :returns: the settings, None if there are errors; and all problems.
    """
    chosen = environment or environ.get("ENVIRONMENT") or "production"
    cls = CLASSES.get(chosen)
    if cls is not None:
        overrides["environment"] = chosen
    unexpected = sorted(name for name in overrides if name not in BaseSettings.model_fields)
    if unexpected:
        raise TypeError(f"get_settings() got unknown settings: {', '.join(unexpected)}")
    settings: BaseSettings | None = None
    problems: list[Problem] = []
    with reading(environ):
        try:
            # An unknown ENVIRONMENT is reported as a problem; the other variables are checked by the strictest rules.
            settings = (cls or ProductionSettings)(**cast("dict[str, Any]", overrides))
        except ValidationError as error:
            problems += _explain(error, environ, overrides)
    problems += _database_problems(lambda name: str(overrides.get(name.lower()) or environ.get(name) or ""))
    order = list(FIELDS)
    problems.sort(key=lambda problem: order.index(problem.name))
    return (None if any(problem.level == "error" for problem in problems) else settings), problems


def unknown(environ: Mapping[str, str], *, whole: bool) -> list[Problem]:
    """Report unknown variables: an error for each ``AAPANEL_*``, a warning for a name similar to a known one.

    :param whole: *environ* holds only settings (it comes from a file), so other names are checked too.
    """
    problems = []
    for name in sorted(environ):
        if name in FIELDS:
            continue
        ours = name.startswith(_OWN_PREFIX)
        if not ours and not whole:
            continue
        # Compared without the prefix, which would make all AAPANEL_* names similar.
        candidates = {known.removeprefix(_OWN_PREFIX): known for known in FIELDS}
        cutoff = _SIMILAR if ours else _VERY_SIMILAR
        near = difflib.get_close_matches(name.removeprefix(_OWN_PREFIX), candidates, n=1, cutoff=cutoff)
        if near:
            cure = f"Did you mean {candidates[near[0]]}?"
            problems.append(Problem(name, "is not a known variable.", cure, "error" if ours else "warning"))
        elif ours:
            problems.append(Problem(name, "is not a known variable.", "Remove it."))
    return problems


def _explain(error: ValidationError, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Iterator[Problem]:
    secrets = secret_values(environ)
    seen = set()
    for detail in error.errors(include_url=False, include_context=True):
        name = str(detail["loc"][0]).upper()
        if name in seen:
            continue
        seen.add(name)
        declared = extra(name)
        context = detail.get("ctx", {})
        cure = f"Set it to {declared['expects']}."
        if detail["type"] == "missing":
            yield Problem(name, "is not set.", NEW_KEY if name == "SECRET_KEY" else cure)
            continue
        own = detail["type"] == ERROR_TYPE
        what = context["what"] if own else "is not valid."
        if not declared["secret"]:
            value = str(overrides.get(name.lower(), environ.get(name, "")))
            what = f"{redact(_shorten(value), secrets)!r} {what}"
        yield Problem(name, what, context["cure"] if own else cure)


def _shorten(value: str) -> str:
    return value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…"


def _database_problems(value: Callable[[str], str]) -> Iterator[Problem]:
    """Yield the problems of the ``DB_*`` variables together.

    :param value: returns the value of a variable, empty if it is unset.
    """
    parts = [name for name in ("DB_ENGINE", "DB_NAME", "DB_USER", "DB_PASSWORD") if value(name)]
    if value("DATABASE_URL"):
        if parts:
            yield Problem(
                "DATABASE_URL",
                f"overrides {', '.join(parts)}.",
                "Remove either the URL or the others.",
                "warning",
            )
        return
    engine = value("DB_ENGINE").lower()
    if not engine:
        if parts:
            yield Problem("DB_ENGINE", f"is not set, but {parts[0]} is.", "Set it to postgresql, mysql or sqlite.")
        return
    if not value("DB_NAME"):
        cure = "Set it to the name of the database; for SQLite to the path of its file."
        yield Problem("DB_NAME", "is not set, but DB_ENGINE is.", cure)
    if not value("DB_USER") and KINDS.get(engine) in ("postgresql", "mysql"):
        yield Problem("DB_USER", f"is not set, but {engine} needs a user.", "Set it to the user of the database.")
