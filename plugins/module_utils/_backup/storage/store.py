# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The folder of backups, compared with the catalog: which backups exist, and which should."""

from __future__ import annotations

import contextlib
import enum
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ..._host import durable, nofollow
from ..archive import manifest, names
from ..archive.keyring import Keyring
from ..archive.manifest import Manifest, Summary
from ..errors import BackupError, NotAuthenticError
from . import locks
from .catalog import ADOPTED, CREATED, CREATING, PRUNED, PRUNING, Catalog, Record, sort_key
from .corrupt_markers import CorruptMarkers

#: Bytes of each disk that backups and restores leave free.
RESERVED_SPACE = 64 << 20
_REPAIR = "put the file back, or `panelctl backup remove` the backup"
_LOST = f"the manifest is missing, and the backup was not pruned: {_REPAIR}"


class State(enum.Enum):
    """The state of a backup, as far as it shows without reading the archive, or as an earlier reader has marked it."""

    GOOD = "good"
    #: Its archive is missing, has another size than the signed one, or was found to have other content.
    BROKEN = "broken"
    #: It should exist, but its manifest is missing.
    MISSING = "missing"
    #: Its manifest is not the one in the catalog.
    REPLACED = "replaced"
    #: It exists although it was pruned, or was never made or adopted by this host.
    REPLAYED = "replayed"
    #: Its manifest is not authentic.
    FORGED = "forged"
    #: It has the first format, which is not signed.
    OLD = "old"


#: States of backups with the manifest that the catalog lists.
SIGNED = (State.GOOD, State.BROKEN)


@dataclass(frozen=True)
class Backup:
    """A backup that exists, or should.

    :param adopted: whether another machine made it, which this one replaces.
    """

    name: str
    state: State
    summary: Summary | None = None
    sha256: str = ""
    problem: str = ""
    adopted: bool = False

    @property
    def sort_key(self) -> tuple[bool, tuple[bool, str, int], str]:
        """Sort key, oldest first; backups without a readable manifest come first of all."""
        if self.summary is None:
            return False, (False, "", 0), self.name
        return True, sort_key(self.summary.began, self.summary.seq, adopted=self.adopted), self.name


