# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the revisions that ``alembic upgrade head`` would run, with the application's own Alembic (1.7 or newer)."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class PendingError(Exception):
    """Raised if the pending revisions cannot be determined or read."""


@dataclass(frozen=True)
class Pending:
    """The files of the pending revisions, in the order in which they run.

    :param files: revisions of all databases.
    :param in_use: revisions of the databases that are not empty. No release uses an empty database.
    """

    files: tuple[Path, ...]
    in_use: tuple[Path, ...]


def find_pending() -> Pending:
    """Return the pending revisions of the application in the working directory.

    This runs the application's ``env.py``, which connects to the database, but migrates nothing. Errors of ``env.py``,
    such as a failed connection, are not caught, because their traceback explains them.

    :raises PendingError: Alembic is not installed, or does not find a revision.
    """
    # Like `python -m alembic`, because env.py imports the application from here.
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
            "or set AAPANEL_MIGRATE_COMMAND to another migration command."
        ) from None
    try:
        configuration = _configuration(config)
        scripts = script.ScriptDirectory.from_config(configuration)
        files: dict[Path, None] = {}
        in_use: dict[Path, None] = {}
        for current, empty in _databases(environment, configuration, scripts):
            scripts.get_revisions(current)  # Raises an error that names an unknown revision.
            # The call that `upgrade` makes, so that dependencies and several bases are handled alike.
            found = scripts.revision_map.iterate_revisions("head", current, implicit_base=True)
            these = dict.fromkeys(Path(each.path) for each in reversed(list(found)))
            files |= these
            in_use |= {} if empty else these
    except (util.CommandError, revision.RevisionError) as error:
        raise PendingError(
            f"Alembic cannot determine the pending migrations: {error}. If a revision is missing, a newer release may "
            "have migrated the database: deploy that release or a later one."
        ) from error
    return Pending(tuple(files), tuple(in_use))


def _configuration(config: Any) -> Any:  # noqa: ANN401 - Alembic is optional, so are its types
    """Return the configuration of `alembic upgrade head`, including the command line that env.py may read."""
    configurations = []
    command = config.CommandLine()
    command.run_cmd = lambda configuration, _options: configurations.append(configuration)
    command.main(["upgrade", "head"])
    return configurations[0]


def _databases(
    environment: Any,  # noqa: ANN401 - as above
    configuration: Any,  # noqa: ANN401
    scripts: Any,  # noqa: ANN401
) -> list[tuple[tuple[str, ...], bool]]:
    """Return the current revisions of each database of env.py, and whether it is empty."""
    databases: list[tuple[tuple[str, ...], bool]] = []
    inspect = importlib.import_module("sqlalchemy").inspect

    def record(current: tuple[str, ...], context: Any) -> list[object]:  # noqa: ANN401
        tables = () if current else inspect(context.connection).get_table_names()
        databases.append((tuple(current), not current and set(tables) <= {context.version_table}))
        return []  # No steps to run.

    # dont_mutate: do not create Alembic's own table either.
    with environment.EnvironmentContext(configuration, scripts, fn=record, dont_mutate=True):
        scripts.run_env()
    if not databases:
        raise PendingError(
            "Alembic's env.py did not call context.run_migrations(), so the migrations cannot be checked."
        )
    return databases
