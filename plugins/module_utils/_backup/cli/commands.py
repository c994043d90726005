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

from ..._host import exit_codes
from ..._host.command_line import NON_INTERACTIVE
from ..actions import extract
from ..errors import BackupError, NotConfirmedError, UsageError
from ..service.backups import Backups
from ..storage.store import State
from . import render
from .render import Screen


def _create(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    summary = backups.create(options.set)
    told: dict[str, Any] = {"result": "partial" if summary.partial else "created", **asdict(summary)}
    lines = [f"{summary.name}: {summary.members} member{'s' * (summary.members != 1)}, {render.size(summary.size)}"]
    lines += render.warnings(summary.warnings)
    worst = exit_codes.UNHEALTHY if summary.partial else exit_codes.SUCCESS
    if options.prune:
        try:
            told["removed"] = backups.prune().remove
            lines += [f"{name}  removed" for name in told["removed"]]
        except BackupError as error:
            # There is one more, all the same.
            told["prune_error"], worst = str(error), error.status
            lines.append(f"not pruned: {error}")
    screen.show(told, lines)
    return worst


def _list(backups: Backups, _options: argparse.Namespace, screen: Screen) -> int:
    found = backups.all()
    screen.show([render.plain(backup) for backup in found], [render.line(b) for b in found] or ["there are none"])
    return (
        exit_codes.SUCCESS if all(backup.state in (State.GOOD, State.OLD) for backup in found) else exit_codes.REFUSED
    )


def _status(backups: Backups, _options: argparse.Namespace, screen: Screen) -> int:
    found = backups.status()
    screen.show(asdict(found), render.status(found))
    return exit_codes.UNHEALTHY if found.problems else exit_codes.SUCCESS


def _verify(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    found, old = backups.verify_all() if options.all else ([backups.verify(options.name)], [])
    results = [{"name": v.name, "result": "not good" if v.problem else "good", "problem": v.problem} for v in found]
    results += [{"name": backup.name, "result": "left out", "problem": backup.problem} for backup in old]
    lines = [f"{verdict.name}: {verdict.problem or 'good'}" for verdict in found]
    lines += [f"{backup.name}: left out; it is {backup.problem}" for backup in old]
    screen.show(results, lines or ["there are none"])
    return max((verdict.status for verdict in found), default=exit_codes.SUCCESS)


def _restore(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    if options.to is None:
        return _restore_in_place(backups, options, screen)
    if options.unproven:
        return _restore_unproven(backups, options, screen)
    found = backups.extract(options.name, options.to, options.only)
    done = backups.restored(found)
    lines = [f"{source} of {summary.name}, {summary.began}, is in {options.to}" for source, summary in found.items()]
    # Of one that is named there is all to know; of several, which one each source came from.
    told = asdict(next(iter(found.values()), done) if options.name else done)
    screen.show({"result": "restored", "to": str(options.to), **told}, [*lines, *render.warnings(done.warnings)])
    return exit_codes.UNHEALTHY if done.partial else exit_codes.SUCCESS


def _restore_in_place(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    if options.unproven:
        raise UsageError("nothing proves what an archive of the first format is: restore it with --to, and look at it")
    wanted = backups.plan(options.name, options.only)
    sources = "; ".join(f"{', '.join(origin.name for origin in group)} from {name}" for name, group in wanted.items())
    if not options.yes and not screen.ask(f"This stops the panel and replaces its {sources}. Go on?"):
        raise NotConfirmedError(f"not confirmed: this would replace {sources}. {NON_INTERACTIVE}")
    done = backups.restore(wanted, snapshot=not options.no_snapshot)
    lines = [f"{source} is what {name} has" for source, name in done.sources.items()]
    if done.snapshot:
        lines.append(f"what there was before is {done.snapshot}")
    screen.show({"result": "restored", **asdict(done)}, [*lines, *render.warnings(done.warnings)])
    return exit_codes.UNHEALTHY if done.partial else exit_codes.SUCCESS


def _restore_unproven(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    if not options.name:
        raise UsageError("say which: --unproven wants the name of an archive of the first format")
    with extract.unproven(backups.store, options.name) as archive:
        extract.extract_unproven(archive, options.to, extract.Limits.of(archive, options.to.parent))
    lines = [f"{options.name} is in {options.to}; nothing proves what it is: look at it before anybody uses it"]
    screen.show({"result": "restored", "to": str(options.to), "name": options.name, "proven": False}, lines)
    return exit_codes.SUCCESS


def _settle(backups: Backups, _options: argparse.Namespace, screen: Screen) -> int:
    done = backups.settle()
    screen.show({"result": "settled" if done else "unchanged", "done": done}, [done or "there is nothing to settle"])
    return exit_codes.SUCCESS


def _drill(backups: Backups, _options: argparse.Namespace, screen: Screen) -> int:
    report = backups.drill()
    screen.show({**asdict(report), "result": report.result}, render.drill(report))
    return exit_codes.FAILED if report.problem else exit_codes.SUCCESS


def _prune(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    decision = backups.prune(dry_run=options.dry_run)
    lines = [
        *(f"{name}  {'would go' if options.dry_run else 'removed'}" for name in decision.remove),
        *(f"{name}  stays: {', '.join(reasons)}" for name, reasons in decision.keep.items()),
    ]
    screen.show({"removed": decision.remove, "kept": decision.keep, "dry_run": options.dry_run}, lines)
    return exit_codes.SUCCESS


def _remove(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    found = backups.removable(options.name)
    if not options.yes and not screen.ask(f"{render.line(found)}\nThis removes it for ever. Go on?"):
        raise NotConfirmedError(f"not confirmed: this would remove {found.name}. {NON_INTERACTIVE}")
    told = {"result": "removed", **render.plain(backups.remove(found.name))}
    screen.show(told, [f"{found.name}  removed"])
    return exit_codes.SUCCESS


def _pin(backups: Backups, options: argparse.Namespace, screen: Screen) -> int:
    stays = options.command == "pin"
    changed = backups.pin(options.name, stays=stays)
    word = "stays, whatever its age" if stays else "goes with the others of its age"
    screen.show({"result": "changed" if changed else "unchanged", "name": options.name}, [f"{options.name} {word}"])
    return exit_codes.SUCCESS


def _rotate(backups: Backups, _options: argparse.Namespace, screen: Screen) -> int:
    keys, file = backups.rotate(), backups.settings.paths.keyring
    lines = [f"{keys.signer} signs from now on; {file} has {len(keys.masters)} keys: keep a copy of it elsewhere"]
    screen.show({"result": "rotated", "signer": keys.signer, "keys": sorted(keys.masters)}, lines)
    return exit_codes.SUCCESS


Command = Callable[[Backups, argparse.Namespace, Screen], int]
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
