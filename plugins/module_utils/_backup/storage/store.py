# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The folder of backups, and what is known of it elsewhere: which are there, and which should be."""

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

#: Bytes of each disk that are left to everybody else.
RESERVED_SPACE = 64 << 20
_CURE = "bring it back, or `panelctl backup remove` it"
_LOST = f"it was not pruned, and its manifest is not there: {_CURE}"


class State(enum.Enum):
    """What a backup is, by what can be seen of it without reading its archive, and what who read that has found."""

    GOOD = "good"
    #: Its archive is not there, is as long as none that was signed, or was found to be another one.
    BROKEN = "broken"
    #: It should be there, and has no manifest.
    MISSING = "missing"
    #: Its manifest is not the one that was written down.
    REPLACED = "replaced"
    #: It was pruned, or never was this host's, and is there.
    REPLAYED = "replayed"
    #: Its manifest is not authentic.
    FORGED = "forged"
    #: Of the first format: nothing proves what it is.
    OLD = "old"


#: Those whose manifests are what was written down.
SIGNED = (State.GOOD, State.BROKEN)


@dataclass(frozen=True)
class Backup:
    """One that is there, or should be.

    :param adopted: whether another machine made it, of which this one has the place.
    """

    name: str
    state: State
    summary: Summary | None = None
    sha256: str = ""
    problem: str = ""
    adopted: bool = False

    @property
    def sort_key(self) -> tuple[bool, tuple[bool, str, int], str]:
        """What sorts backups, oldest first; those of which nothing is known come before."""
        if self.summary is None:
            return False, (False, "", 0), self.name
        return True, sort_key(self.summary.began, self.summary.seq, adopted=self.adopted), self.name


