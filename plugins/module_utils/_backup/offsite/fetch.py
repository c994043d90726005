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
from .upload import Journal, Problem, Sent

_TEMPORARY = ".fetched-"  # another one than that of backups that are being made, which `create` sweeps away
_PATIENCE = 3600.0  # seconds to wait for a backup that is being made, once hours of fetching are at stake
#: For the name of a backup.
NEWEST = "newest"


@dataclass(frozen=True)
class Wish:
    """What is to be fetched.

    :param name: of one, or NEWEST; empty for all. What was pruned is neither the newest nor one of all.
    :param adopt: whether the ledger is to know it from now on.
    :param again: whether it may be one that was pruned here; the ledger knows it again from now on.
    :param wait: seconds to wait for another one that is at work.
    """

    name: str = NEWEST
    adopt: bool = False
    again: bool = False
    wait: float = 0.0


@dataclass
class Fetched:
    """What was done.

    :param here: those that were here already.
    :param unknown: those that the ledger knows nothing of; they want to be adopted.
    """

    fetched: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def fetch(store: Store, remote: Remote, wish: Wish, say: Progress = SILENT) -> Fetched:
    """Bring backups back.

    :param say: is told what is being fetched.
    :raises BackupError: the remote does not answer, or has no such backup.
    """
    with upload.working(store, wish.wait) as journal:
        return _Fetch(store, remote, journal, wish, say).run()


def adopt(store: Store, wanted: Sequence[str] = (), *, wait: float = 0.0) -> Fetched:
    """Take backups in that are here, and that the ledger does not know: those of a machine of which this has the place.

    :param wanted: names; empty for all that it does not know.
    :raises BusyError: another one is at work.
    """
    done = Fetched()
    known = store.catalog()
    proven: list[tuple[Summary, str]] = []
    for name in wanted or _unknown(store, known):
        with _noted(done, name), _authentic(store, name) as found:
            proven.append((found.summary, found.sha256))
    with store.locked(wait) as ledger:
        for summary, sha256 in sorted(proven, key=lambda one: sort_key(one[0].began, one[0].seq, adopted=True)):
            store.adopt(summary, sha256, ledger)
            (done.adopted if known.created(summary.name) is None else done.here).append(summary.name)
    return done


