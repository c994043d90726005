# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""panelctl backup: make backups, prove that they are what was made, bring them back; without network or controller."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import create, extract, keyring, names, retention
from .errors import BackupError
from .settings import Settings, load
from .store import Backup, State, Store, lock

OK, FAILED = 0, 1
PARTIAL, NOT_AUTHENTIC = 3, 4
_EPILOG = """\
exit status: 0 done; 1 it failed; 2 wrong usage; 3 done, but something is missing (the warnings say what); 4 something
is not what was signed; 5 another backup, restore or prune is at work."""
_NEWEST = "newest"


def main(config: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param config: path of the settings of this host.
    :returns: the exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](load(Path(config)), options)
    except BackupError as error:
        return _failed(str(error), error.status, options)
    except OSError as error:
        return _failed(f"{error.filename or 'the host'}: {error.strerror or error}", FAILED, options)
    except KeyboardInterrupt:
        return _failed("interrupted; what there was before is untouched", FAILED, options)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON")
    waiting = argparse.ArgumentParser(add_help=False)
    waiting.add_argument("--wait", type=float, default=10.0, metavar="S", help="seconds to wait for others (10)")
    parser = argparse.ArgumentParser(prog="panelctl backup", description=__doc__, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create_ = commands.add_parser("create", parents=[shared, waiting], help="make a backup")
    create_.add_argument("set", nargs="?", default=names.FULL, help=f"which set of sources ({names.FULL}: all of them)")
    commands.add_parser("list", parents=[shared], help="which there are, and which should be")
    verify = commands.add_parser("verify", parents=[shared], help="read every byte of a backup and compare")
    verify.add_argument("name", nargs="?", default=_NEWEST, help="which one (newest)")
    verify.add_argument("--all", action="store_true", help="of all backups")
    restore = commands.add_parser("restore", parents=[shared], help="bring a backup back, after verifying it")
    restore.add_argument("name", nargs="?", default=_NEWEST, help="which one (newest)")
    restore.add_argument(
        "--unproven", action="store_true", help="an archive of the first format, which anybody may have made"
    )
    restore.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="a folder that is not there yet")
    prune = commands.add_parser("prune", parents=[shared, waiting], help="remove those that retention does not keep")
    prune.add_argument("--dry-run", action="store_true", help="only say which")
    commands.add_parser("key-rotate", parents=[shared, waiting], help="sign with a new key; the old ones verify on")
    return parser


def _create(settings: Settings, options: argparse.Namespace) -> int:
    def say(text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"backing up {text}\n")

    origins = settings.of(options.set)
    summary = create.create(settings.store(), origins, options.set, wait=options.wait, say=say)
    lines = [f"{summary.name}: {summary.members} members, {_size(summary.size)}", *_warnings(summary.warnings)]
    _say(options, {"result": "partial" if summary.partial else "created", **asdict(summary)}, lines)
    return PARTIAL if summary.partial else OK


def _list(settings: Settings, options: argparse.Namespace) -> int:
    found = settings.store().backups()
    _say(options, [_plain(backup) for backup in found], [_line(backup) for backup in found] or ["there are none"])
    return OK if all(backup.state in (State.GOOD, State.OLD) for backup in found) else NOT_AUTHENTIC


def _verify(settings: Settings, options: argparse.Namespace) -> int:
    store = settings.store()
    wanted = [backup.name for backup in store.backups()] if options.all else [_named(store, options.name)]
    results, status = [], OK
    for name in wanted:
        problem = ""
        try:
            with extract.verified(store, name):
                pass
        except BackupError as error:
            problem, status = str(error), max(status, error.status)
        results.append({"name": name, "result": "not good" if problem else "good", "problem": problem})
    _say(options, results, [f"{found['name']}: {found['problem'] or 'good'}" for found in results])
    return status


