# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What each command of panelctl backup does, and what it prints; each returns its exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..actions import extract
from ..errors import BackupError
from ..service.backups import BackupService
from ..storage.store import State
from . import render
from .render import Screen

OK, FAILED = 0, 1
PARTIAL, NOT_AUTHENTIC = 3, 4


def _create(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    summary = service.create(options.set)
    told: dict[str, Any] = {"result": "partial" if summary.partial else "created", **asdict(summary)}
    lines = [f"{summary.name}: {summary.members} member{'s' * (summary.members != 1)}, {render.size(summary.size)}"]
    lines += render.warnings(summary.warnings)
    worst = PARTIAL if summary.partial else OK
    if options.prune:
        try:
            told["removed"] = service.prune().remove
            lines += [f"{name}  removed" for name in told["removed"]]
        except BackupError as error:
            # There is one more, all the same.
            told["prune_error"], worst = str(error), error.status
            lines.append(f"not pruned: {error}")
    screen.show(told, lines)
    return worst


def _list(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    found = service.all()
    screen.show([render.plain(backup) for backup in found], [render.line(b) for b in found] or ["there are none"])
    return OK if all(backup.state in (State.GOOD, State.OLD) for backup in found) else NOT_AUTHENTIC


def _status(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    found = service.status()
    screen.show(asdict(found), render.status(found))
    return FAILED if found.problems else OK


def _verify(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    found, old = service.verify_all() if options.all else ([service.verify(options.name)], [])
    results = [{"name": v.name, "result": "not good" if v.problem else "good", "problem": v.problem} for v in found]
    results += [{"name": backup.name, "result": "left out", "problem": backup.problem} for backup in old]
    lines = [f"{verdict.name}: {verdict.problem or 'good'}" for verdict in found]
    lines += [f"{backup.name}: left out; it is {backup.problem}" for backup in old]
    screen.show(results, lines or ["there are none"])
    return max((verdict.status for verdict in found), default=OK)


def _restore(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    if options.to is None:
        return _restore_in_place(service, options, screen)
    if options.unproven:
        return _restore_unproven(service, options, screen)
    found = service.extract(options.name, options.to, options.only)
    done = service.restore_result(found)
    lines = [f"{source} of {summary.name}, {summary.began}, is in {options.to}" for source, summary in found.items()]
    # Of one that is named there is all to know; of several, which one each source came from.
    told = asdict(next(iter(found.values()), done) if options.name else done)
    screen.show({"result": "restored", "to": str(options.to), **told}, [*lines, *render.warnings(done.warnings)])
    return PARTIAL if done.partial else OK


def _restore_in_place(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    if options.unproven:
        raise BackupError("nothing proves what an archive of the first format is: restore it with --to, and look at it")
    wanted = service.plan(options.name, options.only)
    sources = "; ".join(f"{', '.join(origin.name for origin in group)} from {name}" for name, group in wanted.items())
    if not options.yes and not screen.ask(f"This stops the panel and replaces its {sources}. Go on?"):
        raise BackupError(f"nothing was done: this would replace {sources}. Say --yes where nobody can be asked.")
    done = service.restore(wanted, snapshot=not options.no_snapshot)
    lines = [f"{source} is what {name} has" for source, name in done.sources.items()]
    if done.snapshot:
        lines.append(f"what there was before is {done.snapshot}")
    screen.show({"result": "restored", **asdict(done)}, [*lines, *render.warnings(done.warnings)])
    return PARTIAL if done.partial else OK


def _restore_unproven(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    if not options.name:
        raise BackupError("say which: --unproven wants the name of an archive of the first format")
    with extract.unproven_archive(service.store, options.name) as archive:
        extract.extract_unproven(archive, options.to, extract.ArchiveLimits.for_archive(archive, options.to.parent))
    lines = [f"{options.name} is in {options.to}; nothing proves what it is: look at it before anybody uses it"]
    screen.show({"result": "restored", "to": str(options.to), "name": options.name, "proven": False}, lines)
    return OK


def _settle(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    done = service.settle()
    screen.show({"result": "settled" if done else "unchanged", "done": done}, [done or "there is nothing to settle"])
    return OK


def _drill(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    report = service.drill()
    screen.show({**asdict(report), "result": report.result}, render.drill(report))
    return FAILED if report.problem else OK


def _prune(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    decision = service.prune(dry_run=options.dry_run)
    lines = [
        *(f"{name}  {'would go' if options.dry_run else 'removed'}" for name in decision.remove),
        *(f"{name}  stays: {', '.join(reasons)}" for name, reasons in decision.keep.items()),
    ]
    screen.show({"removed": decision.remove, "kept": decision.keep, "dry_run": options.dry_run}, lines)
    return OK


def _remove(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    found = service.find_removable(options.name)
    if not options.yes and not screen.ask(f"{render.line(found)}\nThis removes it for ever. Go on?"):
        raise BackupError(f"nothing was done: this would remove {found.name}. Say --yes where nobody can be asked.")
    told = {"result": "removed", **render.plain(service.remove(found.name))}
    screen.show(told, [f"{found.name}  removed"])
    return OK


def _pin(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    stays = options.command == "pin"
    changed = service.pin(options.name, stays=stays)
    word = "stays, whatever its age" if stays else "goes with the others of its age"
    screen.show({"result": "changed" if changed else "unchanged", "name": options.name}, [f"{options.name} {word}"])
    return OK


def _rotate(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    keys, file = service.rotate_key(), service.settings.paths.keyring
    lines = [f"{keys.signer} signs from now on; {file} has {len(keys.masters)} keys: keep a copy of it elsewhere"]
    screen.show({"result": "rotated", "signer": keys.signer, "keys": sorted(keys.masters)}, lines)
    return OK


Command = Callable[[BackupService, argparse.Namespace, Screen], int]
COMMANDS: dict[str, Command] = {
    "create": _create,
    "list": _list,
    "status": _status,
    "verify": _verify,
    "restore": _restore,
    "drill": _drill,
    "settle": _settle,
    "prune": _prune,
    "remove": _remove,
    "pin": _pin,
    "unpin": _pin,
    "key-rotate": _rotate,
}
