# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Push backups to a remote. As in the local folder, the manifest is written last: without it, a copy is incomplete.

A push overwrites no file of the remote, except files that this host began to send itself and did not finish. The
upload state, which is durable before the first byte is sent, tells which files these are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
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
_MAX_CONSECUTIVE_FAILURES = 2  # one failure may be due to a file; a second one in a row is due to the remote


@dataclass(frozen=True)
class Problem:
    """A backup that failed, and why.

    :param status: panelctl's exit status for this error.
    """

    name: str
    text: str
    status: int


@dataclass
class PushResult:
    """The result of a push.

    :param newest: name of the newest backup that the remote has now.
    """

    sent: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    newest: str = ""


@dataclass(frozen=True)
class Comparison:
    """One backup, on this host and on the remote.

    :param here: its state; empty if this host does not have it.
    :param there: ``whole`` or ``unfinished``; empty if the remote does not have it.
    """

    name: str
    here: str
    there: str


@dataclass(frozen=True)
class RemoteFile:
    """A file of the remote, as it was read back; without a hash while it is being sent."""

    size: int = 0
    sha256: str = ""


@dataclass
class UploadState:
    """The files that this host has sent or begun to send to the remote.

    :param time: end of the last push that sent all missing backups, in UTC.
    :param newest: name of the newest backup at that time.
    :param files: the files by their names on the remote.
    """

    file: Path
    time: str = ""
    newest: str = ""
    files: dict[str, RemoteFile] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> UploadState:
        """Read the state. If it is missing or damaged, an empty one: then each file of the remote is checked again."""
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            files = {name: RemoteFile(**given) for name, given in found["files"].items()}
            return cls(file, str(found["time"]), str(found["newest"]), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(file)

    def record(self, name: str, sent: RemoteFile) -> None:
        """Record a file, and save the state durably."""
        self.files[name] = sent
        self.save()

    def is_begun(self, name: str) -> bool:
        """Tell whether this host has begun to send a file, but has not finished."""
        return name in self.files and not self.files[name].sha256

    def save(self) -> None:
        """Write the state durably."""
        content = {
            "time": self.time,
            "newest": self.newest,
            "files": {name: asdict(sent) for name, sent in self.files.items()},
        }
        durable.write(self.file, json.dumps(content, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def transfer_lock(store: Store, wait: float) -> Iterator[UploadState]:
    """Hold the lock of transfers; yield the upload state. Backups go on, because a transfer may take hours.

    :raises BusyError: another transfer is in progress.
    """
    with locks.held(store.state_dir / "offsite.lock", wait, "transfer from or to the remote"):
        yield UploadState.load(store.state_dir / "offsite.json")


def remote_name(name: str, suffix: str, extension: str) -> str:
    """Return the name of a backup's file on the remote."""
    return f"{name}{suffix}{extension}"


def find_extension(name: str, files: Collection[str], suffixes: tuple[str, ...] = names.SUFFIXES) -> str | None:
    """Return the extension of a backup's files on the remote.

    :param files: the names of the remote's files.
    :param suffixes: the files that must exist.
    :returns: None if the remote does not have all of these files with one extension.
    """
    for extension in _EXTENSIONS:
        if all(remote_name(name, suffix, extension) in files for suffix in suffixes):
            return extension
    return None


def backup_names(files: Collection[str]) -> set[str]:
    """Return the names of the backups that the remote has any file of."""
    stems = {names.stem(file.removesuffix(AGE)) for file in files}
    return {stem for stem in stems if stem is not None and names.is_name(stem)}


def compare(store: Store, remote: Remote) -> list[Comparison]:
    """Compare the backups of this host with those of the remote, oldest first.

    :raises BackupError: the remote does not answer.
    """
    files = remote.files()
    here = {backup.name: backup.state.value for backup in store.backups() if names.is_name(backup.name)}
    begun, found = backup_names(files), []
    for name in sorted(begun | set(here)):
        there = "whole" if find_extension(name, files) is not None else "unfinished" if name in begun else ""
        found.append(Comparison(name, here.get(name, ""), there))
    return found


def push(store: Store, remote: Remote, *, wait: float = 0.0, report_progress: Progress = SILENT) -> PushResult:
    """Send each good backup that the remote lacks, oldest first.

    :param wait: seconds to wait for another transfer.
    :raises BackupError: the remote does not answer, or another transfer is in progress.
    """
    with transfer_lock(store, wait) as state:
        return _Pusher(store, remote, state, report_progress).run()


class _Pusher:
    """One push. The caller holds the lock."""

    def __init__(self, store: Store, remote: Remote, state: UploadState, report_progress: Progress) -> None:
        self._store = store
        self._remote = remote
        self._state = state
        self._report_progress = report_progress
        self._files: Mapping[str, int] = {}
        self._done = PushResult()

    def run(self) -> PushResult:
        self._files = self._remote.files()
        self._state.files = {name: sent for name, sent in self._state.files.items() if name in self._files}
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
        """Push a backup, and record its problem; returns False if the remote may be at fault."""
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
        if not self._missing(backup, extension):
            return
        with extract.verified_backup(self._store, backup.name):
            # Verifying takes a while: another host may have begun to use the same remote.
            self._files = self._remote.files()
        for suffix in self._missing(backup, extension):
            self._upload(backup, suffix, extension)
        self._done.sent.append(backup.name)

    def _extension(self, name: str) -> str:
        """Return the extension to send a backup with: the configured one, unless a complete copy has the other one."""
        found = find_extension(name, self._files)
        if found is None or any(self._state.is_begun(remote_name(name, suffix, found)) for suffix in names.SUFFIXES):
            return self._remote.extension
        return found

    def _missing(self, backup: Backup, extension: str) -> list[str]:
        # In the order in which they are sent: the manifest last.
        return [suffix for suffix in names.SUFFIXES if not self._is_uploaded(backup, suffix, extension)]

    def _is_uploaded(self, backup: Backup, suffix: str, extension: str) -> bool:
        file = remote_name(backup.name, suffix, extension)
        if file not in self._files:
            return False
        sent = self._state.files.get(file)
        if sent is not None and sent.sha256:
            same = sent.size == self._files[file]
        else:
            same = self._matches(backup, suffix, extension)
        if not same and not self._state.is_begun(file):
            raise NotAuthenticError(
                f"{file}: {self._remote.remote} has a different file of this name, which is not overwritten: find out "
                "where it comes from, and move it away"
            )
        return same

    def _matches(self, backup: Backup, suffix: str, extension: str) -> bool:
        """Compare a remote file that the state has no hash of with the local one; record it if it is the same."""
        file = remote_name(backup.name, suffix, extension)
        signed = _signed_digest(backup, suffix)
        if extension:
            # This host cannot decrypt it. A complete copy that it did not begin was sent by its predecessor.
            return not self._state.is_begun(file) and find_extension(backup.name, self._files) == extension
        if signed is None:
            return not self._state.is_begun(file)
        size, sha256 = signed
        if size not in (None, self._files[file]) or self._remote.measure(file).sha256 != sha256:
            return False
        self._state.record(file, RemoteFile(self._files[file], sha256))
        return True

    def _upload(self, backup: Backup, suffix: str, extension: str) -> None:
        file, path = remote_name(backup.name, suffix, extension), self._store.path(backup.name, suffix)
        signed = _signed_digest(backup, suffix)
        self._report_progress(f"sending {file}")
        self._state.record(file, RemoteFile())
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise BackupError(f"{path}: the file is missing") from None
        stored = self._remote.put(file, lambda: _read_unchanged(path, signed and signed[1]), size)
        self._state.record(file, RemoteFile(stored.size, stored.sha256))

    def _prune(self) -> None:
        pruned = set(self._store.catalog().pruned()) if self._remote.prune else set()
        for name in sorted(pruned & backup_names(self._files)):
            try:
                self._remove(name)
            except BackupError as error:
                self._done.problems.append(Problem(name, str(error), error.status))
                return
            self._done.removed.append(name)

    def _remove(self, name: str) -> None:
        # The manifest first, so that an incomplete removal leaves an incomplete copy.
        for suffix in reversed(names.SUFFIXES):
            for file in (remote_name(name, suffix, extension) for extension in _EXTENSIONS):
                if file in self._files:
                    self._remote.remove(file)
                    self._state.files.pop(file, None)


def _signed_digest(backup: Backup, suffix: str) -> tuple[int | None, str] | None:
    """Return the signed size and SHA-256 of a backup's file; None if neither is signed."""
    if suffix == names.ARCHIVE and backup.summary is not None:
        return backup.summary.size, backup.summary.sha256
    return (None, backup.sha256) if suffix == names.MANIFEST else None


def _read_unchanged(path: Path, sha256: str | None) -> Stream:
    """Yield the content of a file; raises before the end if it was changed since it was verified."""
    meter = Meter()
    with open_file(path, BackupError(f"{path}: the file is missing")) as stream:
        while data := stream.read(_CHUNK):
            meter.add(data)
            yield data
    if sha256 not in (None, meter.sha256):
        raise NotAuthenticError(f"{path}: the file was changed while it was being sent")