class Store:
    """Backups in a folder that others may be able to write to; catalog and lock in one that only root can write to."""

    def __init__(self, folder: Path, state_dir: Path, host: str, keys: Keyring) -> None:
        self.folder = folder
        self.state_dir = state_dir
        self.host = host
        self.keys = keys
        self.corrupt_markers = CorruptMarkers(state_dir)
        self._catalog_file = state_dir / "ledger"
        self._locked_catalog: Catalog | None = None
        self._cached_catalog: Catalog | None = None

    @contextlib.contextmanager
    def locked(self, wait: float = 0.0) -> Iterator[Catalog]:
        """Hold the lock of the store, and yield the catalog. The lock is released when the process ends.

        :param wait: seconds to wait for another holder.
        :raises BusyError: another operation still holds the lock then.
        :raises NotAuthenticError: the catalog was changed.
        """
        with lock(self.state_dir, wait):
            self.keys = self.keys.reloaded()
            catalog = Catalog(self._catalog_file, self.keys)
            catalog.sync()
            self._finish_removal(catalog)
            self._record_published(catalog)
            self._locked_catalog = catalog
            try:
                yield catalog
            finally:
                self._locked_catalog = None

    def catalog(self) -> Catalog:
        """Return the catalog. Needs no lock: lines are only ever appended. Under the lock, it is the one read then."""
        if self._locked_catalog is not None:
            return self._locked_catalog
        if self._cached_catalog is None or not self._cached_catalog.is_current():
            self._cached_catalog = Catalog(self._catalog_file, self.keys)
        return self._cached_catalog

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Manifest]:
        """Open the manifest of a backup, and check that it is authentic, of this host, and the one in the catalog.

        :raises BackupError: there is no such backup.
        :raises NotAuthenticError: a check failed.
        """
        with self._open_manifest(name) as stream:
            yield self._authenticate(name, stream, self.catalog())

    def backups(self) -> list[Backup]:
        """Return all backups that exist or should, oldest first."""
        catalog = self.catalog()
        found = self._list(catalog)
        while any(backup.state not in (State.GOOD, State.OLD) for backup in found):
            later = self.catalog()
            if later.size == catalog.size:
                break
            # Another process has created or pruned a backup meanwhile: look again before reporting a problem.
            catalog, found = later, self._list(later)
        return found

    def _list(self, catalog: Catalog) -> list[Backup]:
        expected = catalog.existing()
        files = set(_files(self.folder))
        removed = catalog.pending_removal.name if catalog.pending_removal else None
        there = {name for file in files if (name := names.stem(file)) not in (None, removed)}
        found = []
        for name in sorted(there | set(expected)):
            if f"{name}{names.MANIFEST}" in files:
                found.append(self._inspect(name, catalog))
            elif name in expected:
                found.append(Backup(name, State.MISSING, problem=_LOST))
            elif names.is_old_name(name):
                found.append(Backup(name, State.OLD, problem="of the first format, which is not signed"))
        return sorted(found, key=lambda backup: backup.sort_key)

    def good(self, *, include_broken: bool = False) -> list[Backup]:
        """Return the good backups, oldest first.

        :param include_broken: whether to return those with broken archives, too.
        :raises BackupError: there is none.
        """
        wanted = SIGNED if include_broken else (State.GOOD,)
        good = [backup for backup in self.backups() if backup.state in wanted]
        if not good:
            raise BackupError(
                f"{self.folder}: there is no good backup; `panelctl backup list` shows all with their states"
            )
        return good

    def path(self, name: str, suffix: str) -> Path:
        """Return the path of a file of a backup."""
        return self.folder / f"{name}{suffix}"

    def temporary(self, name: str, suffix: str) -> Path:
        """Return the path of a file of a backup while it is being written."""
        return self.folder / f"{names.TEMPORARY}{name}{suffix}"

    def publish(self, summary: Summary, sha256: str, catalog: Catalog) -> None:
        """Rename the files of a new backup, which are durable, into place, and record it in the catalog."""
        if not self._continues(summary, catalog):
            # If this process dies before the end, this record tells it from a backup of another machine.
            catalog.append(_record(CREATING, summary, sha256))
        self.rename_into_place(summary.name, self.temporary)
        catalog.append(_record(CREATED, summary, sha256))

    def rename_into_place(self, name: str, temporary: Callable[[str, str], Path]) -> None:
        """Rename the files of a backup, which are durable, into place; the manifest last: it makes them a backup."""
        for suffix in (names.ARCHIVE, names.INFO):
            temporary(name, suffix).rename(self.path(name, suffix))
        durable.sync(self.folder)
        published = self.path(name, names.MANIFEST)
        temporary(name, names.MANIFEST).rename(published)
        try:
            durable.sync(self.folder)
        except OSError:
            # A crash could still lose the name: remove it, so that nobody relies on this backup.
            published.unlink()
            raise

    def adopt(self, summary: Summary, sha256: str, catalog: Catalog) -> None:
        """Record a backup of another machine in the catalog, unless it is there already."""
        if summary.name not in catalog.existing():
            catalog.append(_record(ADOPTED, summary, sha256))

    def remove(self, backup: Backup, catalog: Catalog, at: str) -> None:
        """Remove a backup. That is recorded first: files that are half removed then are no sign of tampering."""
        record = catalog.existing().get(backup.name)
        if record is not None:
            catalog.append(replace(record, event=PRUNING, at=at))
            self._finish_removal(catalog)
        else:
            self._unlink(backup.name)

    def remove_leftovers(self, catalog: Catalog) -> list[str]:
        """Remove the leftovers of interrupted backups and prunes; return the files. The caller holds the lock."""
        existing, left = catalog.existing(), []
        for file in _files(self.folder):
            name = names.stem(file)
            unfinished = name is not None and names.is_name(name) and not self.path(name, names.MANIFEST).exists()
            if file.startswith(names.TEMPORARY) or (unfinished and name not in existing):
                (self.folder / file).unlink()
                left.append(file)
        for file in _files(self.state_dir):
            if file.startswith(names.TEMPORARY):
                (self.state_dir / file).unlink()
                left.append(file)
        return left

    def quarantined(self) -> list[Path]:
        """Return the folders that were found in place of files of removed backups, and moved aside."""
        return sorted(self.folder.glob(f"{names.QUARANTINED}*"))

    def _finish_removal(self, catalog: Catalog) -> None:
        """Finish a pending removal, and record it."""
        pending = catalog.pending_removal
        if pending is not None:
            self._unlink(pending.name)
            catalog.append(replace(pending, event=PRUNED))

    def _unlink(self, name: str) -> None:
        for suffix in (names.MANIFEST, names.INFO, names.ARCHIVE):
            path = self.path(name, suffix)
            try:
                path.unlink(missing_ok=True)
            except IsADirectoryError:
                # Do not empty it: another process could fill it faster than that. Under another name it is harmless.
                path.rename(self.folder / f"{names.QUARANTINED}{secrets.token_hex(4)}-{path.name}")
            durable.sync(self.folder)
        self.corrupt_markers.clear(name)

    def _record_published(self, catalog: Catalog) -> None:
        """Record a backup whose process died after the files had their names, and before the record."""
        for file in _files(self.folder):
            name = file.removesuffix(names.MANIFEST)
            if name == file or not names.is_name(name) or catalog.created(name):
                continue
            with contextlib.suppress(BackupError), self._open_manifest(name) as stream:
                found = self.read_signed(name, stream)
                if self._is_own(found, catalog):
                    durable.sync(self.folder)
                    catalog.append(_record(CREATED, found.summary, found.sha256))

    def _is_own(self, found: Manifest, catalog: Catalog) -> bool:
        """Tell whether this machine made a backup that is not recorded yet."""
        pending = catalog.pending_creation
        recorded = pending is not None and (pending.name, pending.manifest) == (found.summary.name, found.sha256)
        return recorded or self._continues(found.summary, catalog)

    def _continues(self, summary: Summary, catalog: Catalog) -> bool:
        """Tell whether a backup directly follows the newest one of this machine: then this machine made it, too."""
        last = catalog.pending_creation or catalog.newest
        if last is None or last.event == ADOPTED:
            return False
        return summary.host == self.host and (summary.seq, summary.previous) == (last.seq + 1, last.manifest)

    def _inspect(self, name: str, catalog: Catalog) -> Backup:
        try:
            with self._open_manifest(name) as stream:
                found = self._authenticate(name, stream, catalog)
        except _StateError as error:
            return Backup(name, error.state, problem=str(error))
        except BackupError as error:
            return Backup(name, State.FORGED, problem=str(error))
        record = catalog.created(name)
        adopted = record is not None and record.event == ADOPTED
        problem = self._archive_problem(found.summary)
        state = State.BROKEN if problem else State.GOOD
        text = f"{problem}: {_REPAIR}" if problem else ""
        return Backup(name, state, found.summary, found.sha256, text, adopted=adopted)

    def _archive_problem(self, summary: Summary) -> str:
        """Return what is wrong with an archive, as far as that shows without reading it; empty if nothing."""
        path = self.path(summary.name, names.ARCHIVE)
        try:
            status = path.lstat()
            check_size(path, status, summary)
        except FileNotFoundError:
            return missing_archive(path)
        except OSError as error:
            return f"{path}: {error.strerror}"
        except NotAuthenticError as error:
            return str(error)
        altered = self.corrupt_markers.is_marked(summary.name, status)
        return f"{path}: the content is not what was signed" if altered else ""

    def read_signed(self, name: str, stream: BinaryIO) -> Manifest:
        """Read a manifest, and check that it is authentic and of this host; the catalog is not consulted.

        :raises NotAuthenticError: a check failed.
        """
        found = manifest.read(stream, self.keys)
        summary = found.summary
        if summary.name != name:
            raise _StateError(State.REPLAYED, f"{name}: the file is the manifest of {summary.name}")
        if summary.host != self.host:
            raise _StateError(State.REPLAYED, f"{name}: a backup of another installation ({summary.host})")
        return found

    def check_catalog(self, found: Manifest, catalog: Catalog, *, allow_pruned: bool = False) -> None:
        """Refuse a backup that contradicts the catalog. One that the catalog does not know passes.

        :param allow_pruned: whether to accept one that was pruned.
        :raises NotAuthenticError: it was pruned, or the catalog has another manifest for it.
        """
        name = found.summary.name
        record = catalog.created(name)
        if record is None:
            return
        if name not in catalog.existing() and not allow_pruned:
            raise _StateError(State.REPLAYED, f"{name}: a pruned backup has reappeared")
        if record.manifest != found.sha256:
            raise _StateError(State.REPLACED, f"{name}: the manifest is signed, but is not the one in the catalog")

    def _authenticate(self, name: str, stream: BinaryIO, catalog: Catalog) -> Manifest:
        found = self.read_signed(name, stream)
        if catalog.created(name) is None and not self._is_own(found, catalog):
            raise _StateError(
                State.REPLAYED,
                f"{name}: the manifest is signed, but the backup is not in the catalog. If this machine replaces the "
                "one that made it: `panelctl backup adopt`",
            )
        self.check_catalog(found, catalog)
        return found

    @contextlib.contextmanager
    def _open_manifest(self, name: str) -> Iterator[BinaryIO]:
        missing = BackupError(f"{name}: there is no such backup; `panelctl backup list` shows all")
        with open_file(self.path(name, names.MANIFEST), missing) as stream:
            yield stream


