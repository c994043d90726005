# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m aapanel_runtime check | schema | migrate | serve``."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import check as checker
from . import devserver, envfile, logs, migrate, schema
from .expand_pending import PendingError
from .problems import SettingsError
from .settings import BaseSettings, get_settings

_FAILED = 1
_USAGE = 2
_REFUSED = 3


class _UsageError(Exception):
    """An argument cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns 0 if all is well, 1 if something is wrong with the environment, 2 for wrong usage, 3 for migrations that are
    refused because they do more than add, and else what the command that migrates returned.
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
    except (_UsageError, devserver.DevelopmentServerError, migrate.MigrationCommandError) as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aapanel_runtime", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="validate an environment and report every problem, without a secret")
    check.add_argument(
        "--env-file", type=Path, help="validate this file (as systemd reads it) instead of the environment"
    )
    check.add_argument("--connect", action="store_true", help="also ask the database and Redis whether they answer")
    check.add_argument("--json", action="store_true", help="print JSON")
    listing = commands.add_parser("schema", help="print every variable")
    listing.add_argument("--format", choices=("env", "json", "markdown"), default="env")
    migration = commands.add_parser(
        "migrate", help="bring the application's database up to date, as AAPANEL_MIGRATE_COMMAND says"
    )
    migration.add_argument(
        "--check", action="store_true", help="only judge whether the pending migrations do no more than add"
    )
    serve = commands.add_parser("serve", help="serve on this machine, for development")
    serve.add_argument("--env-file", type=Path, help="add the variables of this file; those of the environment win")
    serve.add_argument("--reload", action="store_true", help="start again when code changes")
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
        sys.stderr.write(f"The environment cannot be used:\n{error}\n")
        return _FAILED
    command = migrate.command(settings.aapanel_migrate_command, Path.cwd())
    if command is None:
        sys.stdout.write("Nothing to migrate: no alembic.ini here, or none wanted. So nothing was judged.\n")
        return 0
    status = _judge(settings)
    if status is not None or options.check:
        return status or 0
    sys.stdout.write(f"Migrating: {shlex.join(command)}\n")
    sys.stdout.flush()
    try:
        return subprocess.run(command, check=False).returncode
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return _FAILED


def _judge(settings: BaseSettings) -> int | None:
    """Judge the pending migrations. Returns the status to end with, or None to go on."""
    if settings.aapanel_migrate_command != migrate.AUTO:
        sys.stdout.write("AAPANEL_MIGRATE_COMMAND is not auto: whether its migrations only add cannot be judged.\n")
        return None
    allowed = settings.aapanel_migrate_contract == "allow"
    try:
        pending, findings = migrate.judge()
    except PendingError as error:
        sys.stderr.write(f"{error}\n")
        # Where contractions are allowed there is nothing to judge for; Alembic says itself what it misses.
        return None if allowed else _FAILED
    if not pending.files:
        sys.stdout.write("Nothing to migrate.\n")
        return 0
    if not findings:
        why = "they only add" if pending.in_use else "the database is empty, so no release can miss anything"
        sys.stdout.write(f"Pending migrations: {len(pending.files)}; {why}.\n")
        return None
    sys.stderr.write(migrate.render(findings, allowed=allowed))
    return None if allowed else _REFUSED


def _serve(options: argparse.Namespace) -> int:
    if options.env_file is not None:
        # Into the environment, because the application reads it there, and so does the process that reloads.
        os.environ.update({name: value for name, value in _read(options.env_file).items() if name not in os.environ})
    try:
        settings = get_settings()
    except SettingsError as error:
        sys.stderr.write(f"The environment cannot be used:\n{error}\n")
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
