# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Bring backups back from elsewhere, and take those in that another machine made, of which this one has the place.

Nothing that the remote gives is believed: the manifest comes first, then so many bytes as it has signed, and what is
not what was signed never gets the name of a backup.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
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

_TEMPORARY = ".fetched-"  # another one than that of backups that are being made, which `create` sweeps away
_LOCK_WAIT = 3600.0  # seconds to wait for a backup that is being made, once hours of fetching are at stake
#: For the name of a backup.
NEWEST = "newest"


@dataclass(frozen=True)
class FetchRequest:
    """What is to be fetched.

    :param name: of one, or NEWEST; empty for all. What was pruned is neither the newest nor one of all.
    :param adopt: whether the catalog is to know it from now on.
    :param again: whether it may be one that was pruned here; the catalog knows it again from now on.
    :param wait: seconds to wait for another one that is at work.
    """

    name: str = NEWEST
    adopt: bool = False
    again: bool = False
    wait: float = 0.0


@dataclass
class FetchResult:
    """What was done.

    :param here: those that were here already.
    :param unknown: those that the catalog knows nothing of; they want to be adopted.
    """

    fetched: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def fetch(store: Store, remote: Remote, request: FetchRequest, report_progress: Progress = SILENT) -> FetchResult:
    """Bring backups back.

    :param report_progress: is told what is being fetched.
    :raises BackupError: the remote does not answer, or has no such backup.
    """
    with upload.transfer_lock(store, request.wait) as state:
        return _Fetcher(store, remote, state, request, report_progress).run()


def adopt(store: Store, wanted: Sequence[str] = (), *, wait: float = 0.0) -> FetchResult:
    """Take backups in that are here, and that the catalog does not know: those of a machine of which this has the place.

    :param wanted: names; empty for all that it does not know.
    :raises BusyError: another one is at work.
    """
    done = FetchResult()
    known = store.catalog()
    proven: list[tuple[Summary, str]] = []
    for name in wanted or _unknown_backups(store, known):
        with _collecting_problem(done, name), _open_authentic(store, name) as found:
            proven.append((found.summary, found.sha256))
    with store.locked(wait) as catalog:
        for summary, sha256 in sorted(proven, key=lambda one: sort_key(one[0].began, one[0].seq, adopted=True)):
            store.adopt(summary, sha256, catalog)
            (done.adopted if known.created(summary.name) is None else done.here).append(summary.name)
    return done


