# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Copies of backups elsewhere. As here, it is the manifest, written last, that makes one: half a copy is none.

What is there is never written over. The exception is what this host began to write itself and did not end: a state,
which is on the disk before a byte is sent, says which files those are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ..._host import durable
from ..actions import extract
from ..archive import names
from ..errors import BackupError, NotAuthenticError
from ..programs import Stream
from ..progress import SILENT, Progress
from ..storage import locks
from ..storage.store import SIGNED, Backup, Store, open_file
from .remote import AGE, Meter, Remote

_CHUNK = 1 << 20  # bytes
_EXTENSIONS = ("", AGE)
_MAX_CONSECUTIVE_FAILURES = 2  # failures in a row: one may be that file's own, more are the remote's


@dataclass(frozen=True)
class Problem:
    """One backup that could not be dealt with, and why.

    :param status: panelctl's, as of the error.
    """

    name: str
    text: str
    status: int


@dataclass
class PushResult:
    """What was done."""

    sent: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    newest: str = ""


@dataclass(frozen=True)
class Comparison:
    """One backup, here and there.

    :param here: its state, or nothing.
    :param there: whole, unfinished, or nothing.
    """

    name: str
    here: str
    there: str


@dataclass(frozen=True)
class RemoteFile:
    """What a file at the remote is, as it was read back; without a digest while it is being written."""

    size: int = 0
    sha256: str = ""


