# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The commands of `panelctl backup` for off-site copies. Each one prints its result, and returns the exit status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..._host import exit_codes
from ..errors import BackupError, UsageError
from ..offsite import fetch, upload
from ..offsite.fetch import NEWEST, FetchRequest, FetchResult
from ..offsite.remote import Remote
from ..offsite.upload import Problem
from ..service.backups import BackupService
from ..storage.store import SIGNED
from .commands import Command
from .render import NO_BACKUPS, Screen


def add_parsers(commands: Any, parents: Sequence[argparse.ArgumentParser]) -> None:  # noqa: ANN401 (argparse hides it)
    """Add the parsers of these commands to those of `panelctl backup`."""
    commands.add_parser("push", parents=parents, help="send the backups that the remote lacks, oldest first")
    commands.add_parser("remote", parents=parents, help="list which backups this host and the remote have")
    fetch_ = commands.add_parser("fetch", parents=parents, help="fetch backups from the remote")
    which = fetch_.add_mutually_exclusive_group()
    which.add_argument("name", nargs="?", default=NEWEST, help="name of the backup (default: newest)")
    which.add_argument("--all", action="store_true", help="fetch all backups")
    fetch_.add_argument("--adopt", action="store_true", help="adopt backups of a host that this one replaces")
    fetch_.add_argument(
        "--again", action="store_true", help="fetch a backup that was pruned here; the next prune removes it again"
    )
    fetch_.add_argument(
        "--identity",
        type=Path,
        metavar="FILE",
        help="age identity that decrypts the backups (default: the configured one)",
    )
    adopt = commands.add_parser("adopt", parents=parents, help="adopt backups of a host that this one replaces")
    adopt.add_argument("names", nargs="*", metavar="NAME", help="names of backups")
    adopt.add_argument("--all", action="store_true", help="adopt all backups in the folder that are not in the catalog")


def _push(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    done = service.push(_remote(service))
    lines = [
        *(f"{name}  sent" for name in done.sent),
        *(f"{name}  removed from the remote" for name in done.removed),
        *_problems(done.problems),
    ]
    result = {"result": "failed" if done.problems else "pushed", **asdict(done)}
    screen.show(result, lines or ["the remote has all backups"])
    return _status(done.problems)


def _compare(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    found = upload.compare(service.store, _remote(service))
    lines = [f"{one.name}  there: {one.there or 'no'}  here: {one.here or 'no'}" for one in found]
    screen.show([asdict(one) for one in found], lines or [NO_BACKUPS])
    signed = [state.value for state in SIGNED]
    lacking = any(one.here in signed and one.there != "whole" for one in found)
    return exit_codes.UNHEALTHY if lacking else exit_codes.SUCCESS


def _fetch(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    remote = _remote(service)
    if options.identity is not None:
        remote = replace(remote, identity=options.identity)
    request = FetchRequest("" if options.all else options.name, options.adopt, options.again, options.wait)
    return _show_result(fetch.fetch(service.store, remote, request, screen.progress), screen)


def _adopt(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    if options.all == bool(options.names):
        raise UsageError("pass either names of backups or --all")
    return _show_result(fetch.adopt(service.store, options.names, wait=options.wait), screen)


COMMANDS: dict[str, Command] = {"push": _push, "remote": _compare, "fetch": _fetch, "adopt": _adopt}


def _show_result(done: FetchResult, screen: Screen) -> int:
    lines = [
        *(f"{name}  fetched" for name in done.fetched),
        *(f"{name}  already exists here" for name in done.here),
        *(f"{name}  adopted: `panelctl backup restore {name} --to FOLDER`" for name in done.adopted),
        *(f"{name}  is not in the catalog: `panelctl backup adopt {name}` adds it" for name in done.unknown),
        *_problems(done.problems),
    ]
    result = {"result": "failed" if done.problems else "done", **asdict(done)}
    screen.show(result, lines or ["nothing to adopt"])
    return _status(done.problems)


def _remote(service: BackupService) -> Remote:
    if service.settings.offsite is None:
        raise BackupError("no remote is configured: set panel_backup_offsite, and run site.yml")
    return service.settings.offsite


def _problems(problems: Sequence[Problem]) -> list[str]:
    return [f"{problem.name}  FAILED: {problem.text}" for problem in problems]


def _status(problems: Sequence[Problem]) -> int:
    return max((problem.status for problem in problems), default=exit_codes.SUCCESS)
