# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What backups there were, written down outside of their folder: who deletes, replaces or brings back one is noticed.

Each line is signed and names the digest of the line before it, so that none can be changed, moved or taken out. What
was cut from its end shows as a manifest that is newer than the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import _durable
from . import canonical, keyring
from .errors import NotAuthenticError
from .keyring import Keyring

#: CREATING is written before a backup gets its name, where nothing else says whose it is, and CREATED when it has it;
#: PRUNING before the files of one go, and PRUNED when they are gone.
CREATING, CREATED, ADOPTED, PRUNING, PRUNED = "creating", "created", "adopted", "pruning", "pruned"


@dataclass(frozen=True)
class Record:
    """One event in the life of a backup.

    :param event: CREATING or CREATED here, ADOPTED from a machine of which this one has the place, PRUNING or PRUNED.
    :param manifest: SHA-256 of its manifest, in hexadecimal.
    :param at: when, in UTC; of one that came, when its snapshot began.
    """

    event: str
    seq: int
    name: str
    manifest: str
    at: str


class Ledger:
    """The file, read as a whole. An append is durable before it returns.

    :raises NotAuthenticError: a line was changed, or one is missing before the last.
    """

    def __init__(self, file: Path, keys: Keyring) -> None:
        self.file = file
        self._keys = keys
        self._last = ""
        self.records: list[Record] = []
        for record, digest in self._read():
            self.records.append(record)
            self._last = digest

    def created(self, name: str) -> Record | None:
        """Return what is written down of a backup's creation or adoption."""
        return next((record for record in self._came() if record.name == name), None)

    @property
    def newest(self) -> Record | None:
        """What is written down of the backup with the highest number, whether it is still there or not."""
        return max(self._came(), key=lambda record: record.seq, default=None)

    def present(self) -> dict[str, Record]:
        """Return the backups that should be there, oldest first, by their names."""
        found: dict[str, Record] = {}
        for record in self.records:
            if record.event in (PRUNING, PRUNED):
                found.pop(record.name, None)
            elif record.event != CREATING:
                found[record.name] = record
        return found

    def pruned(self) -> list[str]:
        """Return the names of the backups that were pruned and did not come back, oldest first."""
        present = self.present()
        return [record.name for record in self.records if record.event == PRUNED and record.name not in present]

    @property
    def announced(self) -> Record | None:
        """The backup that is about to get its name, or was when its process died."""
        return self.records[-1] if self.records and self.records[-1].event == CREATING else None

    @property
    def unfinished(self) -> Record | None:
        """The removal that is under way, or was when its process died."""
        return self.records[-1] if self.records and self.records[-1].event == PRUNING else None

    def settle(self) -> None:
        """Have on the disk what was read: one that was killed may have written it, and nothing may build on less."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _durable.sync(self.file.parent)

    def append(self, record: Record) -> None:
        """Add a record, durably."""
        text = canonical.encode({**asdict(record), "previous": self._last})
        key = self._keys.signer
        line = b"%s %s %s\n" % (text, key.encode("ascii"), self._sign(text, key).encode("ascii"))
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Over what a crash has torn: that line was never acknowledged.
            size = _whole(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
            os.ftruncate(descriptor, size)
            try:
                written = 0
                while written < len(line):
                    written += os.pwrite(descriptor, line[written:], size + written)
                os.fsync(descriptor)
            except OSError:
                # It can still be read, and would be believed, but nobody knows whether it is on the disk.
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if not size:
            _durable.sync(self.file.parent)
        self.records.append(record)
        self._last = hashlib.sha256(line).hexdigest()

    def _came(self) -> Iterator[Record]:
        return (record for record in self.records if record.event in (CREATED, ADOPTED))

    def _read(self) -> Iterator[tuple[Record, str]]:
        try:
            data = self.file.read_bytes()
        except FileNotFoundError:
            return
        previous = ""
        for number, line in enumerate(data[: _whole(data)].splitlines(keepends=True), 1):
            record, before = self._parse(line, number)
            if before != previous:
                raise NotAuthenticError(f"{self.file}, line {number}: the line before it was taken out or changed")
            previous = hashlib.sha256(line).hexdigest()
            yield record, previous

    def _parse(self, line: bytes, number: int) -> tuple[Record, str]:
        where = f"{self.file}, line {number}"
        try:
            text, key, signature = line.rstrip(b"\n").rsplit(b" ", 2)
        except ValueError:
            raise NotAuthenticError(f"{where}: this is no line of a ledger") from None
        try:
            expected = self._sign(text, key.decode("ascii", "replace"))
        except NotAuthenticError as error:
            raise NotAuthenticError(f"{where}: {error}") from None
        if not hmac.compare_digest(expected.encode("ascii"), signature):
            raise NotAuthenticError(f"{where}: the signature is wrong: it was changed, or made with another key")
        content = canonical.decode(text)
        try:
            before = content.pop("previous")
            return Record(**content), before
        except (TypeError, KeyError, AttributeError) as error:
            raise NotAuthenticError(f"{where}: it is signed, but no record: {error}") from None

    def _sign(self, text: bytes, key: str) -> str:
        mac = self._keys.mac(keyring.LEDGER, key)
        mac.update(text)
        return mac.hexdigest()


def order(began: str, seq: int, *, adopted: bool) -> tuple[bool, str, int]:
    """Return what sorts backups, oldest first.

    Numbers count up on one machine. What was adopted comes from one before it, or several, each with numbers of its
    own: there is nothing but their clocks to say which is older.
    """
    return not adopted, began if adopted else "", seq


def _whole(data: bytes) -> int:
    """Return how many bytes are whole lines."""
    return data.rfind(b"\n") + 1
