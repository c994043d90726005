# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Restore in place: load the data beside the live data, compare it, swap the two, and keep the live data until the end.

A recovery record says how far a restore has come. If the restore is interrupted, the next run reads the record and
rolls back; each source finds out itself how far its own swap came.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ..._host import durable
from ..archive import names
from ..archive.manifest import SourceRecord, Summary
from ..errors import BackupError, UnhealthyError
from ..progress import SILENT, Progress
from ..sources.source import Source
from ..storage import locks
from ..storage.catalog import Catalog
from ..storage.store import SIGNED, State, Store, check_free_space
from . import create, extract
from .app import App

_RECOVERY_FILE = "restore.json"
_STAGING = "restore"
_NO_SPACE = "Free some space, or extract to another file system with --to."
#: Part of the name of a staging folder that could not be removed.
_LEFTOVER = ".left-"
#: The phases of a restore: data is loaded beside the live data; sources are swapped; done except for cleaning up.
_LOADING, _SWAPPING, _DONE = "loading", "swapping", "done"

#: The sources to restore, by the name of the backup that each one comes from.
Plan = Mapping[str, Sequence[Source]]


@dataclass(frozen=True)
class RestoreResult:
    """The result of a restore.

    :param sources: the backup that each source came from, by the source's name.
    :param snapshot: name of the backup of the data that was replaced; empty if there was none to back up, or none was
        requested.
    :param warnings: the warnings of these backups, and newer backups that are broken.
    :param partial: whether a backup was partial, so that restored data is incomplete.
    """

    sources: dict[str, str]
    snapshot: str = ""
    warnings: tuple[str, ...] = ()
    partial: bool = False

    @classmethod
    def of(cls, found: Mapping[str, Summary], skipped: Sequence[str], snapshot: Summary | None = None) -> RestoreResult:
        """Return the result for the backups that sources were restored from, by the sources' names.

        :param skipped: the warnings of `skipped_newer_backups`.
        """
        backups = {backup.name: backup for backup in (*found.values(), *([snapshot] if snapshot else []))}
        return cls(
            {source: backup.name for source, backup in found.items()},
            snapshot.name if snapshot else "",
            (*(f"{name}: {warning}" for name, backup in backups.items() for warning in backup.warnings), *skipped),
            any(backup.partial for backup in found.values()),
        )


@dataclass(frozen=True)
class _RecoveryRecord:
    """The state of a restore, by which the next run settles it if it is interrupted.

    :param staging: the staging folder of each source, by its name, in the order in which sources are swapped.
    :param stopped: whether the restore stopped a running panel, which has to be started again.
    """

    phase: str
    staging: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


def plan(
    store: Store, sources: Sequence[Source], name: str = "", only: Sequence[str] = (), *, to_folder: bool = False
) -> Plan:
    """Decide which source is restored from which backup.

    :param name: name of a backup; empty for the newest good one of each source.
    :param only: names of the sources to restore; empty for all.
    :param to_folder: whether to extract to a folder, which also allows sources that cannot be restored in place.
    :raises BackupError: there is no such backup or source, or nothing to restore.
    """
    if unknown := sorted(set(only) - {source.name for source in sources}):
        known = ", ".join(source.name for source in sources)
        raise BackupError(f"there is no source {', '.join(unknown)}; the sources are {known}")
    wanted = [source for source in sources if (source.name in only if only else source.in_place or to_folder)]
    if refused := [source.name for source in wanted if not (source.in_place or to_folder)]:
        raise BackupError(
            f"{', '.join(refused)}: cannot be restored in place: extract it with --to, and copy what you need by hand"
        )
    # A broken backup may be named explicitly, because its archive is verified before anything is extracted.
    usable = SIGNED if name else (State.GOOD,)
    good = [found for found in store.backups() if found.state in usable and found.summary]
    if name:
        good = [found for found in good if found.name == name]
    else:
        good = [found for found in good if found.summary and found.summary.set != names.BEFORE_RESTORE]
    found: dict[str, list[Source]] = {}
    for source in wanted:
        having = [backup.name for backup in good if backup.summary and _contains(backup.summary.sources, source)]
        if having:
            found.setdefault(having[-1], []).append(source)
        elif only:
            problem = f"{name} does not contain it" if name else "no good backup contains it"
            raise BackupError(f"{source.name}: {problem}")
    if not found:
        # Opening the named backup raises the error that tells what is wrong with it.
        with store.open(name) if name else contextlib.nullcontext():
            pass
        raise BackupError(f"{store.folder}: no good backup contains these sources; see `panelctl backup list`")
    return found


