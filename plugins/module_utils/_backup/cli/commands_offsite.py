# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The commands of panelctl backup that deal with copies elsewhere; each returns its exit status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..._host import exit_codes
from ..errors import BackupError, UsageError
from ..offsite import fetch, upload
from ..offsite.fetch import NEWEST, Fetched, Wish
from ..offsite.remote import Remote
from ..offsite.upload import Problem
from ..service.backups import Backups
from ..storage.store import SIGNED
from .commands import Command
from .render import Screen


#: As JSON, as lines for people, and the exit status.
def add_parsers(commands: Any, parents: Sequence[argparse.ArgumentParser]) -> None:  # noqa: ANN401 (argparse hides it)
    """Add the commands to those of panelctl backup."""
    commands.add_parser("push", parents=parents, help="send the backups that the remote lacks, oldest first")
    commands.add_parser("remote", parents=parents, help="which backups the remote has, and which it lacks")
    fetch_ = commands.add_parser("fetch", parents=parents, help="bring backups back from the remote")
    which = fetch_.add_mutually_exclusive_group()
    which.add_argument("name", nargs="?", default=NEWEST, help="which one (newest)")
    which.add_argument("--all", action="store_true", help="all of them")
    fetch_.add_argument("--adopt", action="store_true", help="this machine has the place of the one that made them")
    fetch_.add_argument("--again", action="store_true", help="though it was pruned here; the next prune removes it")
    fetch_.add_argument("--identity", type=Path, metavar="FILE", help="age's identity, if not the one of the settings")
    adopt = commands.add_parser("adopt", parents=parents, help="take in what another machine made, in its place")
    adopt.add_argument("names", nargs="*", metavar="NAME", help="which ones")
    adopt.add_argument("--all", action="store_true", help="all that are here and that the ledger does not know")


def _push(backups: Backups, _options: argparse.Namespace, screen: Screen) -> int:
    done = backups.push(_remote(backups))
    lines = [
        *(f"{name}  sent" for name in done.sent),
        *(f"{name}  removed from the remote" for name in done.removed),
        *_problems(done.problems),
    ]
    told = {"result": "failed" if done.problems else "pushed", **asdict(done)}
    screen.show(told, lines or ["the remote has all of them"])
    return _status(done.problems)


def _compare(backups: Backups, _options: argparse.Namespace, screen: Screen) -> int:
    found = upload.compare(backups.store, _remote(backups))
    lines = [f"{one.name}  there: {one.there or 'no'}  here: {one.here or 'no'}" for one in found]
    screen.show([asdict(one) for one in found], lines or ["there are none"])
    signed = [state.value for state in SIGNED]
    lacking = any(one.here in signed and one.there != "whole" for one in found)
    return exit_codes.UNHEALTHY if lacking else exit_codes.SUCCESS


def _fetch(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    remote = _remote(backups)
    if options.identity is not None:
        remote = replace(remote, identity=options.identity)
    wish = Wish("" if options.all else options.name, options.adopt, options.again, options.wait)
    return _fetched(fetch.fetch(backups.store, remote, wish, screen.progress), screen)


def _adopt(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    if options.all == bool(options.names):
        raise UsageError("say which: names, or --all")
    return _fetched(fetch.adopt(backups.store, options.names, wait=options.wait), screen)


COMMANDS: dict[str, Command] = {"push": _push, "remote": _compare, "fetch": _fetch, "adopt": _adopt}


def _fetched(done: Fetched, screen: Screen) -> int:
    lines = [
        *(f"{name}  fetched" for name in done.fetched),
        *(f"{name}  is here already" for name in done.here),
        *(f"{name}  adopted: `panelctl backup restore {name} --to FOLDER`" for name in done.adopted),
        *(f"{name}  is not this machine's until you say so: `panelctl backup adopt {name}`" for name in done.unknown),
        *_problems(done.problems),
    ]
    told = {"result": "failed" if done.problems else "done", **asdict(done)}
    screen.show(told, lines or ["there is nothing to adopt"])
    return _status(done.problems)


def _remote(backups: Backups) -> Remote:
    if backups.settings.offsite is None:
        raise BackupError("there is no remote: the settings have no `offsite`; set panel_backup_offsite")
    return backups.settings.offsite


def _problems(problems: Sequence[Problem]) -> list[str]:
    return [f"{problem.name}  FAILED: {problem.text}" for problem in problems]


def _status(problems: Sequence[Problem]) -> int:
    return max((problem.status for problem in problems), default=exit_codes.SUCCESS)
