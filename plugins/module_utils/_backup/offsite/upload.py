# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Copies of backups elsewhere. As here, it is the manifest, written last, that makes one: half a copy is none.

What is there is never written over. The exception is what this host began to write itself and did not end: a journal,
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
_ENDINGS = ("", AGE)
_ENOUGH = 2  # failures in a row: one may be that file's own, more are the remote's


@dataclass(frozen=True)
class Problem:
    """One backup that could not be dealt with, and why.

    :param status: panelctl's, as of the error.
    """

    name: str
    text: str
    status: int


@dataclass
class Pushed:
    """What was done."""

    sent: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    newest: str = ""


@dataclass(frozen=True)
class Compared:
    """One backup, here and there.

    :param here: its state, or nothing.
    :param there: whole, unfinished, or nothing.
    """

    name: str
    here: str
    there: str


@dataclass(frozen=True)
class Sent:
    """What a file at the remote is, as it was read back; without a digest while it is being written."""

    size: int = 0
    sha256: str = ""


@dataclass
class Journal:
    """What this host has written to the remote, or begun to; and when it last had nothing left to write.

    :param time: in UTC.
    :param newest: name of the newest backup at that time.
    :param files: by their names at the remote.
    """

    file: Path
    time: str = ""
    newest: str = ""
    files: dict[str, Sent] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Journal:
        """Read it. One that is missing or broken knows nothing; then everything is looked at once more."""
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            files = {name: Sent(**given) for name, given in found["files"].items()}
            return cls(file, str(found["time"]), str(found["newest"]), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(file)

    def note(self, name: str, sent: Sent) -> None:
        """Write down what a file is, durably."""
        self.files[name] = sent
        self.save()

    def begun(self, name: str) -> bool:
        """Tell whether this host has begun to write a file, and not ended."""
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
def working(store: Store, wait: float) -> Iterator[Journal]:
    """Keep other transfers out, but no backup: a transfer may take hours. Gives the journal.

    :raises BusyError: another one has not ended by then.
    """
    with locks.held(store.state_dir / "offsite.lock", wait, "transfer from or to the remote"):
        yield Journal.load(store.state_dir / "offsite.json")


def file_of(name: str, suffix: str, ending: str) -> str:
    """Return what a file of a backup is called at the remote."""
    return f"{name}{suffix}{ending}"


def ending_of(name: str, there: Mapping[str, int], suffixes: tuple[str, ...] = names.SUFFIXES) -> str | None:
    """Return what the names of a backup's files end with at the remote; None where not all of these are there."""
    for ending in _ENDINGS:
        if all(file_of(name, suffix, ending) in there for suffix in suffixes):
            return ending
    return None


def named(there: Mapping[str, int]) -> set[str]:
    """Return the names of the backups that the remote has something of."""
    stems = {names.stem(file.removesuffix(AGE)) for file in there}
    return {stem for stem in stems if stem is not None and names.is_name(stem)}


def compare(store: Store, remote: Remote) -> list[Compared]:
    """Say which backups are here, which are there, oldest first.

    :raises BackupError: the remote does not answer.
    """
    there = remote.files()
    here = {backup.name: backup.state.value for backup in store.backups() if names.is_name(backup.name)}
    begun, found = named(there), []
    for name in sorted(begun | set(here)):
        copy = "whole" if ending_of(name, there) is not None else "unfinished" if name in begun else ""
        found.append(Compared(name, here.get(name, ""), copy))
    return found


def push(store: Store, remote: Remote, *, wait: float = 0.0, say: Progress = SILENT) -> Pushed:
    """Send each good backup that the remote has no copy of, oldest first.

    :param wait: seconds to wait for another transfer.
    :param say: is told what is being sent.
    :raises BackupError: the remote does not answer, or another transfer is at work.
    """
    with working(store, wait) as journal:
        return _Push(store, remote, journal, say).run()


class _Push:
    def __init__(self, store: Store, remote: Remote, journal: Journal, say: Progress) -> None:
        self._store = store
        self._remote = remote
        self._journal = journal
        self._say = say
        self._there: dict[str, int] = {}
        self._done = Pushed()

    def run(self) -> Pushed:
        self._there = self._remote.files()
        self._journal.files = {name: sent for name, sent in self._journal.files.items() if name in self._there}
        failures = 0
        for backup in self._store.backups():
            if backup.state in SIGNED and failures < _ENOUGH:
                failures = 0 if self._try(backup) else failures + 1
        if not self._done.problems:
            self._journal.time, self._journal.newest = names.timestamp(datetime.now(timezone.utc)), self._done.newest
            self._prune()
        self._journal.save()
        return self._done

    def _try(self, backup: Backup) -> bool:
        """Tell whether the remote is to be tried again."""
        try:
            self._one(backup)
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

    def _one(self, backup: Backup) -> None:
        ending = self._ending(backup.name)
        lacking = self._lacking(backup, ending)
        if not lacking:
            return
        with extract.verified(self._store, backup.name):
            # Who began after the first look at the remote has to be seen too.
            self._there = self._remote.files()
        for suffix in self._lacking(backup, ending):
            self._send(backup, suffix, ending)
        self._done.sent.append(backup.name)

    def _ending(self, name: str) -> str:
        """Choose how it goes there: as the settings say, unless there is a whole copy of the other kind."""
        found = ending_of(name, self._there)
        if found is None or any(self._journal.begun(file_of(name, suffix, found)) for suffix in names.SUFFIXES):
            return self._remote.ending
        return found

    def _lacking(self, backup: Backup, ending: str) -> list[str]:
        # In the order in which they go: the manifest last.
        return [suffix for suffix in names.SUFFIXES if not self._is_there(backup, suffix, ending)]

    def _is_there(self, backup: Backup, suffix: str, ending: str) -> bool:
        file = file_of(backup.name, suffix, ending)
        if file not in self._there:
            return False
        sent = self._journal.files.get(file)
        if sent is not None and sent.sha256:
            same = sent.size == self._there[file]
        else:
            same = self._is_same(backup, suffix, ending)
        if not same and not self._journal.begun(file):
            raise NotAuthenticError(
                f"{file}: {self._remote.remote} has something else under this name. It is not written over: find out "
                "who put it there, and move it out of the way"
            )
        return same

    def _is_same(self, backup: Backup, suffix: str, ending: str) -> bool:
        """Compare with a file that the journal knows nothing certain of, and take note of one that is the same."""
        file = file_of(backup.name, suffix, ending)
        expected = _expected(backup, suffix)
        if ending:
            # It cannot be read here. A whole copy that this host did not begin is the work of one before it.
            return not self._journal.begun(file) and ending_of(backup.name, self._there) == ending
        if expected is None:
            return not self._journal.begun(file)
        size, sha256 = expected
        if size not in (None, self._there[file]) or self._remote.look(file).sha256 != sha256:
            return False
        self._journal.note(file, Sent(self._there[file], sha256))
        return True

    def _send(self, backup: Backup, suffix: str, ending: str) -> None:
        file, path = file_of(backup.name, suffix, ending), self._store.path(backup.name, suffix)
        expected = _expected(backup, suffix)
        self._say(f"sending {file}")
        self._journal.note(file, Sent())
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise BackupError(f"{path}: the file is missing") from None
        there = self._remote.put(file, lambda: _content(path, expected and expected[1]), size)
        self._journal.note(file, Sent(there.size, there.sha256))

    def _prune(self) -> None:
        pruned = set(self._store.catalog().pruned()) if self._remote.prune else set()
        for name in sorted(pruned & named(self._there)):
            try:
                self._remove(name)
            except BackupError as error:
                self._done.problems.append(Problem(name, str(error), error.status))
                return
            self._done.removed.append(name)

    def _remove(self, name: str) -> None:
        # The manifest first: what is removed by half is none.
        for suffix in reversed(names.SUFFIXES):
            for file in (file_of(name, suffix, ending) for ending in _ENDINGS):
                if file in self._there:
                    self._remote.remove(file)
                    self._journal.files.pop(file, None)


def _expected(backup: Backup, suffix: str) -> tuple[int | None, str] | None:
    """Return size and SHA-256 of a file, where something that is signed says so."""
    if suffix == names.ARCHIVE and backup.summary is not None:
        return backup.summary.size, backup.summary.sha256
    return (None, backup.sha256) if suffix == names.MANIFEST else None


def _content(path: Path, sha256: str | None) -> Stream:
    """Give a file; what was changed or exchanged since somebody looked at it never comes to its end."""
    meter = Meter()
    with open_file(path, BackupError(f"{path}: it is gone")) as stream:
        while data := stream.read(_CHUNK):
            meter.add(data)
            yield data
    if sha256 not in (None, meter.sha256):
        raise NotAuthenticError(f"{path}: it was changed while it was being sent")