class Restorer:
    """Restores backups in place, and settles interrupted restores.

    :param sources: all sources of this host.
    """

    def __init__(self, store: Store, sources: Sequence[Source], app: App, report_progress: Progress = SILENT) -> None:
        self._store = store
        self._sources = sources
        self._app = app
        self._report_progress = report_progress

    def restore(self, plan: Plan, *, snapshot: bool = True, wait: float = 0.0) -> RestoreResult:
        """Restore in place.

        :param snapshot: whether to back up the live data first. It is kept until the panel is healthy in any case.
        :param wait: seconds to wait for another run.
        :raises BackupError: the restore failed, and the live data was rolled back.
        """
        with self._store.locked(wait) as catalog, scratch_lock(self._store, wait):
            # The panel may be unhealthy because of the data that this restore replaces.
            with contextlib.suppress(UnhealthyError):
                for text in self._settle():
                    self._report_progress(text)
            attempt = _Attempt(self._store, plan, self._app, self._report_progress)
            try:
                attempt.load()
                return attempt.swap(catalog, snapshot=snapshot)
            except BaseException as error:
                self._report_progress("rolling back")
                try:
                    remains = self._settle()[1:]
                except UnhealthyError as another:
                    raise BackupError(f"{error}. {another}") from error
                except (BackupError, OSError) as another:
                    raise BackupError(
                        f"{error}. And the rollback failed: {another}. Solve that, and then run "
                        "`panelctl backup settle`."
                    ) from error
                if remains and isinstance(error, BackupError):
                    raise type(error)("; ".join([str(error), *remains])) from error
                for text in remains:
                    self._report_progress(text)
                raise

    def settle(self, *, wait: float = 0.0) -> str:
        """Roll back an interrupted restore, or clean up after one that had finished.

        :returns: what was done, in words; empty if there was nothing to settle.
        :raises UnhealthyError: the data is settled, but the panel does not become healthy; a retry is not needed.
        :raises BackupError: the rollback failed, and can be tried again.
        """
        # Retry earlier failed removals. No lock is needed, because nothing uses these folders.
        _remove_leftovers(self._store)
        if not is_interrupted(self._store) and not _partial_records(self._store):
            return ""
        with self._store.locked(wait), scratch_lock(self._store, wait):
            return "; ".join(self._settle())

    def _settle(self) -> list[str]:
        """Settle while the caller holds both locks; returns what was done, if anything, and then other messages."""
        for file in _partial_records(self._store):
            file.unlink()
        record = _read_record(self._store)
        if record is None:
            return []
        known = {source.name: source for source in self._sources}
        if gone := sorted(set(record.staging) - set(known)):
            raise BackupError(
                f"a restore of {', '.join(gone)} was interrupted, but the settings no longer have this source: add it "
                "again, and run `panelctl backup settle`"
            )
        staged = [(known[name], Path(folder)) for name, folder in record.staging.items()]
        remains = []
        if record.phase == _SWAPPING:
            for source, staging in reversed(staged):
                remains += source.swap_back(staging)
            # If this run is interrupted while it cleans up, the next one must not swap again.
            _write_record(self._store, replace(record, phase=_LOADING))
        remains += _clean_up(self._store, staged, finished=record.phase == _DONE)
        if record.phase == _SWAPPING:
            done = "rolled back an interrupted restore"
        else:
            done = "removed the leftovers of an interrupted restore"
        try:
            if record.stopped:
                self._app.start()
        except BackupError as error:
            # The restore counts as settled: backups must go on, and a deploy, which may repair the panel, needs one.
            _remove_record(self._store)
            text = (
                f"The live data is back in place, but the panel is not healthy: {error}. Solve that, and then run "
                "`panelctl start`"
            )
            raise UnhealthyError("; ".join([text, *remains])) from None
        _remove_record(self._store)
        return [done, *remains]