class _Fetch:
    def __init__(self, store: Store, remote: Remote, journal: Journal, wish: Wish, say: Progress) -> None:
        self._store = store
        self._remote = remote
        self._journal = journal
        self._wish = wish
        self._say = say
        self._there: dict[str, int] = {}
        self._done = Fetched()

    def run(self) -> Fetched:
        self._there = self._remote.files()
        wanted = self._wanted()
        self._store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        for name in wanted:
            with _noted(self._done, name):
                try:
                    self._one(name)
                finally:
                    self._sweep()
        return self._done

    def _wanted(self) -> list[str]:
        name = self._wish.name
        whole = {found for found in upload.named(self._there) if self._ending(found) is not None}
        # By name is by time; that the name is right, each manifest says.
        found = sorted(whole - set(self._store.catalog().pruned()))
        if name:
            found = found[-1:] if name == NEWEST else [name] if name in whole else []
        if not found:
            what = "backup that was not pruned" if name in ("", NEWEST) else name
            raise BackupError(f"{self._remote.remote} has no {what}; `panelctl backup remote` says what it has")
        return found

    def _one(self, name: str) -> None:
        if self._is_here(name):
            self._done.here.append(name)
            return
        with self._manifest(name) as found:
            self._store.check_catalog(found, self._store.catalog(), allow_pruned=self._wish.again)
            self._archive(found)
            with self._store.locked(max(self._wish.wait, _PATIENCE)) as ledger:
                # It may have been pruned meanwhile.
                self._store.check_catalog(found, ledger, allow_pruned=self._wish.again)
                self._store.rename_into_place(name, self._temporary)
                self._done.fetched.append(name)
                if name not in ledger.existing():
                    self._take(found, ledger)

    def _is_here(self, name: str) -> bool:
        """Tell whether it is here already, every byte; what is here and broken is fetched anew."""
        try:
            with _authentic(self._store, name) as found:
                if self._store.catalog().created(name) is None:
                    with self._store.locked(self._wish.wait) as ledger:
                        self._take(found, ledger)
        except NotAuthenticError:
            return False
        except BackupError:
            if self._store.path(name, names.MANIFEST).exists():
                raise
            return False
        return True

    def _take(self, found: Manifest, ledger: Catalog) -> None:
        """Deal with one that is not among those that should be here."""
        if self._wish.adopt or self._wish.again:
            self._store.adopt(found.summary, found.sha256, ledger)
            self._done.adopted.append(found.summary.name)
        else:
            self._done.unknown.append(found.summary.name)

    @contextlib.contextmanager
    def _manifest(self, name: str) -> Iterator[Manifest]:
        path = self._temporary(name, names.MANIFEST)
        sent = self._bring(name, names.MANIFEST, self._room())
        with open_file(path, BackupError(f"{path}: it is gone")) as stream:
            found = self._store.read_signed(name, stream)
            self._note(name, names.MANIFEST, sent)
            yield found

    def _archive(self, found: Manifest) -> None:
        summary = found.summary
        if self._room() < summary.size:
            raise BackupError(
                f"{self._store.folder}: there is no room for the {summary.size >> 20} MiB of {summary.name}"
            )
        self._say(f"fetching {summary.name}")

        sent = self._bring(summary.name, names.ARCHIVE, summary.size)
        with extract.checked(self._temporary(summary.name, names.ARCHIVE), found):
            self._note(summary.name, names.ARCHIVE, sent)
        # What the remote has of it is signed by nobody: it is made anew.
        create.write(self._temporary(summary.name, names.INFO), info.render(summary, self._store.keys))

    def _bring(self, name: str, suffix: str, limit: int) -> Meter:
        """Fetch a file; gives what it is there. Who sends more than the limit fills no disk."""
        file, path = upload.file_of(name, suffix, self._ending(name) or ""), self._temporary(name, suffix)

        def take(content: Stream) -> None:
            path.unlink(missing_ok=True)
            with create_file(path) as descriptor:
                for data in Meter().over(content, limit):
                    write_all(descriptor, data)
                os.fsync(descriptor)

        if file not in self._there:
            raise NotAuthenticError(f"{file}: {self._remote.remote} has the manifest of this backup, and not this")
        return self._remote.read(file, take)

    def _room(self) -> int:
        return shutil.disk_usage(self._store.folder).free - RESERVED_SPACE

    def _ending(self, name: str) -> str | None:
        return upload.ending_of(name, self._there, (names.MANIFEST,))

    def _note(self, name: str, suffix: str, sent: Meter) -> None:
        # That is what it is there, so that a push from here has nothing to ask.
        file = upload.file_of(name, suffix, self._ending(name) or "")
        self._journal.note(file, Sent(sent.size, sent.sha256))

    def _temporary(self, name: str, suffix: str) -> Path:
        return self._store.folder / f"{_TEMPORARY}{name}{suffix}"

    def _sweep(self) -> None:
        """Remove what did not become a backup, now or in a run that died."""
        for left in self._store.folder.glob(f"{_TEMPORARY}*"):
            left.unlink()


@contextlib.contextmanager
def _authentic(store: Store, name: str) -> Iterator[Manifest]:
    """Open a backup that is here and what was signed, every byte, and of which the ledger knows nothing else."""
    path = store.path(name, names.MANIFEST)
    with open_file(path, BackupError(f"{name}: there is no such backup")) as stream:
        found = store.read_signed(name, stream)
        store.check_catalog(found, store.catalog())
        with extract.checked(store.path(name, names.ARCHIVE), found):
            yield found


@contextlib.contextmanager
def _noted(done: Fetched, name: str) -> Iterator[None]:
    """Let one that fails not keep the others."""
    try:
        yield
    except BackupError as error:
        done.problems.append(Problem(name, str(error), error.status))


def _unknown(store: Store, ledger: Catalog) -> list[str]:
    # One that seems to continue what is written down is good, and may be a machine's before this one all the same.
    proven = (*SIGNED, State.REPLAYED)
    return [found.name for found in store.backups() if found.state in proven and ledger.created(found.name) is None]
