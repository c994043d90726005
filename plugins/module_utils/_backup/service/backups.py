# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The backups of this host: what panelctl and the modules ask for, each run noted for the status and for Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from ..actions import create, drill, extract, restore, status
from ..actions.app import App
from ..actions.drill import Report
from ..actions.restore import Plan, Restorer, RestoreResult
from ..actions.runs import RunHistory
from ..actions.status import Status
from ..archive import keyring, names
from ..archive.manifest import Summary
from ..errors import BackupError, BusyError, NotAuthenticError, UnhealthyError
from ..offsite import upload
from ..offsite.remote import Remote
from ..offsite.upload import PushResult
from ..progress import SILENT, Progress
from ..storage import info, pins, retention
from ..storage.store import Backup, State, Store, lock
from .settings import Settings


@dataclass(frozen=True)
class Verdict:
    """What verifying found of a backup; no problem, if it is good."""

    name: str
    problem: str = ""
    status: int = 0


class BackupService:
    """The backups of a host.

    :param report_progress: is told what is being done.
    :param wait: seconds to wait for another run.
    """

    def __init__(self, settings: Settings, report_progress: Progress = SILENT, wait: float = 0.0) -> None:
        self.settings = settings
        self._report_progress = report_progress
        self._wait = wait
        self._runs = RunHistory(settings.paths.state_dir, settings.paths.textfile_dir)

    @property
    def store(self) -> Store:
        """The store, with the keys that there are now.

        :raises BackupError: there are none.
        """
        return self.settings.store()

    def create(self, set_name: str) -> Summary:
        """Make a backup of a set.

        :raises BackupError: it cannot be made; those before are untouched.
        """
        origins = self.settings.sources_of(set_name)
        with self._recorded_run(f"create {set_name}") as note:
            self._settle_interrupted()
            summary = create.create(
                self.store, origins, set_name, wait=self._wait, report_progress=self._report_progress
            )
            note(summary.size)
        return summary

    def newest(self, set_name: str = "") -> Summary | None:
        """Return the newest good backup, of a set where one is named."""
        good = [found.summary for found in self.store.backups() if found.state is State.GOOD and found.summary]
        return next((summary for summary in reversed(good) if set_name in ("", summary.set)), None)

    def all(self) -> list[Backup]:
        """Return all that are there or should be, oldest first."""
        return self.store.backups()

    def status(self) -> Status:
        """Look at all of it."""
        return status.collect(self.store, self.settings.origins, self.settings.objectives, self._runs.read())

    def verify(self, name: str = "") -> Verdict:
        """Read every byte of a backup.

        :param name: which; empty for the newest one.
        :raises BackupError: there is none.
        """
        store, found = self.store, Verdict("")
        with contextlib.suppress(_FindingError), self._recorded_run("verify"):
            found = self._verify(store, name or store.good(include_broken=True)[-1].name)
            _raise_first_problem([found])
        return found

    def verify_all(self) -> tuple[list[Verdict], list[Backup]]:
        """Read every byte of all backups; returns also those of the first format, which nothing proves."""
        store = self.store
        before = store.catalog().existing()
        there = store.backups()
        old = [backup for backup in there if backup.state is State.OLD]
        found: list[Verdict] = []
        if len(old) == len(there):
            return found, old
        with contextlib.suppress(_FindingError), self._recorded_run("verify"):
            for name in (backup.name for backup in there if backup not in old):
                verdict = self._verify(store, name)
                # Of what is pruned meanwhile no word is said.
                if not verdict.problem or name not in before or name in store.catalog().existing():
                    found.append(verdict)
            _raise_first_problem(found)
        return found, old

    def _verify(self, store: Store, name: str) -> Verdict:
        try:
            with extract.verified_backup(store, name, self._report_progress) as (found, _):
                info.check(store.path(name, names.INFO), found.summary, store.keys)
                return Verdict(name)
        except BackupError as error:
            return Verdict(name, str(error), error.status)

    def plan(self, name: str = "", only: Sequence[str] = ()) -> Plan:
        """Decide what a restore in place brings back from which backup; see `restore.plan`."""
        self._refuse_old(name)
        return restore.plan(self.store, self.settings.origins, name, only)

    def restore(self, wanted: Plan, *, snapshot: bool = True) -> RestoreResult:
        """Bring back in place; see `restore.Restorer`."""
        with self._recorded_run("restore"):
            return self._restorer().restore(wanted, snapshot=snapshot, wait=self._wait)

    def select_members(self, name: str = "", only: Sequence[str] = ()) -> dict[str, dict[str, str]]:
        """Return the member of each source that is wanted, by the names of the backups that they are in.

        :param name: of a backup, with all that it has; empty for the newest one of each source of this host.
        :param only: names of the sources; all, where there are none.
        :raises BackupError: there is no such backup or source.
        """
        store = self.store
        self._refuse_old(name)
        if name:
            return {name: _members(store, name, only)}
        wanted = restore.plan(store, self.settings.origins, only=only, to_folder=True)
        return {name: _members(store, name, [origin.name for origin in group]) for name, group in wanted.items()}

    def extract(self, name: str, to: Path, only: Sequence[str] = ()) -> dict[str, Summary]:
        """Verify backups, and write what they have below a folder that is made for that; see `members`.

        :returns: the backup that each source came from, by its name.
        """
        store, wanted = self.store, self.select_members(name, only)
        with contextlib.ExitStack() as opened:
            # All of them before anything of one is parsed.
            parts = [
                extract.Part(
                    *opened.enter_context(extract.verified_backup(store, backup, self._report_progress)),
                    list(members.values()),
                )
                for backup, members in wanted.items()
            ]
            extract.extract_all(parts, to, self._report_progress)
        return {source: part.found.summary for part in parts for source in wanted[part.found.summary.name]}

    def restore_result(self, found: Mapping[str, Summary]) -> RestoreResult:
        """Return what was extracted, as it is told of a restore in place.

        :param found: what `extract` returns.
        """
        return RestoreResult.of(found, restore.skipped_newer_backups(self.store, found))

    def settle(self) -> str:
        """Undo what a restore that died has left; returns what was done, in words."""
        return self._restorer().settle(wait=self._wait)

    def _settle_interrupted(self) -> None:
        # Whether the panel is healthy is another matter.
        with contextlib.suppress(UnhealthyError):
            if done := self.settle():
                self._report_progress(done)

    def drill(self) -> Report:
        """Prove that the newest backups restore; see `drill.drill`.

        :raises BusyError: a restore or another drill is at work.
        """
        store = self.store
        self._settle_interrupted()
        with contextlib.suppress(_FindingError), self._recorded_run("drill"), restore.scratch_lock(store, self._wait):
            app = App(self.settings.paths.panelctl)
            report = drill.drill(
                store, self.settings.origins, app, self.settings.objectives, report_progress=self._report_progress
            )
            if report.problem:
                raise _FindingError(report.problem)
        return report

    def prune(self, *, dry_run: bool = False) -> retention.Decision:
        """Remove what retention does not keep, after verifying the newest backup, and that of each set that loses one.

        :param dry_run: whether to change nothing; what a prune that died was removing is among what would go.
        :raises BackupError: one of these is not good, or a clock has jumped; nothing is removed.
        """
        store = self.store
        if dry_run:
            with lock(store.state_dir, self._wait):
                decision, going = self._decide(store, store.good(include_broken=True)), store.catalog().pending_removal
                return replace(decision, remove=[going.name, *decision.remove]) if going else decision
        with self._recorded_run("prune"), store.locked(self._wait) as catalog:
            there = store.good(include_broken=True)
            decision, now = self._decide(store, there), names.timestamp(datetime.now(timezone.utc))
            for found in there:
                if found.name in decision.remove:
                    store.remove(found, catalog, now)
        return decision

    def _decide(self, store: Store, there: Sequence[Backup]) -> retention.Decision:
        made = [
            retention.Candidate.of(found.summary, adopted=found.adopted, broken=found.state is State.BROKEN)
            for found in there
            if found.summary
        ]
        policies = {name: found.retention for name, found in self.settings.sets.items()}
        decision = retention.decide(made, policies, datetime.now(timezone.utc), pins.read(store))
        # Nothing old goes before something new of its set has shown that it is whole.
        newest = {found.set: found.name for found in made}
        shrinking = {newest[found.set] for found in made if found.name in decision.remove}
        for name in sorted({there[-1].name, *shrinking}):
            with extract.verified_backup(store, name, self._report_progress):
                pass
        return decision

    def find_removable(self, name: str) -> Backup:
        """Find a backup that may be removed by its name, in whichever state it is.

        :raises BackupError: there is none, or it has to stay.
        """
        return self._removable(name, self.store)

    def remove(self, name: str) -> Backup:
        """Remove a backup, and write down that it is gone, which is all where it was lost; see `removable`."""
        store = self.store
        with store.locked(self._wait) as catalog:
            found = self._removable(name, store)
            store.remove(found, catalog, names.timestamp(datetime.now(timezone.utc)))
        return found

    def _removable(self, name: str, store: Store) -> Backup:
        there = {found.name: found for found in store.backups()}
        if name not in there:
            raise BackupError(f"{name}: there is no such backup; `panelctl backup list` says what there is")
        if name in pins.read(store):
            raise BackupError(f"{name}: it is pinned; `panelctl backup unpin {name}` lets it go")
        good = [found.summary for found in there.values() if found.state is State.GOOD and found.summary]
        mine = next((summary.set for summary in good if summary.name == name), "")
        if (
            mine in self.settings.sets
            and mine != names.BEFORE_RESTORE
            and [summary.set for summary in good].count(mine) == 1
        ):
            raise BackupError(f"{name}: it is the last good one of {mine}; `panelctl backup create {mine}` first")
        return there[name]

    def push(self, remote: Remote) -> PushResult:
        """Send the good backups that a remote lacks; see `upload.push`."""
        with contextlib.suppress(_FindingError), self._recorded_run("push"):
            done = upload.push(self.store, remote, wait=self._wait, report_progress=self._report_progress)
            if done.problems:
                raise _FindingError(f"{done.problems[0].name}: {done.problems[0].text}")
        return done

    def pin(self, name: str, *, stays: bool) -> bool:
        """Have a backup stay, or go; returns whether that is a change."""
        store = self.store
        with store.locked(self._wait):
            return pins.set_pinned(store, name, pinned=stays)

    def rotate_key(self) -> keyring.Keyring:
        """Have a new key sign from now on; returns the keyring."""
        paths, day = self.settings.paths, datetime.now(timezone.utc).strftime("%Y-%m-%d")
        with lock(paths.state_dir, self._wait):
            keys = keyring.load(paths.keyring).rotated(day) if paths.keyring.exists() else keyring.generate(day)
            keyring.save(keys, paths.keyring)
        return keys

    def _restorer(self) -> Restorer:
        return Restorer(self.store, self.settings.origins, App(self.settings.paths.panelctl), self._report_progress)

    def _refuse_old(self, name: str) -> None:
        if names.is_old_name(name) and name in [found.name for found in self.all() if found.state is State.OLD]:
            raise BackupError(
                f"{name}: nothing proves what an archive of the first format is. `panelctl backup restore {name} "
                "--to FOLDER --unproven`, and look at it"
            )

    @contextlib.contextmanager
    def _recorded_run(self, kind: str) -> Iterator[Callable[[int], None]]:
        """Write down how a run goes; gives whom to tell the size of what was made."""
        began: float | None = time.monotonic()
        sizes, problem = [0], ""
        try:
            yield sizes.append
        except BusyError:
            # It did not begin. When there was none for too long, its age tells.
            began = None
            raise
        except KeyboardInterrupt:
            problem = "it was interrupted"
            raise
        except BaseException as error:
            problem = str(error).partition("\n")[0] or type(error).__name__
            raise
        finally:
            if began is not None:
                self._runs.record(kind, problem, seconds=time.monotonic() - began, size=sizes[-1])
            with contextlib.suppress(NotAuthenticError, OSError):
                self._runs.export(next(reversed(drill.read_reports(self.store)), None))


def _members(store: Store, name: str, only: Sequence[str]) -> dict[str, str]:
    with store.open(name) as found:
        members = {source.name: source.member for source in found.summary.sources}
    if unknown := sorted(set(only) - set(members)):
        raise BackupError(f"{name} has no source {', '.join(unknown)}; it has {', '.join(members)}")
    return {source: members[source] for source in only or members}


def _raise_first_problem(found: Sequence[Verdict]) -> None:
    if bad := [verdict.problem for verdict in found if verdict.problem]:
        raise _FindingError(bad[0])


class _FindingError(BackupError):
    """A run did what it should, and found something bad, which is its result."""