@contextlib.contextmanager
def scratch_lock(store: Store, wait: float) -> Iterator[None]:
    """Hold the lock on the databases that restores and drills load into.

    :raises BusyError: another restore or drill is in progress.
    """
    with locks.held(store.state_dir / "scratch.lock", wait, "restore or drill"):
        yield


def is_interrupted(store: Store) -> bool:
    """Tell whether a restore was interrupted and is not settled yet."""
    return (store.state_dir / _RECOVERY_FILE).exists()


def skipped_newer_backups(store: Store, found: Mapping[str, Summary]) -> list[str]:
    """Return a warning for each broken backup that is newer than the one a source was restored from.

    :param found: the backup that each source was restored from, by the source's name.
    """
    backups = store.backups()
    positions = {backup.name: number for number, backup in enumerate(backups)}
    skipped = []
    for backup in backups:
        if backup.state is State.BROKEN and backup.summary and backup.summary.set != names.BEFORE_RESTORE:
            shared = [record.name for record in backup.summary.sources if record.name in found]
            if any(positions.get(found[name].name, 0) < positions[backup.name] for name in shared):
                skipped.append(f"{backup.name} is newer, but was skipped: {backup.problem}")
    return skipped


class Extracted(NamedTuple):
    """The record of an extracted source, and the backup that it came from."""

    record: SourceRecord
    backup: Summary


def verify_and_extract(
    store: Store, plan: Plan, staging: Mapping[str, Path], report_progress: Progress
) -> dict[str, Extracted]:
    """Verify the backups of a plan, and extract its sources; returns the sources by name.

    :param staging: the folder to extract each source to, by its name.
    :raises NotAuthenticError: a backup is not what was signed.
    """
    found = {}
    for name, sources in plan.items():
        with extract.verified_backup(store, name, report_progress) as (manifest, archive):
            records = {record.name: record for record in manifest.summary.sources}
            for root in {staging[source.name] for source in sources}:
                members = [records[source.name].member for source in sources if staging[source.name] == root]
                check_free_space(root, manifest.summary.content_size, "the staging copy", _NO_SPACE)
                extract.extract(manifest, archive, root / name, members, report_progress)
                for member in members:
                    (root / member).parent.mkdir(mode=0o700, exist_ok=True)
                    (root / name / member).rename(root / member)
                shutil.rmtree(root / name)
            found.update({source.name: Extracted(records[source.name], manifest.summary) for source in sources})
    return found


class _Attempt:
    """One restore. The caller holds both locks."""

    def __init__(self, store: Store, plan: Plan, app: App, report_progress: Progress) -> None:
        self._store = store
        self._plan = plan
        self._app = app
        self._report_progress = report_progress
        # Folders first, outer ones before inner ones; then databases, whose file may be in one of these folders.
        planned = (source for group in plan.values() for source in group)
        self._sources = sorted(planned, key=lambda source: (source.is_database, source.folder))
        default = store.state_dir / _STAGING
        self._staging = {source.name: source.staging_folder(default) for source in self._sources}
        self._found: dict[str, Extracted] = {}

    def load(self) -> None:
        """Load the sources beside the live data, and compare them with what was backed up."""
        self._record(_LOADING)
        for root in set(self._staging.values()):
            root.mkdir(mode=0o700)
        self._found = verify_and_extract(self._store, self._plan, self._staging, self._report_progress)
        for source in self._sources:
            self._report_progress(f"loading {source.name}")
            source.load(self._found[source.name].record, self._staging[source.name])

    def swap(self, catalog: Catalog, *, snapshot: bool) -> RestoreResult:
        """Stop the panel, swap the loaded sources with the live data, and start the panel again."""
        found = {source: extracted.backup for source, extracted in self._found.items()}
        skipped = skipped_newer_backups(self._store, found)
        self._report_progress("stopping the panel")
        # Recorded before the panel stops: if this run is interrupted in between, the next one has to start it.
        self._record(_LOADING, stopped=True)
        stopped = self._app.stop()
        self._record(_LOADING, stopped=stopped)
        before = self._snapshot(catalog) if snapshot else None
        self._record(_SWAPPING, stopped=stopped)
        for source in self._sources:
            self._report_progress(f"swapping {source.name}")
            source.swap(self._staging[source.name])
        if stopped:
            self._report_progress("starting the panel")
            self._app.start()
        self._record(_DONE)
        staged = [(source, self._staging[source.name]) for source in self._sources]
        remains = _clean_up(self._store, staged, finished=True)
        _remove_record(self._store)
        done = RestoreResult.of(found, skipped, before)
        return replace(done, warnings=(*done.warnings, *remains))

    def _snapshot(self, catalog: Catalog) -> Summary | None:
        existing = [source for source in self._sources if source.exists()]
        if not existing:
            return None
        return create.create_locked(self._store, existing, names.BEFORE_RESTORE, catalog, self._report_progress)

    def _record(self, phase: str, *, stopped: bool = False) -> None:
        staging = {source.name: str(self._staging[source.name]) for source in self._sources}
        _write_record(self._store, _RecoveryRecord(phase, staging, stopped))


