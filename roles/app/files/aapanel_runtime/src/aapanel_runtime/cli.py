# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks settings, prints their schema, migrates the database, and serves the application for development."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import check as checker
from .migrations import command, review
from .migrations.pending import PendingError
from .problems import SettingsError
from .serving import devserver, logs
from .settings import BaseSettings, envfile, get_settings, schema

_FAILED = 1
_USAGE = 2
_REFUSED = 3


class _UsageError(Exception):
    """Raised for an argument that is not valid."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    :returns: 0 for success, 1 for invalid settings, 2 for wrong usage, 3 for migrations that are refused because
        they contract the schema; otherwise the exit status of the migration command.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "check":
            return _check(options)
        if options.command == "schema":
            sys.stdout.write(schema.render(options.format))
            return 0
        if options.command == "migrate":
            return _migrate(options)
        return _serve(options)
    except (_UsageError, devserver.DevelopmentServerError, command.MigrationCommandError) as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aapanel_runtime", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check the settings and report every problem, without secrets")
    check.add_argument(
        "--env-file", type=Path, help="check this file (parsed as by systemd) instead of the environment"
    )
    check.add_argument("--connect", action="store_true", help="also check that the database and Redis answer")
    check.add_argument("--json", action="store_true", help="print JSON")
    listing = commands.add_parser("schema", help="print every variable with its description and default")
    listing.add_argument("--format", choices=("env", "json", "markdown"), default="env")
    migration = commands.add_parser(
        "migrate", help="migrate the database of the application with AAPANEL_MIGRATE_COMMAND"
    )
    migration.add_argument(
        "--check", action="store_true", help="check that the pending migrations only expand the schema, and run nothing"
    )
    serve = commands.add_parser("serve", help="serve the application for development")
    serve.add_argument(
        "--env-file", type=Path, help="read variables from this file; those of the environment override it"
    )
    serve.add_argument("--reload", action="store_true", help="restart when code changes")
    return parser


def _check(options: argparse.Namespace) -> int:
    environ: Mapping[str, str] = os.environ if options.env_file is None else _read(options.env_file)
    logs.silence()
    problems = checker.check(environ, whole=options.env_file is not None, connect=options.connect)
    sys.stdout.write(checker.render(problems, as_json=options.json))
    return _FAILED if checker.failed(problems) else 0


def _migrate(options: argparse.Namespace) -> int:
    try:
        settings = get_settings()
    except SettingsError as error:
        sys.stderr.write(f"The settings are not valid:\n{error}\n")
        return _FAILED
    arguments = command.resolve(settings.aapanel_migrate_command, Path.cwd())
    if arguments is None:
        sys.stdout.write("Nothing to migrate: there is no alembic.ini, or AAPANEL_MIGRATE_COMMAND is empty.\n")
        return 0
    status = _review(settings)
    if status is not None or options.check:
        return status or 0
    sys.stdout.write(f"Migrating: {shlex.join(arguments)}\n")
    sys.stdout.flush()
    try:
        return subprocess.run(arguments, check=False).returncode
    except OSError as error:
        sys.stderr.write(f"{arguments[0]} cannot be run: {error.strerror}\n")
        return _FAILED


def _review(settings: BaseSettings) -> int | None:
    """Review the pending migrations; return the exit status, or None to continue."""
    if settings.aapanel_migrate_command != command.AUTO:
        sys.stdout.write("AAPANEL_MIGRATE_COMMAND is not auto: its migrations are not checked.\n")
        return None
    allowed = settings.aapanel_migrate_contract == "allow"
    try:
        pending, findings = review.review_pending()
    except PendingError as error:
        sys.stderr.write(f"{error}\n")
        # If contractions are allowed, the check would change nothing, and Alembic reports its own errors.
        return None if allowed else _FAILED
    if not pending.files:
        sys.stdout.write("Nothing to migrate.\n")
        return 0
    if not findings:
        why = "they only expand the schema" if pending.in_use else "the database is empty, so no release uses it yet"
        sys.stdout.write(f"Pending migrations: {len(pending.files)}; {why}.\n")
        return None
    sys.stderr.write(review.render(findings, allowed=allowed))
    return None if allowed else _REFUSED


def _serve(options: argparse.Namespace) -> int:
    if options.env_file is not None:
        # Into the environment, for the application and for the process that the reloader starts.
        os.environ.update({name: value for name, value in _read(options.env_file).items() if name not in os.environ})
    try:
        settings = get_settings()
    except SettingsError as error:
        sys.stderr.write(f"The settings are not valid:\n{error}\n")
        return _FAILED
    try:
        devserver.serve(settings, reload=options.reload)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    return 0


def _read(path: Path) -> dict[str, str]:
    try:
        return envfile.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise _UsageError(f"{path} cannot be read: {reason}.") from None
    except envfile.EnvironmentFileError as error:
        raise _UsageError(f"{path}: {error}") from None
