# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Bring backups back to where they came from: loaded and proven beside the present, which is kept until all is well.

What a run that dies leaves is undone by whoever comes next: the record says how far it may have come, and each origin
finds out how far it did.
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
_NO_ROOM = "Make room, or restore elsewhere with --to."
#: In the name of one that could not be removed.
_LEFTOVER = ".left-"
#: How far a run may have come: nothing but loaded beside the present; taking its place; done, but for tidying up.
_LOADING, _SWAPPING, _DONE = "loading", "swapping", "done"

#: What is brought back from which backup.
Plan = Mapping[str, Sequence[Source]]


@dataclass(frozen=True)
class RestoreResult:
    """What was brought back.

    :param sources: which backup each one came from, by its name.
    :param snapshot: name of the backup of what there was before; empty where there was nothing, or none was wanted.
    :param warnings: of all these backups, and of newer ones that are broken.
    :param partial: whether something is missing in what was brought back.
    """

    sources: dict[str, str]
    snapshot: str = ""
    warnings: tuple[str, ...] = ()
    partial: bool = False

    @classmethod
    def of(cls, found: Mapping[str, Summary], broken: Sequence[str], before: Summary | None = None) -> RestoreResult:
        """Return what was brought back of these backups, by the names of the sources.

        :param broken: what `skipped_newer_backups` says.
        :param before: the snapshot.
        """
        backups = {backup.name: backup for backup in (*found.values(), *([before] if before else []))}
        return cls(
            {source: backup.name for source, backup in found.items()},
            before.name if before else "",
            (*(f"{name}: {warning}" for name, backup in backups.items() for warning in backup.warnings), *broken),
            any(backup.partial for backup in found.values()),
        )


@dataclass(frozen=True)
class _RecoveryRecord:
    """What whoever comes next has to know.

    :param staging: the folder of each origin, by its name, in the order in which they take their places.
    :param stopped: whether the panel was running, and has to again.
    """

    phase: str
    staging: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


def plan(
    store: Store, origins: Sequence[Source], name: str = "", only: Sequence[str] = (), *, to_folder: bool = False
) -> Plan:
    """Decide what is brought back from which backup.

    :param name: of a backup; empty for the newest one of each origin.
    :param only: names of the origins that are wanted; all, where there are none.
    :param to_folder: whether it does not come to its place, so that there are more that can be brought back.
    :raises BackupError: there is no such backup or origin, or none that could be brought back.
    """
    if unknown := sorted(set(only) - {origin.name for origin in origins}):
        known = ", ".join(origin.name for origin in origins)
        raise BackupError(f"there is no source {', '.join(unknown)}; there are {known}")
    wanted = [origin for origin in origins if (origin.name in only if only else origin.in_place or to_folder)]
    if refused := [origin.name for origin in wanted if not (origin.in_place or to_folder)]:
        raise BackupError(f"{', '.join(refused)}: this is brought back with --to only, and what you need of it by hand")
    # Of one that is named, who reads its archive says whether that is what was signed.
    usable = SIGNED if name else (State.GOOD,)
    good = [found for found in store.backups() if found.state in usable and found.summary]
    if name:
        good = [found for found in good if found.name == name]
    else:
        good = [found for found in good if found.summary and found.summary.set != names.BEFORE_RESTORE]
    found: dict[str, list[Source]] = {}
    for origin in wanted:
        having = [backup.name for backup in good if backup.summary and _contains(backup.summary.sources, origin)]
        if having:
            found.setdefault(having[-1], []).append(origin)
        elif only:
            raise BackupError(f"{origin.name}: {'it is not in ' + name if name else 'no good backup has it'}")
    if not found:
        # Says what is wrong with the one that was asked for.
        with store.open(name) if name else contextlib.nullcontext():
            pass
        raise BackupError(f"{store.folder}: no good backup has what could be brought back; `panelctl backup list`")
    return found