@contextlib.contextmanager
def lock(state_dir: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of a store that may have no keyring yet; see `Store.locked`.

    :raises BusyError: another operation holds the lock.
    """
    with locks.held(state_dir / "lock", wait, "backup, restore or prune"):
        yield


@contextlib.contextmanager
def open_file(path: Path, missing: BackupError) -> Iterator[BinaryIO]:
    """Open a file of a backup; others may be able to write to its folder.

    :param missing: the error to raise if there is no file.
    :raises NotAuthenticError: it is a symlink, a pipe or a device, or cannot be opened.
    """
    try:
        descriptor = nofollow.read(path)
    except FileNotFoundError:
        raise missing from None
    except OSError as error:
        raise NotAuthenticError(f"{path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def missing_archive(path: Path) -> str:
    """Return the message for a backup without an archive."""
    return f"{path}: the archive is missing"


def check_size(path: Path, status: os.stat_result, summary: Summary) -> None:
    """Check that an archive has the size of the signed one.

    :raises NotAuthenticError: it has not, or is not a regular file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise NotAuthenticError(f"{path}: not a regular file")
    if status.st_size != summary.size:
        raise NotAuthenticError(f"{path}: {status.st_size} bytes; the signed archive has {summary.size}")


def check_free_space(folder: Path, size: int, what: str, cure: str) -> None:
    """Check that a disk has room: a full disk would take the panel down.

    :param size: bytes that may be written.
    :param what: what will be written, for the message.
    :param cure: what the operator can do, as a sentence.
    :raises BackupError: less than that plus RESERVED_SPACE is free.
    """
    free, needed = shutil.disk_usage(folder).free, size + RESERVED_SPACE
    if free < needed:
        raise BackupError(f"{folder}: {free >> 20} MiB are free, but {what} may need {needed >> 20} MiB. {cure}")


@contextlib.contextmanager
def create_file(path: Path) -> Iterator[int]:
    """Create a file that does not exist, readable by its owner only; yield its descriptor."""
    descriptor = nofollow.make(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _StateError(NotAuthenticError):
    def __init__(self, state: State, text: str) -> None:
        super().__init__(text)
        self.state = state


def _record(event: str, summary: Summary, sha256: str) -> Record:
    return Record(event, summary.seq, summary.name, sha256, summary.began)


def _files(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
