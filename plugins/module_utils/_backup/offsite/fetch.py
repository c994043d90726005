# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Fetch backups from a remote, and adopt backups of another host that this one replaces.

The remote is not trusted: the manifest is fetched and verified first, then no more bytes than it has signed. A file
that is not what was signed never gets the name of a backup.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..actions import create, extract
from ..archive import names
from ..archive.compression import write_all
from ..archive.manifest import Manifest, Summary
from ..errors import BackupError, NotAuthenticError
from ..programs import Stream
from ..progress import SILENT, Progress
from ..storage import info
from ..storage.catalog import Catalog, sort_key
from ..storage.store import RESERVED_SPACE, SIGNED, State, Store, create_file, open_file
from . import upload
from .remote import Meter, Remote
from .upload import Problem, RemoteFile, UploadState

_TEMPORARY = ".fetched-"  # not the prefix of backups in progress, which `create` removes as leftovers
_LOCK_WAIT = 3600.0  # seconds to wait for a running backup, rather than lose hours of fetching
#: Stands for the newest backup instead of a name.
NEWEST = "newest"


@dataclass(frozen=True)
class FetchRequest:
    """The parameters of a fetch.

    :param name: name of a backup, or NEWEST; empty for all. NEWEST and all leave out backups that were pruned here.
    :param adopt: whether to add fetched backups to the catalog.
    :param again: whether to fetch a backup that was pruned here, and to add it to the catalog again.
    :param wait: seconds to wait for another transfer, backup, restore or prune.
    """

    name: str = NEWEST
    adopt: bool = False
    again: bool = False
    wait: float = 0.0


@dataclass
class FetchResult:
    """The result of a fetch, as names of backups.

    :param here: those that this host already had.
    :param unknown: those that are not in the catalog; they have to be adopted before they count.
    """

    fetched: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def fetch(store: Store, remote: Remote, request: FetchRequest, report_progress: Progress = SILENT) -> FetchResult:
    """Fetch backups.

    :raises BackupError: the remote does not answer, or has no such backup.
    """
    with upload.transfer_lock(store, request.wait) as state:
        return _Fetcher(store, remote, state, request, report_progress).run()


def adopt(store: Store, requested: Sequence[str] = (), *, wait: float = 0.0) -> FetchResult:
    """Add backups in the folder to the catalog: those of a host that this one replaces.

    :param requested: names; empty for all that the catalog does not contain.
    :raises BusyError: another backup, restore or prune is in progress.
    """
    done = FetchResult()
    known = store.catalog()
    verified: list[tuple[Summary, str]] = []
    for name in requested or _unknown_backups(store, known):
        with _collecting_problem(done, name), _open_authentic(store, name) as found:
            verified.append((found.summary, found.sha256))
    with store.locked(wait) as catalog:
        for summary, sha256 in sorted(verified, key=lambda one: sort_key(one[0].began, one[0].seq, adopted=True)):
            store.adopt(summary, sha256, catalog)
            (done.adopted if known.created(summary.name) is None else done.here).append(summary.name)
    return done