class Restorer:
    """Brings back, and undoes what an earlier run has left.

    :param origins: all of this host.
    """

    def __init__(self, store: Store, origins: Sequence[Source], app: App, report_progress: Progress = SILENT) -> None:
        self._store = store
        self._origins = origins
        self._app = app
        self._report_progress = report_progress

    def restore(self, wanted: Plan, *, snapshot: bool = True, wait: float = 0.0) -> RestoreResult:
        """Bring back.

        :param snapshot: whether to back up first what there is; it is kept in any case until the panel is healthy.
        :param wait: seconds to wait for another run.
        :raises BackupError: it cannot be; the present is in its place again.
        """
        with self._store.locked(wait) as catalog, scratch_lock(self._store, wait):
            # An unhealthy panel may be why somebody restores.
            with contextlib.suppress(UnhealthyError):
                for text in self._settle():
                    self._report_progress(text)
            attempt = _Attempt(self._store, wanted, self._app, self._report_progress)
            try:
                attempt.load()
                return attempt.swap(catalog, snapshot=snapshot)
            except BaseException as error:
                self._report_progress("putting the present back")
                try:
                    remains = self._settle()[1:]
                except UnhealthyError as another:
                    raise BackupError(f"{error}. {another}") from error
                except (BackupError, OSError) as another:
                    raise BackupError(
                        f"{error}. And the present could not be put back: {another}. Mend that, and then "
                        "`panelctl backup settle`."
                    ) from error
                if remains and isinstance(error, BackupError):
                    raise type(error)("; ".join([str(error), *remains])) from error
                for text in remains:
                    self._report_progress(text)
                raise

    def settle(self, *, wait: float = 0.0) -> str:
        """Undo what a restore that died has left, or tidy up behind it; returns what was done, in words.

        :raises UnhealthyError: that was done, but the panel does not become healthy; nothing has to be tried again.
        :raises BackupError: the present cannot be put back; it can be tried again.
        """
        # Who could not once may be able to now; whatever else runs has no use for them.
        _remove_leftovers(self._store)
        if not is_interrupted(self._store) and not _partial_records(self._store):
            return ""
        with self._store.locked(wait), scratch_lock(self._store, wait):
            return "; ".join(self._settle())

    def _settle(self) -> list[str]:
        """Settle, for who holds both locks; returns what was done, if anything, and then what else is to be told."""
        for file in _partial_records(self._store):
            file.unlink()
        record = _read_record(self._store)
        if record is None:
            return []
        known = {origin.name: origin for origin in self._origins}
        if gone := sorted(set(record.staging) - set(known)):
            raise BackupError(
                f"a restore of {', '.join(gone)} died, and the settings have no such source any more: put it back there"
            )
        mine = [(known[name], Path(folder)) for name, folder in record.staging.items()]
        remains = []
        if record.phase == _SWAPPING:
            for origin, staging in reversed(mine):
                remains += origin.swap_back(staging)
            # Or the next one would put back what was tidied up by then.
            _write_record(self._store, replace(record, phase=_LOADING))
        remains += _clean_up(self._store, mine, forget=record.phase == _DONE)
        done = "put the present back" if record.phase == _SWAPPING else "removed what was left over"
        try:
            if record.stopped:
                self._app.start()
        except BackupError as error:
            # Backups go on without it, and a deploy, which may mend it, wants one.
            _remove_record(self._store)
            text = (
                f"The present is in its place, but the panel is not healthy on it: {error}. Mend that, and then "
                "`panelctl start`"
            )
            raise UnhealthyError("; ".join([text, *remains])) from None
        _remove_record(self._store)
        return [done, *remains]


@contextlib.contextmanager
def scratch_lock(store: Store, wait: float) -> Iterator[None]:
    """Keep all others away from what databases are loaded into.

    :raises BusyError: somebody else is at it.
    """
    with locks.held(store.state_dir / "scratch.lock", wait, "restore or drill"):
        yield


def is_interrupted(store: Store) -> bool:
    """Whether a restore died, and nobody has settled that yet."""
    return (store.state_dir / _RECOVERY_FILE).exists()


def skipped_newer_backups(store: Store, found: Mapping[str, Summary]) -> list[str]:
    """Say which backups are newer than those of which sources were taken, and broken.

    :param found: the backup that each source was taken of, by its name.
    """
    there = store.backups()
    age = {backup.name: number for number, backup in enumerate(there)}
    told = []
    for backup in there:
        if backup.state is State.BROKEN and backup.summary and backup.summary.set != names.BEFORE_RESTORE:
            newer = [source.name for source in backup.summary.sources if source.name in found]
            if any(age.get(found[name].name, 0) < age[backup.name] for name in newer):
                told.append(f"{backup.name} is newer, and nothing was taken of it: {backup.problem}")
    return told


class Extracted(NamedTuple):
    """A source, and the backup that it is of."""

    source: SourceRecord
    backup: Summary


def verify_and_extract(
    store: Store, wanted: Plan, staging: Mapping[str, Path], report_progress: Progress
) -> dict[str, Extracted]:
    """Verify the backups of a plan, and extract what is wanted of them; returns the sources by name.

    :param staging: the folder for each origin, by its name.
    :raises NotAuthenticError: one is not what was signed.
    """
    found = {}
    for name, origins in wanted.items():
        with extract.verified_backup(store, name, report_progress) as (manifest, archive):
            sources = {source.name: source for source in manifest.summary.sources}
            for root in {staging[origin.name] for origin in origins}:
                members = [sources[origin.name].member for origin in origins if staging[origin.name] == root]
                check_free_space(root, manifest.summary.content_size, "what is loaded beside the present", _NO_ROOM)
                extract.extract(manifest, archive, root / name, members, report_progress)
                for member in members:
                    (root / member).parent.mkdir(mode=0o700, exist_ok=True)
                    (root / name / member).rename(root / member)
                shutil.rmtree(root / name)
            found.update({origin.name: Extracted(sources[origin.name], manifest.summary) for origin in origins})
    return found


