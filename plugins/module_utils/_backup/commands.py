# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What each command of panelctl backup does; each returns its exit status."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from . import create, drill, extract, keyring, names, pins, render, restore, retention, status
from .app import App
from .errors import BackupError
from .render import Screen
from .runs import Runs
from .settings import Settings
from .store import State, Store

OK, FAILED = 0, 1
PARTIAL, NOT_AUTHENTIC = 3, 4


def _create(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    def say(text: str) -> None:
        screen.say(f"backing up {text}")

    origins, store = settings.of(options.set), settings.store()
    with _noted(settings, f"create {options.set}") as note:
        _restorer(settings, screen).settle(wait=options.wait)
        summary = create.create(store, origins, options.set, wait=options.wait, say=say)
        note(summary.size)
    told: dict[str, Any] = {"result": "partial" if summary.partial else "created", **asdict(summary)}
    lines = [f"{summary.name}: {summary.members} members, {render.size(summary.size)}"]
    lines += render.warnings(summary.warnings)
    worst = PARTIAL if summary.partial else OK
    if options.prune:
        try:
            told["removed"] = _do_prune(settings, options.wait, dry_run=False).remove
            lines += [f"{name}  removed" for name in told["removed"]]
        except BackupError as error:
            # There is one more, all the same.
            told["prune_error"], worst = str(error), error.status
            lines.append(f"not pruned: {error}")
    screen.show(told, lines)
    return worst


def _list(settings: Settings, _options: argparse.Namespace, screen: Screen) -> int:
    found = settings.store().backups()
    screen.show([render.plain(backup) for backup in found], [render.line(b) for b in found] or ["there are none"])
    return OK if all(backup.state in (State.GOOD, State.OLD) for backup in found) else NOT_AUTHENTIC


def _status(settings: Settings, _options: argparse.Namespace, screen: Screen) -> int:
    found = status.look(settings.store(), settings.origins, settings.limits, _runs(settings).read())
    screen.show(asdict(found), render.status(found))
    return FAILED if found.problems else OK


def _verify(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    store = settings.store()
    wanted = [backup.name for backup in store.backups()] if options.all else [options.name or _newest(store)]
    results, worst = [], OK
    with contextlib.suppress(_FoundError), _noted(settings, "verify"):
        for name in wanted:
            problem = ""
            try:
                screen.say(f"verifying {name}")
                with extract.verified(store, name):
                    pass
            except BackupError as error:
                problem, worst = str(error), max(worst, error.status)
            results.append({"name": name, "result": "not good" if problem else "good", "problem": problem})
        if worst:
            raise _FoundError(next(found["problem"] for found in results if found["problem"]))
    screen.show(results, [f"{found['name']}: {found['problem'] or 'good'}" for found in results])
    return worst


def _restore(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    if options.to is None:
        return _restore_in_place(settings, options, screen)
    if options.unproven:
        return _restore_unproven(settings, options, screen)
    store = settings.store()
    name = options.name or _newest(store)
    with extract.verified(store, name) as (found, archive):
        summary = found.summary
        members = {source.name: source.member for source in summary.sources}
        if unknown := sorted(set(options.only) - set(members)):
            raise BackupError(f"{name} has no source {', '.join(unknown)}; it has {', '.join(members)}")
        screen.say(f"extracting {name}")
        extract.extract(found, archive, options.to, [members[source] for source in options.only or members])
    lines = [f"{name} of {summary.began} is in {options.to}", *render.warnings(summary.warnings)]
    screen.show({"result": "restored", "to": str(options.to), **asdict(summary)}, lines)
    return PARTIAL if summary.partial else OK


def _restore_in_place(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    if options.unproven:
        raise BackupError("nothing proves what an archive of the first format is: restore it with --to, and look at it")
    store = settings.store()
    wanted = restore.plan(store, settings.origins, options.name, options.only)
    sources = "; ".join(f"{', '.join(origin.name for origin in group)} from {name}" for name, group in wanted.items())
    if not options.yes and not screen.ask(f"This stops the panel and replaces its {sources}. Go on?"):
        raise BackupError(f"nothing was done: this would replace {sources}. Say --yes where nobody can be asked.")
    with _noted(settings, "restore"):
        done = _restorer(settings, screen).restore(wanted, snapshot=not options.no_snapshot, wait=options.wait)
    lines = [f"{source} is what {name} has" for source, name in done.sources.items()]
    if done.snapshot:
        lines.append(f"what there was before is {done.snapshot}")
    screen.show({"result": "restored", **asdict(done)}, [*lines, *render.warnings(done.warnings)])
    return OK


def _restore_unproven(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    with extract.unproven(settings.store(), options.name) as archive:
        room = extract.Limits(size=shutil.disk_usage(options.to.parent).free)
        extract.extract_unproven(archive, options.to, room)
    lines = [f"{options.name} is in {options.to}; nothing proves what it is: look at it before anybody uses it"]
    screen.show({"result": "restored", "to": str(options.to), "name": options.name, "proven": False}, lines)
    return OK


def _settle(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    done = _restorer(settings, screen).settle(wait=options.wait)
    screen.show({"result": "settled" if done else "unchanged", "done": done}, [done or "there is nothing to settle"])
    return OK


def _drill(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    store = settings.store()
    _restorer(settings, screen).settle(wait=options.wait)
    with contextlib.suppress(_FoundError), _noted(settings, "drill"):
        app = App(settings.paths.panelctl)
        report = drill.drill(store, settings.origins, app, settings.limits, say=screen.say)
        if report.problem:
            raise _FoundError(report.problem)
    screen.show({**asdict(report), "result": report.result}, render.drill(report))
    return FAILED if report.problem else OK


def _prune(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    decision = _do_prune(settings, options.wait, dry_run=options.dry_run)
    lines = [
        *(f"{name}  {'would go' if options.dry_run else 'removed'}" for name in decision.remove),
        *(f"{name}  stays: {', '.join(reasons)}" for name, reasons in decision.keep.items()),
    ]
    screen.show({"removed": decision.remove, "kept": decision.keep, "dry_run": options.dry_run}, lines)
    return OK


def _do_prune(settings: Settings, wait: float, *, dry_run: bool) -> retention.Decision:
    store = settings.store()
    with _noted(settings, "prune"), store.locked(wait) as ledger:
        good = {found.name: found for found in store.good()}
        # Nothing old goes before something new has shown that it is whole.
        with extract.verified(store, list(good)[-1]):
            now = datetime.now(timezone.utc)
        made = [retention.Made.of(found.summary) for found in good.values() if found.summary]
        policies = {name: found.retention for name, found in settings.sets.items()}
        decision = retention.decide(made, policies, now, pins.read(store))
        for name in () if dry_run else decision.remove:
            store.remove(good[name], ledger, names.stamp(now))
    return decision


def _pin(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    store, stays = settings.store(), options.command == "pin"
    with store.locked(options.wait):
        changed = pins.pin(store, options.name, stays=stays)
    word = "stays, whatever its age" if stays else "goes with the others of its age"
    screen.show({"result": "changed" if changed else "unchanged", "name": options.name}, [f"{options.name} {word}"])
    return OK


def _rotate(settings: Settings, options: argparse.Namespace, screen: Screen) -> int:
    file, day = settings.paths.keyring, datetime.now(timezone.utc).strftime("%Y-%m-%d")
    if file.exists():
        store = settings.store()
        with store.locked(options.wait):
            keys = keyring.load(file).rotated(day)
            keyring.save(keys, file)
    else:
        keys = keyring.new(day)
        keyring.save(keys, file)
    lines = [f"{keys.signer} signs from now on; {file} has {len(keys.masters)} keys: keep a copy of it elsewhere"]
    screen.show({"result": "rotated", "signer": keys.signer, "keys": sorted(keys.masters)}, lines)
    return OK


Command = Callable[[Settings, argparse.Namespace, Screen], int]
COMMANDS: dict[str, Command] = {
    "create": _create,
    "list": _list,
    "status": _status,
    "verify": _verify,
    "restore": _restore,
    "drill": _drill,
    "settle": _settle,
    "prune": _prune,
    "pin": _pin,
    "unpin": _pin,
    "key-rotate": _rotate,
}


class _FoundError(BackupError):
    """A run did what it should, and found something bad, which is its result."""


@contextlib.contextmanager
def _noted(settings: Settings, kind: str) -> Iterator[Callable[[int], None]]:
    """Write down how a run goes, for the status and for Prometheus; gives whom to tell the size of what was made."""
    began, sizes = time.monotonic(), [0]
    runs, problem = _runs(settings), ""
    try:
        yield sizes.append
    except BaseException as error:
        problem = str(error).partition("\n")[0] or type(error).__name__
        raise
    finally:
        runs.note(kind, problem, seconds=time.monotonic() - began, size=sizes[-1])
        with contextlib.suppress(BackupError):
            runs.export(next(reversed(drill.reports(settings.store())), None))


def _runs(settings: Settings) -> Runs:
    return Runs(settings.paths.state_dir, settings.paths.textfile_dir)


def _restorer(settings: Settings, screen: Screen) -> restore.Restorer:
    return restore.Restorer(settings.store(), settings.origins, App(settings.paths.panelctl), screen.say)


def _newest(store: Store) -> str:
    return store.good()[-1].name
