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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..._host import durable
from ..archive import canonical, keyring
from ..archive.keyring import Keyring
from ..errors import NotAuthenticError

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


class Catalog:
    """The file, read as a whole. What it says of each backup is kept, not its lines, of which there are ever more.

    An append is durable before it returns. `size` is that of the lines, which tells whether there are more by now.

    :raises NotAuthenticError: a line was changed, or one is missing before the last.
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
            record, before = self._parse(line, number)
            if before != self._digest:
                raise NotAuthenticError(f"{self.file}, line {number}: the line before it was taken out or changed")
            self._take(record, line)

    def created(self, name: str) -> Record | None:
        """Return what is written down of a backup's creation or adoption."""
        return self._added.get(name)

    @property
    def newest(self) -> Record | None:
        """What is written down of the backup with the highest number, whether it is still there or not."""
        return self._newest

    def existing(self) -> Mapping[str, Record]:
        """Return the backups that should be there, oldest first, by their names."""
        return self._existing

    def pruned(self) -> list[str]:
        """Return the names of the backups that were pruned and did not come back, oldest first."""
        return [name for name in self._pruned if name not in self._existing]

    @property
    def pending_creation(self) -> Record | None:
        """The backup that is about to get its name, or was when its process died."""
        return self._last if self._last and self._last.event == CREATING else None

    @property
    def pending_removal(self) -> Record | None:
        """The removal that is under way, or was when its process died."""
        return self._last if self._last and self._last.event == PRUNING else None

    def is_current(self) -> bool:
        """Tell whether the file has the lines that were read, and no more: that is fast, and reading them is not."""
        content = hashlib.sha256()
        for line in self._lines():
            content.update(line)
        return content.digest() == self._content.digest()

    def sync(self) -> None:
        """Have on the disk what was read: one that was killed may have written it, and nothing may build on less."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            durable.sync(self.file.parent)

    def append(self, record: Record) -> None:
        """Add a record, durably."""
        text = canonical.encode({**asdict(record), "previous": self._digest})
        key = self._keys.signer
        line = b"%s %s %s\n" % (text, key.encode("ascii"), self._sign(text, key).encode("ascii"))
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Over what a crash has torn: that line was never acknowledged.
            more = os.pread(descriptor, os.fstat(descriptor).st_size - self.size, self.size)
            size = self.size + more.rfind(b"\n") + 1
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
            durable.sync(self.file.parent)
        self._take(record, line)

    def _take(self, record: Record, line: bytes) -> None:
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
        """Read the whole lines, one after the other."""
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
        if key not in self._macs:
            self._macs[key] = self._keys.mac(keyring.CATALOG, key)
        mac = self._macs[key].copy()
        mac.update(text)
        return mac.hexdigest()


def sort_key(began: str, seq: int, *, adopted: bool) -> tuple[bool, str, int]:
    """Return what sorts backups, oldest first.

    Numbers count up on one machine. What was adopted comes from one before it, or several, each with numbers of its
    own: there is nothing but their clocks to say which is older.
    """
    return not adopted, began if adopted else "", seq