class Store:
    """Backups in a folder that others may be able to write to; catalog and lock in one that only root can."""

    def __init__(self, folder: Path, state_dir: Path, host: str, keys: Keyring) -> None:
        self.folder = folder
        self.state_dir = state_dir
        self.host = host
        self.keys = keys
        self.corrupt_markers = CorruptMarkers(state_dir)
        self._catalog_file = state_dir / "ledger"
        self._held: Catalog | None = None
        self._seen: Catalog | None = None

    @contextlib.contextmanager
    def locked(self, wait: float = 0.0) -> Iterator[Catalog]:
        """Keep all others out, and give the catalog. The kernel's lock: it falls with the process.

        :param wait: seconds to wait for another one.
        :raises BusyError: it has not ended by then.
        :raises NotAuthenticError: the catalog is not what was written.
        """
        with lock(self.state_dir, wait):
            self.keys = self.keys.reloaded()
            catalog = Catalog(self._catalog_file, self.keys)
            catalog.sync()
            self._finish_removal(catalog)
            self._adopt(catalog)
            self._held = catalog
            try:
                yield catalog
            finally:
                self._held = None

    def catalog(self) -> Catalog:
        """Return the catalog. Needs no lock: lines are only ever appended. Under the lock, it is the one read then."""
        if self._held is not None:
            return self._held
        if self._seen is None or not self._seen.is_current():
            self._seen = Catalog(self._catalog_file, self.keys)
        return self._seen

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Manifest]:
        """Open a manifest that is authentic, of this host and the one that was written down.

        :raises BackupError: there is no such backup.
        :raises NotAuthenticError: it is not what it says.
        """
        with self._open(name) as stream:
            yield self._authentic(name, stream, self.catalog())

    def backups(self) -> list[Backup]:
        """Return all backups that are there or should be, oldest first."""
        catalog = self.catalog()
        found = self._look(catalog)
        while any(backup.state not in (State.GOOD, State.OLD) for backup in found):
            later = self.catalog()
            if later.size == catalog.size:
                break
            # What goes or comes by rights while somebody looks is nothing to tell of.
            catalog, found = later, self._look(later)
        return found

    def _look(self, catalog: Catalog) -> list[Backup]:
        expected = catalog.existing()
        files = set(_files(self.folder))
        going = catalog.pending_removal.name if catalog.pending_removal else None
        there = {name for file in files if (name := names.stem(file)) not in (None, going)}
        found = []
        for name in sorted(there | set(expected)):
            if f"{name}{names.MANIFEST}" in files:
                found.append(self._look_at(name, catalog))
            elif name in expected:
                found.append(Backup(name, State.MISSING, problem=_LOST))
            elif names.is_old_name(name):
                found.append(Backup(name, State.OLD, problem="of the first format, which proves nothing"))
        return sorted(found, key=lambda backup: backup.sort_key)

    def good(self, *, include_broken: bool = False) -> list[Backup]:
        """Return the good backups, oldest first.

        :param include_broken: whether their archives may be broken.
        :raises BackupError: there is none.
        """
        wanted = SIGNED if include_broken else (State.GOOD,)
        good = [backup for backup in self.backups() if backup.state in wanted]
        if not good:
            raise BackupError(f"{self.folder}: there is no good backup; `panelctl backup list` says what there is")
        return good

    def path(self, name: str, suffix: str) -> Path:
        """Return where a file of a backup is."""
        return self.folder / f"{name}{suffix}"

    def temporary(self, name: str, suffix: str) -> Path:
        """Return where a file of a backup is until it is whole."""
        return self.folder / f"{names.TEMPORARY}{name}{suffix}"

    def publish(self, summary: Summary, sha256: str, catalog: Catalog) -> None:
        """Give the files of a new backup, which are on the disk, their names, and write that down."""
        if not self._continues(summary, catalog):
            # Or who finds it, if this dies before the end, could not tell it from one of another machine.
            catalog.append(_record(CREATING, summary, sha256))
        self.rename_into_place(summary.name, self.temporary)
        catalog.append(_record(CREATED, summary, sha256))

    def rename_into_place(self, name: str, temporary: Callable[[str, str], Path]) -> None:
        """Give the files of a backup, which are on the disk, their names: the manifest last, which makes it one."""
        for suffix in (names.ARCHIVE, names.INFO):
            temporary(name, suffix).rename(self.path(name, suffix))
        durable.sync(self.folder)
        published = self.path(name, names.MANIFEST)
        temporary(name, names.MANIFEST).rename(published)
        try:
            durable.sync(self.folder)
        except OSError:
            # It is there, and nobody knows for how long.
            published.unlink()
            raise

    def adopt(self, summary: Summary, sha256: str, catalog: Catalog) -> None:
        """Write a backup down that comes from elsewhere, unless it is written down."""
        if summary.name not in catalog.existing():
            catalog.append(_record(ADOPTED, summary, sha256))

    def remove(self, backup: Backup, catalog: Catalog, at: str) -> None:
        """Remove a backup: written down first, so that one that is removed by half is none that somebody took."""
        record = catalog.existing().get(backup.name)
        if record is not None:
            catalog.append(replace(record, event=PRUNING, at=at))
            self._finish_removal(catalog)
        else:
            self._unlink(backup.name)

    def remove_leftovers(self, catalog: Catalog) -> list[str]:
        """Remove what died backups and prunes have left; returns the files. Under the lock, so nobody is at work."""
        present, left = catalog.existing(), []
        for file in _files(self.folder):
            name = names.stem(file)
            unfinished = name is not None and names.is_name(name) and not self.path(name, names.MANIFEST).exists()
            if file.startswith(names.TEMPORARY) or (unfinished and name not in present):
                (self.folder / file).unlink()
                left.append(file)
        for file in _files(self.state_dir):
            if file.startswith(names.TEMPORARY):
                (self.state_dir / file).unlink()
                left.append(file)
        return left

    def quarantined(self) -> list[Path]:
        """Return the folders that were in the place of a file that had to go."""
        return sorted(self.folder.glob(f"{names.QUARANTINED}*"))

    def _finish_removal(self, catalog: Catalog) -> None:
        """Remove what is written down to be going, and write down that it is gone."""
        going = catalog.pending_removal
        if going is not None:
            self._unlink(going.name)
            catalog.append(replace(going, event=PRUNED))

    def _unlink(self, name: str) -> None:
        for suffix in (names.MANIFEST, names.INFO, names.ARCHIVE):
            path = self.path(name, suffix)
            try:
                path.unlink(missing_ok=True)
            except IsADirectoryError:
                # Who put it there may fill it as fast as anybody empties it; by its name it is in nobody's way.
                path.rename(self.folder / f"{names.QUARANTINED}{secrets.token_hex(4)}-{path.name}")
            durable.sync(self.folder)
        self.corrupt_markers.clear(name)

    def _adopt(self, catalog: Catalog) -> None:
        """Write down a backup that was published by a run that died before it could."""
        for file in _files(self.folder):
            name = file.removesuffix(names.MANIFEST)
            if name == file or not names.is_name(name) or catalog.created(name):
                continue
            with contextlib.suppress(BackupError), self._open(name) as stream:
                found = self.read_signed(name, stream)
                if self._is_own(found, catalog):
                    durable.sync(self.folder)
                    catalog.append(_record(CREATED, found.summary, found.sha256))

    def _is_own(self, found: Manifest, catalog: Catalog) -> bool:
        """Tell whether this machine published it, of which it is not written down yet."""
        announced = catalog.pending_creation
        named = announced is not None and (announced.name, announced.manifest) == (found.summary.name, found.sha256)
        return named or self._continues(found.summary, catalog)

    def _continues(self, summary: Summary, catalog: Catalog) -> bool:
        """Tell whether it follows the newest one, and that is of this machine: then this one is, too."""
        last = catalog.pending_creation or catalog.newest
        if last is None or last.event == ADOPTED:
            return False
        return summary.host == self.host and (summary.seq, summary.previous) == (last.seq + 1, last.manifest)

    def _look_at(self, name: str, catalog: Catalog) -> Backup:
        try:
            with self._open(name) as stream:
                found = self._authentic(name, stream, catalog)
        except _StateError as error:
            return Backup(name, error.state, problem=str(error))
        except BackupError as error:
            return Backup(name, State.FORGED, problem=str(error))
        record = catalog.created(name)
        adopted = record is not None and record.event == ADOPTED
        problem = self._doubt(found.summary)
        state = State.BROKEN if problem else State.GOOD
        text = f"{problem}: {_CURE}" if problem else ""
        return Backup(name, state, found.summary, found.sha256, text, adopted=adopted)

    def _doubt(self, summary: Summary) -> str:
        """Return what is wrong with an archive, as far as who does not read it can tell."""
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
        return f"{path}: its content was found not to be what was signed" if altered else ""

    def read_signed(self, name: str, stream: BinaryIO) -> Manifest:
        """Read a manifest that is authentic and of this host, whatever the catalog says of it.

        :raises NotAuthenticError: it is not what it says.
        """
        found = manifest.read(stream, self.keys)
        summary = found.summary
        if summary.name != name:
            raise _StateError(State.REPLAYED, f"{name}: this is the manifest of {summary.name}")
        if summary.host != self.host:
            raise _StateError(State.REPLAYED, f"{name}: this is a backup of another installation ({summary.host})")
        return found

    def check_catalog(self, found: Manifest, catalog: Catalog, *, allow_pruned: bool = False) -> None:
        """Refuse a backup of which the catalog knows something else. Of most that come from elsewhere it knows nothing.

        :param allow_pruned: whether somebody wants one that was pruned.
        :raises NotAuthenticError: it was pruned, or was another one.
        """
        name = found.summary.name
        record = catalog.created(name)
        if record is None:
            return
        if name not in catalog.existing() and not allow_pruned:
            raise _StateError(State.REPLAYED, f"{name}: it was pruned; somebody brought it back")
        if record.manifest != found.sha256:
            raise _StateError(State.REPLACED, f"{name}: it is signed, but not the one that was written down")

    def _authentic(self, name: str, stream: BinaryIO, catalog: Catalog) -> Manifest:
        found = self.read_signed(name, stream)
        if catalog.created(name) is None and not self._is_own(found, catalog):
            raise _StateError(
                State.REPLAYED,
                f"{name}: it is signed, but the catalog knows nothing of it. If this machine has the place of the one "
                "that made it: `panelctl backup adopt`",
            )
        self.check_catalog(found, catalog)
        return found

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        missing = BackupError(f"{name}: there is no such backup; `panelctl backup list` says what there is")
        with open_file(self.path(name, names.MANIFEST), missing) as stream:
            yield stream


