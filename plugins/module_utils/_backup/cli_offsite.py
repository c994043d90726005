# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The commands of panelctl backup that deal with copies elsewhere; each gives what to print and the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from . import fetch, offsite
from .errors import BackupError
from .fetch import NEWEST, Fetched, Wish
from .offsite import Problem
from .remote import Remote
from .settings import Settings
from .store import State

#: As JSON, as lines for people, and the exit status.
Told = tuple[Any, list[str], int]
Command = Callable[[Settings, argparse.Namespace], Told]


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


def _push(settings: Settings, options: argparse.Namespace) -> Told:
    done = offsite.push(settings.store(), _remote(settings), wait=options.wait, say=_progress("sending"))
    lines = [
        *(f"{name}  sent" for name in done.sent),
        *(f"{name}  removed from the remote" for name in done.removed),
        *_problems(done.problems),
    ]
    told = {"result": "failed" if done.problems else "pushed", **asdict(done)}
    return told, lines or ["the remote has all of them"], _status(done.problems)


def _remote_(settings: Settings, options: argparse.Namespace) -> Told:  # noqa: ARG001 (as all commands)
    found = offsite.compare(settings.store(), _remote(settings))
    lines = [f"{one.name}  there: {one.there or 'no'}  here: {one.here or 'no'}" for one in found]
    lacking = [one for one in found if one.here == State.GOOD.value and one.there != "whole"]
    return [asdict(one) for one in found], lines or ["there are none"], 1 if lacking else 0


def _fetch(settings: Settings, options: argparse.Namespace) -> Told:
    remote = _remote(settings)
    if options.identity is not None:
        remote = replace(remote, identity=options.identity)
    wish = Wish("" if options.all else options.name, options.adopt, options.again, options.wait)
    done = fetch.fetch(settings.store(), remote, wish, _progress("fetching"))
    return _fetched(done)


def _adopt(settings: Settings, options: argparse.Namespace) -> Told:
    if options.all == bool(options.names):
        raise BackupError("say which: names, or --all")
    return _fetched(fetch.adopt(settings.store(), options.names, wait=options.wait))


COMMANDS: dict[str, Command] = {"push": _push, "remote": _remote_, "fetch": _fetch, "adopt": _adopt}


def _fetched(done: Fetched) -> Told:
    lines = [
        *(f"{name}  fetched" for name in done.fetched),
        *(f"{name}  is here already" for name in done.here),
        *(f"{name}  adopted: `panelctl backup restore {name} --to FOLDER`" for name in done.adopted),
        *(f"{name}  is not this machine's until you say so: `panelctl backup adopt {name}`" for name in done.unknown),
        *_problems(done.problems),
    ]
    told = {"result": "failed" if done.problems else "done", **asdict(done)}
    return told, lines or ["there is nothing to adopt"], _status(done.problems)


def _remote(settings: Settings) -> Remote:
    if settings.offsite is None:
        raise BackupError("there is no remote: the settings have no `offsite`")
    return settings.offsite


def _progress(what: str) -> Callable[[str], None]:
    def say(text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"{what} {text}\n")

    return say


def _problems(problems: Sequence[Problem]) -> list[str]:
    return [f"{problem.name}  FAILED: {problem.text}" for problem in problems]


def _status(problems: Sequence[Problem]) -> int:
    return max((problem.status for problem in problems), default=0)