class _Attempt:
    """One restore, which holds both locks."""

    def __init__(self, store: Store, wanted: Plan, app: App, report_progress: Progress) -> None:
        self._store = store
        self._plan = wanted
        self._app = app
        self._report_progress = report_progress
        # Databases last, whose file may be in a folder that takes its place before; and a folder before those in it.
        mine = (origin for group in wanted.values() for origin in group)
        self._origins = sorted(mine, key=lambda origin: (origin.is_database, origin.folder))
        default = store.state_dir / _STAGING
        self._staging = {origin.name: origin.staging_folder(default) for origin in self._origins}
        self._found: dict[str, Extracted] = {}

    def load(self) -> None:
        """Bring all beside the present, and see that it is what went in."""
        self._record(_LOADING)
        for root in set(self._staging.values()):
            root.mkdir(mode=0o700)
        self._found = verify_and_extract(self._store, self._plan, self._staging, self._report_progress)
        for origin in self._origins:
            self._report_progress(f"loading {origin.name}")
            origin.load(self._found[origin.name].source, self._staging[origin.name])

    def swap(self, catalog: Catalog, *, snapshot: bool) -> RestoreResult:
        """Exchange them with the present, while the panel stands still."""
        found = {source: brought.backup for source, brought in self._found.items()}
        broken = skipped_newer_backups(self._store, found)
        self._report_progress("stopping the panel")
        # Written down before, because whoever comes next has to start it if this dies in between.
        self._record(_LOADING, stopped=True)
        stopped = self._app.stop()
        self._record(_LOADING, stopped=stopped)
        before = self._snapshot(catalog) if snapshot else None
        self._record(_SWAPPING, stopped=stopped)
        for origin in self._origins:
            self._report_progress(f"exchanging {origin.name}")
            origin.swap(self._staging[origin.name])
        if stopped:
            self._report_progress("starting the panel")
            self._app.start()
        self._record(_DONE)
        remains = _clean_up(
            self._store, [(origin, self._staging[origin.name]) for origin in self._origins], forget=True
        )
        _remove_record(self._store)
        done = RestoreResult.of(found, broken, before)
        return replace(done, warnings=(*done.warnings, *remains))

    def _snapshot(self, catalog: Catalog) -> Summary | None:
        present = [origin for origin in self._origins if origin.exists()]
        if not present:
            return None
        return create.create_locked(self._store, present, names.BEFORE_RESTORE, catalog, self._report_progress)

    def _record(self, phase: str, *, stopped: bool = False) -> None:
        staging = {origin.name: str(self._staging[origin.name]) for origin in self._origins}
        _write_record(self._store, _RecoveryRecord(phase, staging, stopped))


def _read_record(store: Store) -> _RecoveryRecord | None:
    file = store.state_dir / _RECOVERY_FILE
    try:
        return _RecoveryRecord(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BackupError(
            f"{file} is not what a restore wrote ({error}); look at it, and at the folders it names"
        ) from None


def _partial_records(store: Store) -> list[Path]:
    """What is left of a record that somebody was killed at writing."""
    return list(store.state_dir.glob(f".{_RECOVERY_FILE}.*"))


def leftovers(store: Store) -> list[Path]:
    """Return the folders that are left over and could not be removed."""
    return [folder for folder in _leftover_folders(store).values() if folder.exists()]


def _leftover_folders(store: Store) -> dict[Path, Path]:
    """Those folders, by what they are known by: themselves, or a link to one elsewhere."""
    found = store.state_dir.glob(f"{_STAGING}{_LEFTOVER}*")
    return {entry: entry.readlink() if entry.is_symlink() else entry for entry in found}


def _remove_leftovers(store: Store) -> None:
    for entry, folder in _leftover_folders(store).items():
        # What still cannot be removed was told of, is named by the status, and is no reason to do nothing else.
        shutil.rmtree(folder, ignore_errors=True)
        if entry.is_symlink() and not folder.exists():
            entry.unlink(missing_ok=True)


def _write_record(store: Store, record: _RecoveryRecord) -> None:
    durable.write(store.state_dir / _RECOVERY_FILE, json.dumps(asdict(record)))


def _remove_record(store: Store) -> None:
    (store.state_dir / _RECOVERY_FILE).unlink()
    durable.sync(store.state_dir)


def _clean_up(store: Store, mine: Sequence[tuple[Source, Path]], *, forget: bool) -> list[str]:
    """Remove what is not needed any more; returns what could not be, in words."""
    for origin, _ in mine:
        if forget:
            origin.discard_previous()
        origin.discard_loaded()
    roots = {staging for _, staging in mine}
    return [remains for root in roots if root.exists() and (remains := _remove_staging(store, root))]


def _remove_staging(store: Store, staging: Path) -> str:
    try:
        shutil.rmtree(staging)
    except OSError as error:
        # Somebody has made a file immutable, say. All is well but for the room, and the name is needed again.
        ending = f"{_LEFTOVER}{uuid.uuid4()}"
        aside, here = staging.with_name(f"{staging.name}{ending}"), store.state_dir / f"{_STAGING}{ending}"
        staging.rename(aside)
        if aside != here:
            here.symlink_to(aside)
        return f"{aside} is left over and could not be removed ({error.strerror}): remove it"
    return ""


def _contains(sources: Sequence[SourceRecord], origin: Source) -> bool:
    return any((source.name, source.kind) == (origin.name, origin.kind) for source in sources)