@dataclass
class UploadState:
    """What this host has written to the remote, or is_begun to; and when it last had nothing left to write.

    :param time: in UTC.
    :param newest: name of the newest backup at that time.
    :param files: by their names at the remote.
    """

    file: Path
    time: str = ""
    newest: str = ""
    files: dict[str, RemoteFile] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> UploadState:
        """Read it. One that is missing or broken knows nothing; then everything is looked at once more."""
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            files = {name: RemoteFile(**given) for name, given in found["files"].items()}
            return cls(file, str(found["time"]), str(found["newest"]), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(file)

    def record(self, name: str, sent: RemoteFile) -> None:
        """Write down what a file is, durably."""
        self.files[name] = sent
        self.save()

    def is_begun(self, name: str) -> bool:
        """Tell whether this host has is_begun to write a file, and not ended."""
        return name in self.files and not self.files[name].sha256

    def save(self) -> None:
        """Write all of it down, durably."""
        content = {
            "time": self.time,
            "newest": self.newest,
            "files": {name: asdict(sent) for name, sent in self.files.items()},
        }
        durable.write(self.file, json.dumps(content, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def transfer_lock(store: Store, wait: float) -> Iterator[UploadState]:
    """Keep other transfers out, but no backup: a transfer may take hours. Gives the state.

    :raises BusyError: another one has not ended by then.
    """
    with locks.held(store.state_dir / "offsite.lock", wait, "transfer from or to the remote"):
        yield UploadState.load(store.state_dir / "offsite.json")


def remote_name(name: str, suffix: str, extension: str) -> str:
    """Return what a file of a backup is called at the remote."""
    return f"{name}{suffix}{extension}"


def find_extension(name: str, there: Mapping[str, int], suffixes: tuple[str, ...] = names.SUFFIXES) -> str | None:
    """Return what the names of a backup's files end with at the remote; None where not all of these are there."""
    for extension in _EXTENSIONS:
        if all(remote_name(name, suffix, extension) in there for suffix in suffixes):
            return extension
    return None


def backup_names(there: Mapping[str, int]) -> set[str]:
    """Return the names of the backups that the remote has something of."""
    stems = {names.stem(file.removesuffix(AGE)) for file in there}
    return {stem for stem in stems if stem is not None and names.is_name(stem)}


def compare(store: Store, remote: Remote) -> list[Comparison]:
    """Say which backups are here, which are there, oldest first.

    :raises BackupError: the remote does not answer.
    """
    there = remote.files()
    here = {backup.name: backup.state.value for backup in store.backups() if names.is_name(backup.name)}
    begun, found = backup_names(there), []
    for name in sorted(begun | set(here)):
        copy = "whole" if find_extension(name, there) is not None else "unfinished" if name in begun else ""
        found.append(Comparison(name, here.get(name, ""), copy))
    return found


def push(store: Store, remote: Remote, *, wait: float = 0.0, report_progress: Progress = SILENT) -> PushResult:
    """Send each good backup that the remote has no copy of, oldest first.

    :param wait: seconds to wait for another transfer.
    :param report_progress: is told what is being sent.
    :raises BackupError: the remote does not answer, or another transfer is at work.
    """
    with transfer_lock(store, wait) as state:
        return _Pusher(store, remote, state, report_progress).run()


class _Pusher:
    def __init__(self, store: Store, remote: Remote, state: UploadState, report_progress: Progress) -> None:
        self._store = store
        self._remote = remote
        self._state = state
        self._report_progress = report_progress
        self._there: dict[str, int] = {}
        self._done = PushResult()

    def run(self) -> PushResult:
        self._there = self._remote.files()
        self._state.files = {name: sent for name, sent in self._state.files.items() if name in self._there}
        failures = 0
        for backup in self._store.backups():
            if backup.state in SIGNED and failures < _MAX_CONSECUTIVE_FAILURES:
                failures = 0 if self._try_push(backup) else failures + 1
        if not self._done.problems:
            self._state.time, self._state.newest = names.timestamp(datetime.now(timezone.utc)), self._done.newest
            self._prune()
        self._state.save()
        return self._done

    def _try_push(self, backup: Backup) -> bool:
        """Tell whether the remote is to be tried again."""
        try:
            self._push(backup)
        except NotAuthenticError as error:
            self._done.problems.append(Problem(backup.name, str(error), error.status))
        except BackupError as error:
            if backup.name not in self._store.catalog().existing():
                return True  # It was pruned meanwhile.
            self._done.problems.append(Problem(backup.name, str(error), error.status))
            return False
        else:
            self._done.newest = backup.name
        return True

    def _push(self, backup: Backup) -> None:
        extension = self._extension(backup.name)
        missing = self._missing(backup, extension)
        if not missing:
            return
        with extract.verified_backup(self._store, backup.name):
            # Who began after the first look at the remote has to be seen too.
            self._there = self._remote.files()
        for suffix in self._missing(backup, extension):
            self._upload(backup, suffix, extension)
        self._done.sent.append(backup.name)

    def _extension(self, name: str) -> str:
        """Choose how it goes there: as the settings report_progress, unless there is a whole copy of the other kind."""
        found = find_extension(name, self._there)
        if found is None or any(self._state.is_begun(remote_name(name, suffix, found)) for suffix in names.SUFFIXES):
            return self._remote.extension
        return found

    def _missing(self, backup: Backup, extension: str) -> list[str]:
        # In the order in which they go: the manifest last.
        return [suffix for suffix in names.SUFFIXES if not self._is_uploaded(backup, suffix, extension)]

    def _is_uploaded(self, backup: Backup, suffix: str, extension: str) -> bool:
        file = remote_name(backup.name, suffix, extension)
        if file not in self._there:
            return False
        sent = self._state.files.get(file)
        if sent is not None and sent.sha256:
            same = sent.size == self._there[file]
        else:
            same = self._matches(backup, suffix, extension)
        if not same and not self._state.is_begun(file):
            raise NotAuthenticError(
                f"{file}: {self._remote.remote} has something else under this name. It is not written over: find out "
                "who put it there, and move it out of the way"
            )
        return same

    def _matches(self, backup: Backup, suffix: str, extension: str) -> bool:
        """Compare with a file that the state knows nothing certain of, and take record of one that is the same."""
        file = remote_name(backup.name, suffix, extension)
        expected = _signed_digest(backup, suffix)
        if extension:
            # It cannot be read here. A whole copy that this host did not begin is the work of one before it.
            return not self._state.is_begun(file) and find_extension(backup.name, self._there) == extension
        if expected is None:
            return not self._state.is_begun(file)
        size, sha256 = expected
        if size not in (None, self._there[file]) or self._remote.measure(file).sha256 != sha256:
            return False
        self._state.record(file, RemoteFile(self._there[file], sha256))
        return True

    def _upload(self, backup: Backup, suffix: str, extension: str) -> None:
        file, path = remote_name(backup.name, suffix, extension), self._store.path(backup.name, suffix)
        expected = _signed_digest(backup, suffix)
        self._report_progress(f"sending {file}")
        self._state.record(file, RemoteFile())
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise BackupError(f"{path}: the file is missing") from None
        there = self._remote.put(file, lambda: _read_unchanged(path, expected and expected[1]), size)
        self._state.record(file, RemoteFile(there.size, there.sha256))

    def _prune(self) -> None:
        pruned = set(self._store.catalog().pruned()) if self._remote.prune else set()
        for name in sorted(pruned & backup_names(self._there)):
            try:
                self._remove(name)
            except BackupError as error:
                self._done.problems.append(Problem(name, str(error), error.status))
                return
            self._done.removed.append(name)

    def _remove(self, name: str) -> None:
        # The manifest first: what is removed by half is none.
        for suffix in reversed(names.SUFFIXES):
            for file in (remote_name(name, suffix, extension) for extension in _EXTENSIONS):
                if file in self._there:
                    self._remote.remove(file)
                    self._state.files.pop(file, None)


def _signed_digest(backup: Backup, suffix: str) -> tuple[int | None, str] | None:
    """Return size and SHA-256 of a file, where something that is signed says so."""
    if suffix == names.ARCHIVE and backup.summary is not None:
        return backup.summary.size, backup.summary.sha256
    return (None, backup.sha256) if suffix == names.MANIFEST else None


def _read_unchanged(path: Path, sha256: str | None) -> Stream:
    """Give a file; what was changed or exchanged since somebody looked at it never comes to its end."""
    meter = Meter()
    with open_file(path, BackupError(f"{path}: it is gone")) as stream:
        while data := stream.read(_CHUNK):
            meter.add(data)
            yield data
    if sha256 not in (None, meter.sha256):
        raise NotAuthenticError(f"{path}: it was changed while it was being sent")
