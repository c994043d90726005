# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the application's own Alembic (1.7 or newer) which revisions ``alembic upgrade head`` would run."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class PendingError(Exception):
    """It cannot be told which revisions are pending. The message says why, and what to do."""


@dataclass(frozen=True)
class Pending:
    """The files of the pending revisions, in the order of running.

    ``in_use`` are those for a database that is not empty: what an empty one loses, no release can miss.
    """

    files: tuple[Path, ...]
    in_use: tuple[Path, ...]


def ask() -> Pending:
    """Return the pending revisions of the application in the working directory.

    The application's ``env.py`` runs, because only it knows the database; nothing is migrated. What it raises itself,
    as when the database does not answer, is raised as it is: the traceback is the answer to "why".

    Raises:
        PendingError: Alembic is missing, or cannot make sense of the revisions or of the database's.
    """
    # As for `python -m alembic`: env.py imports the application from here.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        config, script, environment, util, revision = (
            importlib.import_module(f"alembic.{name}")
            for name in ("config", "script", "runtime.environment", "util", "script.revision")
        )
    except ModuleNotFoundError as error:
        if not f"{error.name}.".startswith("alembic."):
            raise
        raise PendingError(
            "There is an alembic.ini, but Alembic is not installed. Add alembic to the application's requirements, "
            "or set AAPANEL_MIGRATE_COMMAND to the command that migrates."
        ) from None
    try:
        configuration = _configuration(config)
        scripts = script.ScriptDirectory.from_config(configuration)
        files: dict[Path, None] = {}
        in_use: dict[Path, None] = {}
        for current, empty in _databases(environment, configuration, scripts):
            scripts.get_revisions(current)  # Says which of them is unknown, where one is.
            # As `upgrade` asks, so that dependencies and several bases are counted alike.
            found = scripts.revision_map.iterate_revisions("head", current, implicit_base=True)
            these = dict.fromkeys(Path(each.path) for each in reversed(list(found)))
            files |= these
            in_use |= {} if empty else these
    except (util.CommandError, revision.RevisionError) as error:
        raise PendingError(
            f"Alembic cannot tell which migrations are pending: {error}. A revision that it cannot find may be of a "
            "newer release that has migrated the database already: deploy that one or a later one."
        ) from error
    return Pending(tuple(files), tuple(in_use))


def _configuration(config: Any) -> Any:  # noqa: ANN401 - Alembic is optional, so are its types
    """Return what `alembic upgrade head` is configured with, env.py's view of the command line included."""
    seen = []
    command = config.CommandLine()
    command.run_cmd = lambda configuration, _options: seen.append(configuration)
    command.main(["upgrade", "head"])
    return seen[0]


def _databases(
    environment: Any,  # noqa: ANN401 - as above
    configuration: Any,  # noqa: ANN401
    scripts: Any,  # noqa: ANN401
) -> list[tuple[tuple[str, ...], bool]]:
    """Return for each database of env.py the revisions that it is at, and whether it is empty."""
    databases: list[tuple[tuple[str, ...], bool]] = []
    inspect = importlib.import_module("sqlalchemy").inspect

    def note(current: tuple[str, ...], context: Any) -> list[object]:  # noqa: ANN401
        tables = () if current else inspect(context.connection).get_table_names()
        databases.append((tuple(current), not current and set(tables) <= {context.version_table}))
        return []  # No steps to run.

    # dont_mutate: not even Alembic's own table is created.
    with environment.EnvironmentContext(configuration, scripts, fn=note, dont_mutate=True):
        scripts.run_env()
    if not databases:
        raise PendingError("Alembic's env.py did not call context.run_migrations(), so nothing can be judged.")
    return databases