@contextlib.contextmanager
def lock(state_dir: Path, wait: float = 0.0) -> Iterator[None]:
    """Keep all others out, who may have no key yet; see `Store.locked`.

    :raises BusyError: another one has not ended by then.
    """
    with locks.held(state_dir / "lock", wait, "backup, restore or prune"):
        yield


@contextlib.contextmanager
def open_file(path: Path, missing: BackupError) -> Iterator[BinaryIO]:
    """Open a file of a backup; somebody else may have put something else there.

    :param missing: what is raised where there is nothing.
    :raises NotAuthenticError: it is a link, a pipe, a device, or cannot be opened.
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
    """Say that a backup has no archive."""
    return f"{path}: there should be an archive, and is none"


def check_size(path: Path, status: os.stat_result, summary: Summary) -> None:
    """See that an archive is as long as the one that was signed.

    :raises NotAuthenticError: it is not, or is no file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise NotAuthenticError(f"{path}: this is no file")
    if status.st_size != summary.size:
        raise NotAuthenticError(f"{path}: it has {status.st_size} bytes; {summary.size} were signed")


def check_free_space(folder: Path, size: int, what: str, cure: str) -> None:
    """See that a disk does not fill up, which would take the panel down.

    :param size: bytes that may be written.
    :param what: is to be written.
    :raises BackupError: there is less than that and what has to stay free.
    """
    free, needed = shutil.disk_usage(folder).free, size + RESERVED_SPACE
    if free < needed:
        raise BackupError(f"{folder}: {free >> 20} MiB are free, and {what} may need {needed >> 20}. {cure}")


@contextlib.contextmanager
def create_file(path: Path) -> Iterator[int]:
    """Make a file that nobody has put there, for its owner only; gives its descriptor."""
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
