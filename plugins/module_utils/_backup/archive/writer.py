# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Write the members of an archive: each is hashed while it is read, and gets its line in the manifest."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import BackupError
from ..progress import SILENT, Progress
from . import canonical, manifest, tar
from .compression import GzipWriter
from .hashing import Hash

_CHUNK = 1 << 20  # bytes
_PENDING_MAX = 64  # members that may still be hashed while the next ones are read
_WARNINGS_MAX = 256 << 10  # bytes of all warnings; they are in one line of the manifest, whose length is limited


class Writer:
    """Writes members.

    :param archive: the archive that they are written to.
    :param lines: an unnamed file for the lines of the manifest.
    """

    def __init__(self, archive: GzipWriter, lines: BinaryIO, progress: Progress = SILENT) -> None:
        self._archive = archive
        self._progress = progress
        self._lines = lines
        self._pending: deque[tuple[tar.Member, Hash | None]] = deque()
        self.members = 0
        self.content_size = 0
        self.warnings: list[str] = []
        self._warnings_left = _WARNINGS_MAX
        self.partial = False

    def warn(self, text: str, *, partial: bool = False) -> None:
        """Add a warning to the manifest.

        :param partial: whether something that was asked for is missing or torn.
        """
        self.partial |= partial
        if self._warnings_left <= 0 or self.warnings[-1:] == [text]:
            return
        self._warnings_left -= len(canonical.encode(text))
        self.warnings.append(text if self._warnings_left > 0 else "there are more warnings than there is room for")

    def folder(self, path: str, status: os.stat_result) -> None:
        """Write a folder."""
        member = _member(path, tar.FOLDER, status, size=0)
        self._archive.write(tar.header(member))
        self._add(member, None)

    def file(self, path: str, descriptor: int, metadata: os.stat_result | None = None) -> None:
        """Write a file from its beginning, with the size that it has now, even if it changes meanwhile.

        :param metadata: mode, owner and time to use instead of the file's own, if it is a copy.
        """
        status = os.fstat(descriptor)
        member = _member(path, tar.FILE, metadata or status, size=status.st_size)
        digest = self._archive.hashes.new()
        self._archive.write(tar.header(member))
        left = member.size
        while left:
            data = self._read(path, descriptor, min(left, _CHUNK))
            digest.update(data)
            self._archive.write(data)
            self._progress.advance(len(data))
            left -= len(data)
        self._archive.write(tar.padding(member.size))
        after = os.fstat(descriptor)
        if (after.st_mtime_ns, after.st_size) != (status.st_mtime_ns, status.st_size):
            self.warn(f"{path}: the file changed while it was read", partial=True)
        self._add(member, digest)

    def _read(self, path: str, descriptor: int, size: int) -> bytes:
        """Read from a file; return zeros at its end, because the header has promised a number of bytes."""
        try:
            data = os.read(descriptor, size)
        except OSError as error:
            raise BackupError(
                f"{path}: cannot read the file: {error.strerror}; repair it, or exclude it from backups"
            ) from None
        if not data:
            self.warn(f"{path}: the file became shorter while it was read; the rest is zeros", partial=True)
        return data or bytes(size)

    def end(self) -> Iterator[bytes]:
        """End the content of the archive; return the lines of the manifest."""
        self._archive.write(tar.end(self._archive.written))
        self._write_lines(0)
        self._lines.seek(0)
        return iter(self._lines)

    def _add(self, member: tar.Member, digest: Hash | None) -> None:
        self._pending.append((member, digest))
        self._write_lines(_PENDING_MAX)
        self.members += 1
        self.content_size += member.size

    def _write_lines(self, left: int) -> None:
        while len(self._pending) > left:
            member, digest = self._pending.popleft()
            entry = manifest.Entry(member, digest.hexdigest() if digest else "")
            self._lines.write(manifest.encode_entry(entry))


def _member(path: str, kind: str, status: os.stat_result, *, size: int) -> tar.Member:
    return tar.Member(
        path=path,
        kind=kind,
        # Without setuid, setgid and sticky bits: a restore should not bring back privileges.
        mode=stat.S_IMODE(status.st_mode) & 0o777,
        uid=status.st_uid,
        gid=status.st_gid,
        size=size,
        mtime=int(status.st_mtime),
    )