def _read_record(store: Store) -> _RecoveryRecord | None:
    file = store.state_dir / _RECOVERY_FILE
    try:
        return _RecoveryRecord(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BackupError(
            f"{file} is damaged ({error}), so an interrupted restore cannot be settled: look at it, and at the folders "
            "that it names"
        ) from None


def _partial_records(store: Store) -> list[Path]:
    """Return the temporary files of a run that was killed while it wrote the recovery record."""
    return list(store.state_dir.glob(f".{_RECOVERY_FILE}.*"))


def leftovers(store: Store) -> list[Path]:
    """Return the staging folders that could not be removed."""
    return [folder for folder in _leftover_folders(store).values() if folder.exists()]


def _leftover_folders(store: Store) -> dict[Path, Path]:
    """Return these folders by their entry in the state directory: the folder itself, or a symlink to it."""
    found = store.state_dir.glob(f"{_STAGING}{_LEFTOVER}*")
    return {entry: entry.readlink() if entry.is_symlink() else entry for entry in found}


def _remove_leftovers(store: Store) -> None:
    for entry, folder in _leftover_folders(store).items():
        # A removal that fails again must not stop a backup. The status still names the folder.
        shutil.rmtree(folder, ignore_errors=True)
        if entry.is_symlink() and not folder.exists():
            entry.unlink(missing_ok=True)


def _write_record(store: Store, record: _RecoveryRecord) -> None:
    durable.write(store.state_dir / _RECOVERY_FILE, json.dumps(asdict(record)))


def _remove_record(store: Store) -> None:
    (store.state_dir / _RECOVERY_FILE).unlink()
    durable.sync(store.state_dir)


def _clean_up(store: Store, staged: Sequence[tuple[Source, Path]], *, finished: bool) -> list[str]:
    """Remove the staging copies; returns a message for each folder that could not be removed.

    :param finished: whether the restore succeeded, so that the data it replaced is removed, too.
    """
    for source, _staging in staged:
        if finished:
            source.discard_previous()
        source.discard_loaded()
    roots = {staging for _source, staging in staged}
    return [remains for root in roots if root.exists() and (remains := _remove_staging(store, root))]


def _remove_staging(store: Store, staging: Path) -> str:
    try:
        shutil.rmtree(staging)
    except OSError as error:
        # A file in it may be immutable, for example. The next restore needs the folder's name, so it is renamed.
        ending = f"{_LEFTOVER}{uuid.uuid4()}"
        renamed, entry = staging.with_name(f"{staging.name}{ending}"), store.state_dir / f"{_STAGING}{ending}"
        staging.rename(renamed)
        if renamed != entry:
            entry.symlink_to(renamed)
        return f"{renamed} is left over and could not be removed ({error.strerror}): remove it"
    return ""


def _contains(records: Sequence[SourceRecord], source: Source) -> bool:
    return any((record.name, record.kind) == (source.name, source.kind) for record in records)
