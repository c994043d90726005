# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The catalog: which backups were created, adopted and pruned, recorded outside of their folder.

It shows that a backup was deleted, replaced or brought back. Each line is signed and names the digest of the line
before it, so that no line can be changed, moved or removed. If lines are cut off at the end, the newest manifests are
newer than the catalog.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..._host import durable
from ..archive import canonical, keyring
from ..archive.keyring import Keyring
from ..errors import NotAuthenticError

#: CREATING is recorded before a backup gets its name, if nothing else shows that it is of this machine, and CREATED
#: afterwards. PRUNING is recorded before the files of a backup are removed, and PRUNED afterwards.
CREATING, CREATED, ADOPTED, PRUNING, PRUNED = "creating", "created", "adopted", "pruning", "pruned"


@dataclass(frozen=True)
class Record:
    """One event in the life of a backup.

    :param event: CREATING or CREATED here, ADOPTED from the machine that this one replaces, PRUNING or PRUNED.
    :param manifest: SHA-256 of its manifest, in hexadecimal.
    :param at: time of the event, in UTC; for a creation or adoption, the start of the snapshot.
    """

    event: str
    seq: int
    name: str
    manifest: str
    at: str


class Catalog:
    """The catalog file, read as a whole. The state of each backup is kept in memory; the lines are not.

    An append is durable before it returns. `size` is the number of bytes that were read or appended; a larger file has
    new lines.

    :raises NotAuthenticError: a line was changed, or one before the last is missing.
    """

    def __init__(self, file: Path, keys: Keyring) -> None:
        self.file = file
        self._keys = keys
        self._macs: dict[str, hmac.HMAC] = {}
        self.size, self._digest = 0, ""
        self._content = hashlib.sha256()
        self._last: Record | None = None
        self._newest: Record | None = None
        self._added: dict[str, Record] = {}
        self._existing: dict[str, Record] = {}
        self._pruned: dict[str, None] = {}
        for number, line in enumerate(self._lines(), 1):
            record, previous = self._parse(line, number)
            if previous != self._digest:
                raise NotAuthenticError(f"{self.file}, line {number}: the line before it was removed or changed")
            self._apply(record, line)

    def created(self, name: str) -> Record | None:
        """Return the record of a backup's creation or adoption; None if there is none."""
        return self._added.get(name)

    @property
    def newest(self) -> Record | None:
        """The record of the backup with the highest number, whether it still exists or not."""
        return self._newest

    def existing(self) -> Mapping[str, Record]:
        """Return the backups that should exist, oldest first, by name."""
        return self._existing

    def pruned(self) -> list[str]:
        """Return the names of the backups that were pruned and not added again, oldest first."""
        return [name for name in self._pruned if name not in self._existing]

    @property
    def pending_creation(self) -> Record | None:
        """The backup that is getting its name, or was when the process died."""
        return self._last if self._last and self._last.event == CREATING else None

    @property
    def pending_removal(self) -> Record | None:
        """The backup that is being removed, or was when the process died."""
        return self._last if self._last and self._last.event == PRUNING else None

    def is_current(self) -> bool:
        """Tell whether the file has the lines that were read, and no more. That is faster than reading it anew."""
        content = hashlib.sha256()
        for line in self._lines():
            content.update(line)
        return content.digest() == self._content.digest()

    def sync(self) -> None:
        """Flush to the disk what was read: a process that was killed may have written it without a flush."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            durable.sync(self.file.parent)

    def append(self, record: Record) -> None:
        """Append a record, durably."""
        text = canonical.encode({**asdict(record), "previous": self._digest})
        key = self._keys.signer
        line = b"%s %s %s\n" % (text, key.encode("ascii"), self._sign(text, key).encode("ascii"))
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Overwrite a line that a crash has torn: its append has never returned.
            more = os.pread(descriptor, os.fstat(descriptor).st_size - self.size, self.size)
            size = self.size + more.rfind(b"\n") + 1
            os.ftruncate(descriptor, size)
            try:
                written = 0
                while written < len(line):
                    written += os.pwrite(descriptor, line[written:], size + written)
                os.fsync(descriptor)
            except OSError:
                # The line may not be durable: remove it, so that no reader trusts it.
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if not size:
            durable.sync(self.file.parent)
        self._apply(record, line)

    def _apply(self, record: Record, line: bytes) -> None:
        self._last, self._digest = record, hashlib.sha256(line).hexdigest()
        self._content.update(line)
        self.size += len(line)
        if record.event in (PRUNING, PRUNED):
            self._existing.pop(record.name, None)
        if record.event == PRUNED:
            self._pruned[record.name] = None
        if record.event in (CREATED, ADOPTED):
            self._added.setdefault(record.name, record)
            self._existing[record.name] = record
            if self._newest is None or record.seq > self._newest.seq:
                self._newest = record

    def _lines(self) -> Iterator[bytes]:
        """Yield the complete lines."""
        try:
            with self.file.open("rb") as stream:
                yield from (line for line in stream if line.endswith(b"\n"))
        except FileNotFoundError:
            return

    def _parse(self, line: bytes, number: int) -> tuple[Record, str]:
        where = f"{self.file}, line {number}"
        try:
            text, key, signature = line.rstrip(b"\n").rsplit(b" ", 2)
        except ValueError:
            raise NotAuthenticError(f"{where}: not a line of a catalog") from None
        try:
            expected = self._sign(text, key.decode("ascii", "replace"))
        except NotAuthenticError as error:
            raise NotAuthenticError(f"{where}: {error}") from None
        if not hmac.compare_digest(expected.encode("ascii"), signature):
            raise NotAuthenticError(
                f"{where}: the signature is wrong; the line was changed, or signed with another key"
            )
        content = canonical.decode(text)
        try:
            previous = content.pop("previous")
            return Record(**content), previous
        except (TypeError, KeyError, AttributeError) as error:
            raise NotAuthenticError(f"{where}: signed, but not a record of a catalog: {error}") from None

    def _sign(self, text: bytes, key: str) -> str:
        if key not in self._macs:
            self._macs[key] = self._keys.mac(keyring.CATALOG, key)
        mac = self._macs[key].copy()
        mac.update(text)
        return mac.hexdigest()


def sort_key(began: str, seq: int, *, adopted: bool) -> tuple[bool, str, int]:
    """Return the sort key of a backup, oldest first.

    The numbers of one machine increase. Adopted backups may be of several machines with numbers of their own, so that
    only the time of their snapshots orders them; they sort before all backups of this machine.
    """
    return not adopted, began if adopted else "", seq
