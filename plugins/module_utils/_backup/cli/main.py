# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""panelctl backup: make backups, prove that they are what was made, bring them back; without network or controller."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from ..._host import command_line, exit_codes
from ..archive import names
from ..errors import BackupError
from ..service.backups import Backups
from ..service.settings import load
from . import commands, commands_offsite
from .render import Screen

_NEWEST = "the newest one"


def main(config: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param config: path of the settings of this host.
    :returns: the exit code, see `exit_codes`.
    """
    options = build_parser().parse_args(arguments)
    screen = Screen(json=options.json)
    # As Ctrl-C: whatever is at work puts things back before it ends.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        backups = Backups(load(Path(config)), screen.progress, getattr(options, "wait", 0.0))
        return {**commands.COMMANDS, **commands_offsite.COMMANDS}[options.command](backups, options, screen)
    except BackupError as error:
        return screen.failed(str(error), error.status)
    except OSError as error:
        return screen.failed(f"{error.filename or 'the host'}: {error.strerror or error}", exit_codes.FAILED)
    except KeyboardInterrupt:
        return screen.failed("interrupted; what there was before is untouched", exit_codes.FAILED)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of panelctl backup."""
    shared, waiting = command_line.json_option(), command_line.wait_option()
    parser = argparse.ArgumentParser(prog="panelctl backup", description=__doc__, epilog=command_line.EPILOG)
    found = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create = found.add_parser("create", parents=[shared, waiting], help="make a backup")
    create.add_argument("set", nargs="?", default=names.FULL, help=f"which set of sources ({names.FULL}: all of them)")
    create.add_argument("--prune", action="store_true", help="and then prune, if it verifies")
    found.add_parser("list", parents=[shared], help="which there are, and which should be")
    found.add_parser("status", parents=[shared], help="whether they are there, young enough, and proven to restore")
    verify = found.add_parser("verify", parents=[shared], help="read every byte of a backup and compare")
    verify.add_argument("name", nargs="?", default="", help=f"which one ({_NEWEST})")
    verify.add_argument("--all", action="store_true", help="of all backups")
    _add_restore(found, [shared, waiting])
    found.add_parser("drill", parents=[shared, waiting], help="restore the newest ones beside the panel, and prove it")
    found.add_parser("settle", parents=[shared, waiting], help="roll back an interrupted restore")
    prune = found.add_parser("prune", parents=[shared, waiting], help="remove those that retention does not keep")
    prune.add_argument("--dry-run", action="store_true", help="only say which")
    remove = found.add_parser(
        "remove", parents=[shared, waiting], help="remove a backup, or write down that it is gone"
    )
    remove.add_argument("name", help="which one, good or not")
    remove.add_argument("--yes", action="store_true", help="do not ask before it is removed")
    for word, text in (("pin", "keep a backup, whatever its age"), ("unpin", "let it go with the others of its age")):
        found.add_parser(word, parents=[shared, waiting], help=text).add_argument("name", help="which one")
    commands_offsite.add_parsers(found, [shared, waiting])
    found.add_parser("key-rotate", parents=[shared, waiting], help="sign with a new key; the old ones verify on")
    return parser


def _add_restore(
    found: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    restore = found.add_parser("restore", parents=parents, help="bring a backup back, after verifying it")
    restore.add_argument("name", nargs="?", default="", help="which one (the newest one of each source)")
    restore.add_argument("--only", action="append", default=[], metavar="SOURCE", help="nothing but this; repeatable")
    restore.add_argument("--to", type=Path, metavar="FOLDER", help="extract to a folder that is not there yet instead")
    restore.add_argument("--yes", action="store_true", help="do not ask before the panel is stopped")
    restore.add_argument(
        "--no-snapshot", action="store_true", help="do not back up what there is now, which may be broken"
    )
    restore.add_argument(
        "--unproven", action="store_true", help="with --to: an archive of the first format, which anybody may have made"
    )