class _Fetcher:
    def __init__(
        self, store: Store, remote: Remote, state: UploadState, request: FetchRequest, report_progress: Progress
    ) -> None:
        self._store = store
        self._remote = remote
        self._state = state
        self._request = request
        self._report_progress = report_progress
        self._there: dict[str, int] = {}
        self._done = FetchResult()

    def run(self) -> FetchResult:
        self._there = self._remote.files()
        wanted = self._select()
        self._store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        for name in wanted:
            with _collecting_problem(self._done, name):
                try:
                    self._fetch(name)
                finally:
                    self._sweep()
        return self._done

    def _select(self) -> list[str]:
        name = self._request.name
        whole = {found for found in upload.backup_names(self._there) if self._extension(found) is not None}
        # By name is by time; that the name is right, each manifest says.
        found = sorted(whole - set(self._store.catalog().pruned()))
        if name:
            found = found[-1:] if name == NEWEST else [name] if name in whole else []
        if not found:
            what = "backup that was not pruned" if name in ("", NEWEST) else name
            raise BackupError(f"{self._remote.remote} has no {what}; `panelctl backup remote` says what it has")
        return found

    def _fetch(self, name: str) -> None:
        if self._is_present(name):
            self._done.here.append(name)
            return
        with self._fetch_manifest(name) as found:
            self._store.check_catalog(found, self._store.catalog(), allow_pruned=self._request.again)
            self._fetch_archive(found)
            with self._store.locked(max(self._request.wait, _LOCK_WAIT)) as catalog:
                # It may have been pruned meanwhile.
                self._store.check_catalog(found, catalog, allow_pruned=self._request.again)
                self._store.rename_into_place(name, self._temporary)
                self._done.fetched.append(name)
                if name not in catalog.existing():
                    self._register(found, catalog)

    def _is_present(self, name: str) -> bool:
        """Tell whether it is here already, every byte; what is here and broken is fetched anew."""
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
        """Deal with one that is not among those that should be here."""
        if self._request.adopt or self._request.again:
            self._store.adopt(found.summary, found.sha256, catalog)
            self._done.adopted.append(found.summary.name)
        else:
            self._done.unknown.append(found.summary.name)

    @contextlib.contextmanager
    def _fetch_manifest(self, name: str) -> Iterator[Manifest]:
        path = self._temporary(name, names.MANIFEST)
        sent = self._download(name, names.MANIFEST, self._free_space())
        with open_file(path, BackupError(f"{path}: it is gone")) as stream:
            found = self._store.read_signed(name, stream)
            self._note(name, names.MANIFEST, sent)
            yield found

    def _fetch_archive(self, found: Manifest) -> None:
        summary = found.summary
        if self._free_space() < summary.size:
            raise BackupError(
                f"{self._store.folder}: there is no room for the {summary.size >> 20} MiB of {summary.name}"
            )
        self._report_progress(f"fetching {summary.name}")

        sent = self._download(summary.name, names.ARCHIVE, summary.size)
        with extract.verified_archive(self._temporary(summary.name, names.ARCHIVE), found):
            self._note(summary.name, names.ARCHIVE, sent)
        # What the remote has of it is signed by nobody: it is made anew.
        create.write_file(self._temporary(summary.name, names.INFO), info.render(summary, self._store.keys))

    def _download(self, name: str, suffix: str, limit: int) -> Meter:
        """Fetch a file; gives what it is there. Who sends more than the limit fills no disk."""
        file, path = upload.remote_name(name, suffix, self._extension(name) or ""), self._temporary(name, suffix)

        def take(content: Stream) -> None:
            path.unlink(missing_ok=True)
            with create_file(path) as descriptor:
                for data in Meter().over(content, limit):
                    write_all(descriptor, data)
                os.fsync(descriptor)

        if file not in self._there:
            raise NotAuthenticError(f"{file}: {self._remote.remote} has the manifest of this backup, and not this")
        return self._remote.read(file, take)

    def _free_space(self) -> int:
        return shutil.disk_usage(self._store.folder).free - RESERVED_SPACE

    def _extension(self, name: str) -> str | None:
        return upload.find_extension(name, self._there, (names.MANIFEST,))

    def _note(self, name: str, suffix: str, sent: Meter) -> None:
        # That is what it is there, so that a push from here has nothing to ask.
        file = upload.remote_name(name, suffix, self._extension(name) or "")
        self._state.record(file, RemoteFile(sent.size, sent.sha256))

    def _temporary(self, name: str, suffix: str) -> Path:
        return self._store.folder / f"{_TEMPORARY}{name}{suffix}"

    def _sweep(self) -> None:
        """Remove what did not become a backup, now or in a run that died."""
        for left in self._store.folder.glob(f"{_TEMPORARY}*"):
            left.unlink()


@contextlib.contextmanager
def _open_authentic(store: Store, name: str) -> Iterator[Manifest]:
    """Open a backup that is here and what was signed, every byte, and of which the catalog knows nothing else."""
    path = store.path(name, names.MANIFEST)
    with open_file(path, BackupError(f"{name}: there is no such backup")) as stream:
        found = store.read_signed(name, stream)
        store.check_catalog(found, store.catalog())
        with extract.verified_archive(store.path(name, names.ARCHIVE), found):
            yield found


@contextlib.contextmanager
def _collecting_problem(done: FetchResult, name: str) -> Iterator[None]:
    """Let one that fails not keep the others."""
    try:
        yield
    except BackupError as error:
        done.problems.append(Problem(name, str(error), error.status))


def _unknown_backups(store: Store, catalog: Catalog) -> list[str]:
    # One that seems to continue what is written down is good, and may be a machine's before this one all the same.
    proven = (*SIGNED, State.REPLAYED)
    return [found.name for found in store.backups() if found.state in proven and catalog.created(found.name) is None]
