# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The commands of `panelctl backup`. Each one prints its result, and returns the exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..._host import exit_codes
from ..._host.command_line import NON_INTERACTIVE
from ..actions import extract
from ..errors import BackupError, NotConfirmedError, UsageError
from ..service.backups import BackupService
from ..storage.store import State
from . import render
from .render import Screen


def _create(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    summary = service.create(options.set)
    result: dict[str, Any] = {"result": "partial" if summary.partial else "created", **asdict(summary)}
    lines = [f"{summary.name}: {summary.members} member{'s' * (summary.members != 1)}, {render.size(summary.size)}"]
    lines += render.warnings(summary.warnings)
    worst = exit_codes.UNHEALTHY if summary.partial else exit_codes.SUCCESS
    if options.prune:
        try:
            result["removed"] = service.prune().remove
            lines += [f"{name}  removed" for name in result["removed"]]
        except BackupError as error:
            # The backup was created even so.
            result["prune_error"], worst = str(error), error.status
            lines.append(f"not pruned: {error}")
    screen.show(result, lines)
    return worst


def _list(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    found = service.all()
    screen.show([render.plain(backup) for backup in found], [render.line(b) for b in found] or [render.NO_BACKUPS])
    return (
        exit_codes.SUCCESS if all(backup.state in (State.GOOD, State.OLD) for backup in found) else exit_codes.REFUSED
    )


def _status(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    found = service.status()
    screen.show(asdict(found), render.status(found))
    return exit_codes.UNHEALTHY if found.problems else exit_codes.SUCCESS


def _verify(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    found, old = service.verify_all() if options.all else ([service.verify(options.name)], [])
    results = [{"name": v.name, "result": "not good" if v.problem else "good", "problem": v.problem} for v in found]
    results += [{"name": backup.name, "result": "left out", "problem": backup.problem} for backup in old]
    lines = [f"{verdict.name}: {verdict.problem or 'good'}" for verdict in found]
    lines += [f"{backup.name}: left out: {backup.problem}" for backup in old]
    screen.show(results, lines or [render.NO_BACKUPS])
    return max((verdict.status for verdict in found), default=exit_codes.SUCCESS)


def _restore(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    if options.to is None:
        return _restore_in_place(service, options, screen)
    if options.unproven:
        return _restore_unproven(service, options, screen)
    found = service.extract(options.name, options.to, options.only)
    done = service.restore_result(found)
    lines = [
        f"extracted {source} from {summary.name} ({summary.began}) to {options.to}" for source, summary in found.items()
    ]
    # For a named backup the JSON is its summary; otherwise it tells which backup each source came from.
    result = asdict(next(iter(found.values()), done) if options.name else done)
    screen.show({"result": "restored", "to": str(options.to), **result}, [*lines, *render.warnings(done.warnings)])
    return exit_codes.UNHEALTHY if done.partial else exit_codes.SUCCESS


def _restore_in_place(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    if options.unproven:
        raise UsageError("an archive of the first format cannot be verified: extract it with --to, and examine it")
    plan = service.plan(options.name, options.only)
    sources = "; ".join(f"{', '.join(source.name for source in group)} from {name}" for name, group in plan.items())
    if not options.yes and not screen.ask(f"This stops the panel and restores {sources}. Continue?"):
        raise NotConfirmedError(f"not confirmed: this would restore {sources}. {NON_INTERACTIVE}")
    done = service.restore(plan, snapshot=not options.no_snapshot)
    lines = [f"restored {source} from {name}" for source, name in done.sources.items()]
    if done.snapshot:
        lines.append(f"the replaced data is in {done.snapshot}")
    screen.show({"result": "restored", **asdict(done)}, [*lines, *render.warnings(done.warnings)])
    return exit_codes.UNHEALTHY if done.partial else exit_codes.SUCCESS


def _restore_unproven(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    if not options.name:
        raise UsageError("--unproven needs the name of an archive of the first format")
    with extract.unproven_archive(service.store, options.name) as archive:
        extract.extract_unproven(archive, options.to, extract.ArchiveLimits.for_archive(archive, options.to.parent))
    lines = [f"extracted {options.name} to {options.to}; it could not be verified: examine it before you use it"]
    screen.show({"result": "restored", "to": str(options.to), "name": options.name, "proven": False}, lines)
    return exit_codes.SUCCESS


def _settle(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    done = service.settle()
    screen.show({"result": "settled" if done else "unchanged", "done": done}, [done or "nothing to settle"])
    return exit_codes.SUCCESS


def _drill(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    report = service.drill()
    screen.show({**asdict(report), "result": report.result}, render.drill(report))
    return exit_codes.FAILED if report.problem else exit_codes.SUCCESS


def _prune(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    decision = service.prune(dry_run=options.dry_run)
    lines = [
        *(f"{name}  {'would be removed' if options.dry_run else 'removed'}" for name in decision.remove),
        *(f"{name}  kept: {', '.join(reasons)}" for name, reasons in decision.keep.items()),
    ]
    screen.show({"removed": decision.remove, "kept": decision.keep, "dry_run": options.dry_run}, lines)
    return exit_codes.SUCCESS


def _remove(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    found = service.find_removable(options.name)
    if not options.yes and not screen.ask(f"{render.line(found)}\nThis removes the backup permanently. Continue?"):
        raise NotConfirmedError(f"not confirmed: this would remove {found.name}. {NON_INTERACTIVE}")
    result = {"result": "removed", **render.plain(service.remove(found.name))}
    screen.show(result, [f"{found.name}  removed"])
    return exit_codes.SUCCESS


def _pin(service: BackupService, options: argparse.Namespace, screen: Screen) -> int:
    pinned = options.command == "pin"
    changed = service.pin(options.name, pinned=pinned)
    word = "is pinned" if pinned else "is not pinned"
    screen.show({"result": "changed" if changed else "unchanged", "name": options.name}, [f"{options.name} {word}"])
    return exit_codes.SUCCESS


def _rotate(service: BackupService, _options: argparse.Namespace, screen: Screen) -> int:
    keys, file = service.rotate_key(), service.settings.paths.keyring
    lines = [f"{keys.signer} signs new backups; {file} has {len(keys.masters)} keys: keep a copy of it off this host"]
    screen.show({"result": "rotated", "signer": keys.signer, "keys": sorted(keys.masters)}, lines)
    return exit_codes.SUCCESS


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