def _restore(settings: Settings, options: argparse.Namespace) -> int:
    if options.unproven:
        return _restore_unproven(settings, options)
    store = settings.store()
    name = _named(store, options.name)
    with extract.verified(store, name) as (found, archive):
        extract.extract(found, archive, options.to)
        summary = found.summary
    lines = [f"{name} of {summary.began} is in {options.to}", *_warnings(summary.warnings)]
    _say(options, {"result": "restored", "to": str(options.to), **asdict(summary)}, lines)
    return PARTIAL if summary.partial else OK


def _restore_unproven(settings: Settings, options: argparse.Namespace) -> int:
    with extract.unproven(settings.store(), options.name) as archive:
        room = extract.Limits(size=shutil.disk_usage(options.to.parent).free)
        extract.extract_unproven(archive, options.to, room)
    lines = [f"{options.name} is in {options.to}; nothing proves what it is: look at it before anybody uses it"]
    _say(options, {"result": "restored", "to": str(options.to), "name": options.name, "proven": False}, lines)
    return OK


def _prune(settings: Settings, options: argparse.Namespace) -> int:
    store = settings.store()
    with store.locked(options.wait) as ledger:
        good = {found.name: found for found in store.good()}
        # Nothing old goes before something new has shown that it is whole.
        with extract.verified(store, list(good)[-1]):
            now = datetime.now(timezone.utc)
        made = [retention.Made.of(found.summary) for found in good.values() if found.summary]
        decision = retention.decide(made, {name: found.retention for name, found in settings.sets.items()}, now)
        for name in () if options.dry_run else decision.remove:
            store.remove(good[name], ledger, names.stamp(now))
    lines = [
        *(f"{name}  {'would go' if options.dry_run else 'removed'}" for name in decision.remove),
        *(f"{name}  stays: {', '.join(reasons)}" for name, reasons in decision.keep.items()),
    ]
    _say(options, {"removed": decision.remove, "kept": decision.keep, "dry_run": options.dry_run}, lines)
    return OK


def _rotate(settings: Settings, options: argparse.Namespace) -> int:
    file, day = settings.paths.keyring, datetime.now(timezone.utc).strftime("%Y-%m-%d")
    with lock(settings.paths.state_dir, options.wait):
        keys = keyring.load(file).rotated(day) if file.exists() else keyring.new(day)
        keyring.save(keys, file)
    lines = [f"{keys.signer} signs from now on; {file} has {len(keys.masters)} keys: keep a copy of it elsewhere"]
    _say(options, {"result": "rotated", "signer": keys.signer, "keys": sorted(keys.masters)}, lines)
    return OK


_COMMANDS = {
    "create": _create,
    "list": _list,
    "verify": _verify,
    "restore": _restore,
    "prune": _prune,
    "key-rotate": _rotate,
}


def _named(store: Store, name: str) -> str:
    return store.good()[-1].name if name == _NEWEST else name


def _line(backup: Backup) -> str:
    if backup.summary is None:
        return f"{backup.name}  {backup.state.value.upper()}: {backup.problem}"
    summary = backup.summary
    notes = "  PARTIAL" if summary.partial else ""
    return f"{backup.name}  {backup.state.value}  {_size(summary.size)}{notes}"


def _plain(backup: Backup) -> dict[str, Any]:
    summary = None if backup.summary is None else asdict(backup.summary)
    return {"name": backup.name, "state": backup.state.value, "problem": backup.problem, "summary": summary}


def _warnings(warnings: Sequence[str]) -> list[str]:
    return [f"warning: {names.shown(text)}" for text in warnings]


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _failed(text: str, status: int, options: argparse.Namespace) -> int:
    if options.json:
        _print({"result": "failed", "error": text})
    else:
        sys.stderr.write(f"panelctl: {text}\n")
    return status


def _say(options: argparse.Namespace, value: Mapping[str, Any] | Sequence[Any], lines: Sequence[str]) -> None:
    if options.json:
        _print(value)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))


def _print(value: Mapping[str, Any] | Sequence[Any]) -> None:
    json.dump(value, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")
