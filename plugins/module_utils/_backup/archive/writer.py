# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Members of an archive, as they go in: each is digested while it is read, and gets its line of the manifest."""

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
_WAITING = 64  # members that may still be digested while the next ones are read
_WARNINGS = 256 << 10  # bytes of all; they are in one line of the manifest, which must not become too long to be read


class Writer:
    """Takes members.

    :param archive: where they go.
    :param lines: a file of no name, for the lines of the manifest.
    """

    def __init__(self, archive: GzipWriter, lines: BinaryIO, progress: Progress = SILENT) -> None:
        self._archive = archive
        self._progress = progress
        self._lines = lines
        self._waiting: deque[tuple[tar.Member, Hash | None]] = deque()
        self.members = 0
        self.content_size = 0
        self.warnings: list[str] = []
        self._room = _WARNINGS
        self.partial = False

    def warn(self, text: str, *, partial: bool = False) -> None:
        """Say that something is not as one would expect.

        :param partial: whether something that was asked for is missing or torn.
        """
        self.partial |= partial
        if self._room <= 0 or self.warnings[-1:] == [text]:
            return
        self._room -= len(canonical.encode(text))
        self.warnings.append(text if self._room > 0 else "there are more warnings than there is room for")

    def folder(self, path: str, status: os.stat_result) -> None:
        """Add a folder."""
        member = _member(path, tar.FOLDER, status, size=0)
        self._archive.write(tar.header(member))
        self._note(member, None)

    def file(self, path: str, descriptor: int, metadata: os.stat_result | None = None) -> None:
        """Add a file, from its beginning: as much as there is now, whatever is written to it meanwhile.

        :param metadata: whose mode, owner and time it gets, where it is a copy.
        """
        status = os.fstat(descriptor)
        member = _member(path, tar.FILE, metadata or status, size=status.st_size)
        digest = self._archive.sums.new()
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
            self.warn(f"{path}: it changed while it was read", partial=True)
        self._note(member, digest)

    def _read(self, path: str, descriptor: int, room: int) -> bytes:
        """Read some of a file; zeroes where it has no more, because its header has promised so many bytes."""
        try:
            data = os.read(descriptor, room)
        except OSError as error:
            raise BackupError(f"{path}: {error.strerror}; mend that, or exclude it from backups") from None
        if not data:
            self.warn(f"{path}: it became shorter while it was read; zeroes fill it up", partial=True)
        return data or bytes(room)

    def end(self) -> Iterator[bytes]:
        """End the archive's content; gives the lines of the manifest."""
        self._archive.write(tar.end(self._archive.written))
        self._write_lines(0)
        self._lines.seek(0)
        return iter(self._lines)

    def _note(self, member: tar.Member, digest: Hash | None) -> None:
        self._waiting.append((member, digest))
        self._write_lines(_WAITING)
        self.members += 1
        self.content_size += member.size

    def _write_lines(self, left: int) -> None:
        while len(self._waiting) > left:
            member, digest = self._waiting.popleft()
            entry = manifest.Entry(member, digest.hexdigest() if digest else "")
            self._lines.write(manifest.encode_entry(entry))


def _member(path: str, kind: str, status: os.stat_result, *, size: int) -> tar.Member:
    return tar.Member(
        path=path,
        kind=kind,
        # Who runs what with whose rights is nothing that a backup should bring back.
        mode=stat.S_IMODE(status.st_mode) & 0o777,
        uid=status.st_uid,
        gid=status.st_gid,
        size=size,
        mtime=int(status.st_mtime),
    )