class _Fetcher:
    """One fetch. The caller holds the lock of transfers."""

    def __init__(
        self, store: Store, remote: Remote, state: UploadState, request: FetchRequest, report_progress: Progress
    ) -> None:
        self._store = store
        self._remote = remote
        self._state = state
        self._request = request
        self._report_progress = report_progress
        self._files: Mapping[str, int] = {}
        self._done = FetchResult()

    def run(self) -> FetchResult:
        self._files = self._remote.files()
        selected = self._select()
        self._store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_temporary_files()
        for name in selected:
            with _collecting_problem(self._done, name):
                try:
                    self._fetch(name)
                finally:
                    self._remove_temporary_files()
        return self._done

    def _select(self) -> list[str]:
        """Return the names of the requested backups, oldest first.

        :raises BackupError: the remote has none of them.
        """
        name = self._request.name
        complete = {found for found in upload.backup_names(self._files) if self._extension(found) is not None}
        # Names sort by time. Whether a name is true is checked with the manifest.
        found = sorted(complete - set(self._store.catalog().pruned()))
        if name:
            found = found[-1:] if name == NEWEST else [name] if name in complete else []
        if not found:
            what = "backup that was not pruned" if name in ("", NEWEST) else name
            raise BackupError(f"{self._remote.remote} has no {what}; see `panelctl backup remote`")
        return found

    def _fetch(self, name: str) -> None:
        if self._is_present(name):
            self._done.here.append(name)
            return
        with self._fetch_manifest(name) as found:
            self._store.check_catalog(found, self._store.catalog(), allow_pruned=self._request.again)
            self._fetch_archive(found)
            with self._store.locked(max(self._request.wait, _LOCK_WAIT)) as catalog:
                # Checked again, because the backup may have been pruned meanwhile.
                self._store.check_catalog(found, catalog, allow_pruned=self._request.again)
                self._store.rename_into_place(name, self._temporary)
                self._done.fetched.append(name)
                if name not in catalog.existing():
                    self._register(found, catalog)

    def _is_present(self, name: str) -> bool:
        """Tell whether this host already has the backup, verified completely. A broken one is fetched again."""
        try:
            with _open_authentic(self._store, name) as found:
                if self._store.catalog().created(name) is None:
                    with self._store.locked(self._request.wait) as catalog:
                        self._register(found, catalog)
        except NotAuthenticError:
            return False
        except BackupError:
            if self._store.path(name, names.MANIFEST).exists():
                raise
            return False
        return True

    def _register(self, found: Manifest, catalog: Catalog) -> None:
        """Adopt a backup that is not in the catalog, if requested; otherwise list it as unknown."""
        if self._request.adopt or self._request.again:
            self._store.adopt(found.summary, found.sha256, catalog)
            self._done.adopted.append(found.summary.name)
        else:
            self._done.unknown.append(found.summary.name)

    @contextlib.contextmanager
    def _fetch_manifest(self, name: str) -> Iterator[Manifest]:
        path = self._temporary(name, names.MANIFEST)
        stored = self._download(name, names.MANIFEST, self._free_space())
        with open_file(path, BackupError(f"{path}: the file is missing")) as stream:
            found = self._store.read_signed(name, stream)
            self._record(name, names.MANIFEST, stored)
            yield found

    def _fetch_archive(self, found: Manifest) -> None:
        summary = found.summary
        if self._free_space() < summary.size:
            raise BackupError(
                f"{self._store.folder}: not enough free space for {summary.name}, which has {summary.size >> 20} MiB"
            )
        self._report_progress(f"fetching {summary.name}")

        stored = self._download(summary.name, names.ARCHIVE, summary.size)
        with extract.verified_archive(self._temporary(summary.name, names.ARCHIVE), found):
            self._record(summary.name, names.ARCHIVE, stored)
        # The remote's copy of this file is not signed by the manifest, so it is created again.
        create.write_file(self._temporary(summary.name, names.INFO), info.render(summary, self._store.keys))

    def _download(self, name: str, suffix: str, limit: int) -> Meter:
        """Download a file to its temporary path; returns the size and hash of the file as stored.

        :param limit: the largest acceptable size in bytes, so that the remote cannot fill the disk.
        """
        file, path = upload.remote_name(name, suffix, self._extension(name) or ""), self._temporary(name, suffix)

        def take(content: Stream) -> None:
            path.unlink(missing_ok=True)
            with create_file(path) as descriptor:
                for data in Meter().over(content, limit):
                    write_all(descriptor, data)
                os.fsync(descriptor)

        if file not in self._files:
            raise NotAuthenticError(f"{self._remote.remote} has the manifest of {name}, but not {file}")
        return self._remote.read(file, take)

    def _free_space(self) -> int:
        return shutil.disk_usage(self._store.folder).free - RESERVED_SPACE

    def _extension(self, name: str) -> str | None:
        return upload.find_extension(name, self._files, (names.MANIFEST,))

    def _record(self, name: str, suffix: str, stored: Meter) -> None:
        # Saves the next push from reading the file back.
        file = upload.remote_name(name, suffix, self._extension(name) or "")
        self._state.record(file, RemoteFile(stored.size, stored.sha256))

    def _temporary(self, name: str, suffix: str) -> Path:
        return self._store.folder / f"{_TEMPORARY}{name}{suffix}"

    def _remove_temporary_files(self) -> None:
        """Remove files that did not become a backup, in this run or in one that was killed."""
        for leftover in self._store.folder.glob(f"{_TEMPORARY}*"):
            leftover.unlink()


@contextlib.contextmanager
def _open_authentic(store: Store, name: str) -> Iterator[Manifest]:
    """Open a local backup after verifying every byte, and that the catalog does not contradict it."""
    path = store.path(name, names.MANIFEST)
    with open_file(path, BackupError(f"{name}: no such backup")) as stream:
        found = store.read_signed(name, stream)
        store.check_catalog(found, store.catalog())
        with extract.verified_archive(store.path(name, names.ARCHIVE), found):
            yield found


@contextlib.contextmanager
def _collecting_problem(done: FetchResult, name: str) -> Iterator[None]:
    """Record the problem of one backup, so that the others go on."""
    try:
        yield
    except BackupError as error:
        done.problems.append(Problem(name, str(error), error.status))


def _unknown_backups(store: Store, catalog: Catalog) -> list[str]:
    # A good backup may also be unknown: one of the previous host that seems to continue this catalog.
    states = (*SIGNED, State.REPLAYED)
    return [found.name for found in store.backups() if found.state in states and catalog.created(found.name) is None]
