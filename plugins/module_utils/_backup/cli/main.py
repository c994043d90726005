# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Create, verify and restore backups of this host. Needs neither network nor controller."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from ..._host import command_line, exit_codes
from ..archive import names
from ..errors import BackupError
from ..service.backups import BackupService
from ..service.settings import load
from . import commands, commands_offsite
from .render import Screen


def main(config: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param config: path of the settings file.
    :returns: the exit code, see `exit_codes`.
    """
    options = build_parser().parse_args(arguments)
    screen = Screen(json=options.json)
    # Like Ctrl-C: the command cleans up, or rolls back, before it ends.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        service = BackupService(load(Path(config)), screen.progress, getattr(options, "wait", 0.0))
        return {**commands.COMMANDS, **commands_offsite.COMMANDS}[options.command](service, options, screen)
    except BackupError as error:
        return screen.failed(str(error), error.status)
    except OSError as error:
        return screen.failed(f"{error.filename or 'the host'}: {error.strerror or error}", exit_codes.FAILED)
    except KeyboardInterrupt:
        return screen.failed("interrupted; existing data is unchanged", exit_codes.FAILED)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of panelctl backup."""
    shared, waiting = command_line.json_option(), command_line.wait_option()
    parser = argparse.ArgumentParser(prog="panelctl backup", description=__doc__, epilog=command_line.EPILOG)
    found = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create = found.add_parser("create", parents=[shared, waiting], help="create a backup")
    create.add_argument(
        "set", nargs="?", default=names.FULL, help=f"name of the backup set (default: {names.FULL}, all sources)"
    )
    create.add_argument("--prune", action="store_true", help="then prune, if the backup verifies")
    found.add_parser("list", parents=[shared], help="list the backups that exist or should exist")
    found.add_parser("status", parents=[shared], help="check that backups exist, are recent, and are proven to restore")
    verify = found.add_parser("verify", parents=[shared], help="verify every byte of a backup")
    verify.add_argument("name", nargs="?", default="", help="name of the backup (default: the newest)")
    verify.add_argument("--all", action="store_true", help="verify all backups")
    _add_restore(found, [shared, waiting])
    found.add_parser(
        "drill", parents=[shared, waiting], help="restore the newest backups beside the panel, and check its health"
    )
    found.add_parser("settle", parents=[shared, waiting], help="roll back an interrupted restore")
    prune = found.add_parser("prune", parents=[shared, waiting], help="remove backups that the retention does not keep")
    prune.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    remove = found.add_parser("remove", parents=[shared, waiting], help="remove a backup, or record that it is gone")
    remove.add_argument("name", help="name of the backup, in any state")
    remove.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    for word, text in (("pin", "exempt a backup from retention"), ("unpin", "undo a pin")):
        found.add_parser(word, parents=[shared, waiting], help=text).add_argument("name", help="name of the backup")
    commands_offsite.add_parsers(found, [shared, waiting])
    found.add_parser(
        "key-rotate", parents=[shared, waiting], help="sign new backups with a new key; old keys still verify"
    )
    return parser


def _add_restore(
    found: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    restore = found.add_parser("restore", parents=parents, help="verify a backup and restore it")
    restore.add_argument(
        "name", nargs="?", default="", help="name of the backup (default: the newest one of each source)"
    )
    restore.add_argument(
        "--only", action="append", default=[], metavar="SOURCE", help="restore only this source; repeatable"
    )
    restore.add_argument(
        "--to", type=Path, metavar="FOLDER", help="extract to a new folder instead of restoring in place"
    )
    restore.add_argument("--yes", action="store_true", help="do not ask for confirmation before the panel is stopped")
    restore.add_argument("--no-snapshot", action="store_true", help="do not back up the live data first")
    restore.add_argument(
        "--unproven",
        action="store_true",
        help="with --to: extract an archive of the first format, which cannot be verified",
    )
