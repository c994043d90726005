# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The operations on backups that panelctl and the modules offer. Their results are recorded for the status."""

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
    """The result of verifying a backup; the problem is empty if the backup is good."""

    name: str
    problem: str = ""
    status: int = 0


class BackupService:
    """The backups of a host.

    :param wait: seconds to wait for another run.
    """

    def __init__(self, settings: Settings, report_progress: Progress = SILENT, wait: float = 0.0) -> None:
        self.settings = settings
        self._report_progress = report_progress
        self._wait = wait
        self._runs = RunHistory(settings.paths.state_dir, settings.paths.textfile_dir)

    @property
    def store(self) -> Store:
        """The store, with the current keyring.

        :raises BackupError: there is no keyring.
        """
        return self.settings.store()

    def create(self, set_name: str) -> Summary:
        """Create a backup of a set.

        :raises BackupError: no backup was created, and existing ones are unchanged.
        """
        sources = self.settings.sources_of(set_name)
        with self._recorded_run(f"create {set_name}") as record_size:
            self._settle_interrupted()
            summary = create.create(
                self.store, sources, set_name, wait=self._wait, report_progress=self._report_progress
            )
            record_size(summary.size)
        return summary

    def newest(self, set_name: str = "") -> Summary | None:
        """Return the newest good backup.

        :param set_name: only consider this set; empty for all.
        """
        good = [found.summary for found in self.store.backups() if found.state is State.GOOD and found.summary]
        return next((summary for summary in reversed(good) if set_name in ("", summary.set)), None)

    def all(self) -> list[Backup]:
        """Return all backups that exist or should exist, oldest first."""
        return self.store.backups()

    def status(self) -> Status:
        """Return the status of all backups."""
        return status.collect(self.store, self.settings.sources, self.settings.objectives, self._runs.read())

    def verify(self, name: str = "") -> Verdict:
        """Verify every byte of a backup.

        :param name: name of the backup; empty for the newest one.
        :raises BackupError: there is no backup.
        """
        store, found = self.store, Verdict("")
        with contextlib.suppress(_FindingError), self._recorded_run("verify"):
            found = self._verify(store, name or store.good(include_broken=True)[-1].name)
            _raise_first_problem([found])
        return found

    def verify_all(self) -> tuple[list[Verdict], list[Backup]]:
        """Verify every byte of all backups.

        :returns: the verdicts, and the backups of the first format, which cannot be verified.
        """
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
                # A backup that was pruned meanwhile is not reported.
                if not verdict.problem or name not in before or name in store.catalog().existing():
                    found.append(verdict)
            _raise_first_problem(found)
        return found, old

    def _verify(self, store: Store, name: str) -> Verdict:
        try:
            with extract.verified_backup(store, name, self._report_progress) as (found, _manifest):
                info.check(store.path(name, names.INFO), found.summary, store.keys)
                return Verdict(name)
        except BackupError as error:
            return Verdict(name, str(error), error.status)

    def plan(self, name: str = "", only: Sequence[str] = ()) -> Plan:
        """Decide which source a restore in place takes from which backup; see `restore.plan`."""
        self._refuse_old(name)
        return restore.plan(self.store, self.settings.sources, name, only)

    def restore(self, plan: Plan, *, snapshot: bool = True) -> RestoreResult:
        """Restore in place; see `restore.Restorer`."""
        with self._recorded_run("restore"):
            return self._restorer().restore(plan, snapshot=snapshot, wait=self._wait)

    def select_members(self, name: str = "", only: Sequence[str] = ()) -> dict[str, dict[str, str]]:
        """Return the archive member of each source to extract, by the name of the backup that contains it.

        :param name: name of a backup; empty for the newest one of each source.
        :param only: names of the sources; empty for all.
        :raises BackupError: there is no such backup or source.
        """
        store = self.store
        self._refuse_old(name)
        if name:
            return {name: _members(store, name, only)}
        wanted = restore.plan(store, self.settings.sources, only=only, to_folder=True)
        return {name: _members(store, name, [source.name for source in group]) for name, group in wanted.items()}

    def extract(self, name: str, to: Path, only: Sequence[str] = ()) -> dict[str, Summary]:
        """Verify backups, and extract sources to a new folder; see `select_members`.

        :returns: the backup that each source came from, by the source's name.
        """
        store, wanted = self.store, self.select_members(name, only)
        with contextlib.ExitStack() as opened:
            # Verify all of them before the first one is parsed.
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
        """Return the result of an extraction, in the form of a restore in place.

        :param found: the return value of `extract`.
        """
        return RestoreResult.of(found, restore.skipped_newer_backups(self.store, found))

    def settle(self) -> str:
        """Settle an interrupted restore; returns what was done, in words, or nothing."""
        return self._restorer().settle(wait=self._wait)

    def _settle_interrupted(self) -> None:
        # An unhealthy panel must prevent neither a backup nor a drill.
        with contextlib.suppress(UnhealthyError):
            if done := self.settle():
                self._report_progress(done)

    def drill(self) -> Report:
        """Run a drill; see `drill.drill`.

        :raises BusyError: a restore or another drill is in progress.
        """
        store = self.store
        self._settle_interrupted()
        with contextlib.suppress(_FindingError), self._recorded_run("drill"), restore.scratch_lock(store, self._wait):
            app = App(self.settings.paths.panelctl)
            report = drill.drill(
                store, self.settings.sources, app, self.settings.objectives, report_progress=self._report_progress
            )
            if report.problem:
                raise _FindingError(report.problem)
        return report

    def prune(self, *, dry_run: bool = False) -> retention.Decision:
        """Remove the backups that the retention does not keep.

        The newest backup, and the newest one of each set that loses a backup, are verified first.

        :param dry_run: whether to change nothing. The result includes the pending removal of an interrupted prune.
        :raises BackupError: one of these is not good, or the clock has jumped; nothing was removed.
        """
        store = self.store
        if dry_run:
            with lock(store.state_dir, self._wait):
                decision = self._decide(store, store.good(include_broken=True))
                pending = store.catalog().pending_removal
                return replace(decision, remove=[pending.name, *decision.remove]) if pending else decision
        with self._recorded_run("prune"), store.locked(self._wait) as catalog:
            backups = store.good(include_broken=True)
            decision, now = self._decide(store, backups), names.timestamp(datetime.now(timezone.utc))
            for found in backups:
                if found.name in decision.remove:
                    store.remove(found, catalog, now)
        return decision

    def _decide(self, store: Store, backups: Sequence[Backup]) -> retention.Decision:
        candidates = [
            retention.Candidate.of(found.summary, adopted=found.adopted, broken=found.state is State.BROKEN)
            for found in backups
            if found.summary
        ]
        policies = {name: found.retention for name, found in self.settings.sets.items()}
        decision = retention.decide(candidates, policies, datetime.now(timezone.utc), pins.read(store))
        # No old backup is removed before a newer one of its set is verified.
        newest = {found.set: found.name for found in candidates}
        shrinking = {newest[found.set] for found in candidates if found.name in decision.remove}
        for name in sorted({backups[-1].name, *shrinking}):
            with extract.verified_backup(store, name, self._report_progress):
                pass
        return decision

    def find_removable(self, name: str) -> Backup:
        """Return a backup that may be removed, whatever its state.

        :raises BackupError: there is no such backup, or it must not be removed.
        """
        return self._removable(name, self.store)

    def remove(self, name: str) -> Backup:
        """Remove a backup, and record that in the catalog; see `find_removable`.

        A backup whose files are missing is only recorded as removed.
        """
        store = self.store
        with store.locked(self._wait) as catalog:
            found = self._removable(name, store)
            store.remove(found, catalog, names.timestamp(datetime.now(timezone.utc)))
        return found

    def _removable(self, name: str, store: Store) -> Backup:
        backups = {found.name: found for found in store.backups()}
        if name not in backups:
            raise BackupError(f"{name}: no such backup; see `panelctl backup list`")
        if name in pins.read(store):
            raise BackupError(f"{name} is pinned: run `panelctl backup unpin {name}` first")
        good = [found.summary for found in backups.values() if found.state is State.GOOD and found.summary]
        set_name = next((summary.set for summary in good if summary.name == name), "")
        if (
            set_name in self.settings.sets
            and set_name != names.BEFORE_RESTORE
            and [summary.set for summary in good].count(set_name) == 1
        ):
            raise BackupError(
                f"{name} is the last good backup of the set {set_name}: run `panelctl backup create {set_name}` first"
            )
        return backups[name]

    def push(self, remote: Remote) -> PushResult:
        """Send the good backups that the remote lacks; see `upload.push`."""
        with contextlib.suppress(_FindingError), self._recorded_run("push"):
            done = upload.push(self.store, remote, wait=self._wait, report_progress=self._report_progress)
            if done.problems:
                raise _FindingError(f"{done.problems[0].name}: {done.problems[0].text}")
        return done

    def pin(self, name: str, *, pinned: bool) -> bool:
        """Pin or unpin a backup; returns whether that changed anything."""
        store = self.store
        with store.locked(self._wait):
            return pins.set_pinned(store, name, pinned=pinned)

    def rotate_key(self) -> keyring.Keyring:
        """Add a key to the keyring, and sign with it from now on; returns the keyring."""
        paths, day = self.settings.paths, datetime.now(timezone.utc).strftime("%Y-%m-%d")
        with lock(paths.state_dir, self._wait):
            keys = keyring.load(paths.keyring).rotated(day) if paths.keyring.exists() else keyring.generate(day)
            keyring.save(keys, paths.keyring)
        return keys

    def _restorer(self) -> Restorer:
        return Restorer(self.store, self.settings.sources, App(self.settings.paths.panelctl), self._report_progress)

    def _refuse_old(self, name: str) -> None:
        if names.is_old_name(name) and name in [found.name for found in self.all() if found.state is State.OLD]:
            raise BackupError(
                f"{name} has the first format, which cannot be verified: extract it with `panelctl backup restore "
                f"{name} --to FOLDER --unproven`, and examine it"
            )

    @contextlib.contextmanager
    def _recorded_run(self, kind: str) -> Iterator[Callable[[int], None]]:
        """Record the result of a run; yield the function that records the size of what it created."""
        began: float | None = time.monotonic()
        sizes, problem = [0], ""
        try:
            yield sizes.append
        except BusyError:
            # The run did not begin. If that goes on, the status reports the age of the newest backup.
            began = None
            raise
        except KeyboardInterrupt:
            problem = "interrupted"
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
        raise BackupError(f"{name} has no source {', '.join(unknown)}; its sources are {', '.join(members)}")
    return {source: members[source] for source in only or members}


def _raise_first_problem(found: Sequence[Verdict]) -> None:
    if bad := [verdict.problem for verdict in found if verdict.problem]:
        raise _FindingError(bad[0])


class _FindingError(BackupError):
    """The run itself worked, but its result is a problem, which is recorded as a failure."""
