# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Compress and decompress beside this process: by igzip, several times as fast as pigz, or by what else there is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from ..errors import BackupError
from .hashing import HashThread

_CHUNK = 1 << 20  # bytes at once, and of a pipe
_SMALL = 64 << 10  # bytes; pieces below are gathered, because each one that is handed over costs a turn
_TAKEN = 256 << 10  # bytes of what a program gives, before something is done with them: it gives a tenth of that
_BLOCK = 0xFFFF  # bytes of a block that stores them, at most
_SAMPLE = 1024  # bytes that are looked at of a piece
_RANDOM = 240  # values that a thousand random bytes have, 251 in the mean; code, text and databases have fewer
_IN_A_ROW = 8 << 20  # bytes that cannot shrink, before that is not tried any more: to end a program costs a turn
_LEVEL = 2  # igzip takes as long as for 1; the best size is a few percent smaller and takes several times as long
_GZIP = 16 + zlib.MAX_WBITS  # what zlib calls a gzip header and trailer
_WRITERS = (("igzip", f"-{_LEVEL}", "--stdout"), ("pigz", f"-{_LEVEL}", "--stdout"))
_READERS = (("igzip", "--decompress", "--stdout"), ("pigz", "--decompress", "--stdout"))


@dataclass(frozen=True)
class Digest:
    """Of an archive, as it lies on the disk.

    :param sha256: in hexadecimal.
    """

    size: int
    sha256: str


class Compressor(Protocol):
    """Takes bytes, and gives what is written of them to the archive."""

    def write(self, data: bytes) -> None:
        """Take bytes.

        :raises OSError: the archive cannot be written.
        :raises BackupError: the program that compresses has died.
        """

    def close(self) -> None:
        """Write all that is left; raises as `write` does."""

    def abort(self) -> None:
        """End it, whatever it is at."""


class GzipWriter:
    """An archive that is being written: compressed and digested in one pass.

    It is one or more members of gzip's (RFC 1952, section 2.2), which every reader takes for one stream: pictures, and
    what was compressed before, would cost as much time as all that shrinks, so that they are stored in a member of
    their own.

    :param descriptor: the file; it stays open.
    :param tools: programs to compress with, the best one first; where none is there, zlib does it here.

    `sums` digests what goes in, by the file.
    """

    def __init__(self, descriptor: int, tools: Sequence[Sequence[str]] = _WRITERS) -> None:
        self._descriptor = descriptor
        self._command = _find(tools)
        self._archive_sums = HashThread()
        self._sha256 = self._archive_sums.new()
        self._size = 0
        self.written = 0
        self._small = bytearray()
        self._in_a_row = 0
        self._compressor = self._begin()
        self.sums = HashThread()

    def write(self, data: bytes) -> None:
        """Add bytes; raises as `Compressor.write` does."""
        self.written += len(data)
        if len(data) < _SMALL:
            self._small += data
        if len(data) >= _SMALL or len(self._small) >= _SMALL:
            self._flush()
        if len(data) >= _SMALL:
            self._take(data)

    def close(self) -> Digest:
        """End it; raises as `Compressor.write` does."""
        self._flush()
        self._close()
        self._end()
        return Digest(self._size, self._sha256.hexdigest())

    def abort(self) -> None:
        """End it, whatever it is at."""
        self._compressor.abort()
        self._end()

    def _end(self) -> None:
        self.sums.close()
        self._archive_sums.close()

    def _flush(self) -> None:
        if self._small:
            self._take(bytes(self._small))
            self._small.clear()

    def _take(self, data: bytes) -> None:
        """Compress it, or store it."""
        # Between large pieces there are headers, which say nothing of what is around them.
        if len(data) >= _SMALL:
            before = self._stored
            self._in_a_row = self._in_a_row + len(data) if _is_random(data) else 0
            if self._stored is not before:
                self._close()
                self._compressor = self._begin()
        self._compressor.write(data)
        self._taken += len(data)

    @property
    def _stored(self) -> bool:
        return self._in_a_row > _IN_A_ROW

    def _begin(self) -> Compressor:
        """Begin a member."""
        self._taken, self._last = 0, b""
        if self._stored:
            return _Stored(self._put)
        return _Child(self._command, self._put) if self._command else _Zlib(self._put)

    def _close(self) -> None:
        """End a member; raises as `Compressor.write` does."""
        self._compressor.close()
        # RFC 1952, section 2.3.1: it ends with the size of what went in. What was cut, by whomever, ends otherwise.
        if int.from_bytes(self._last, "little") != self._taken & 0xFFFFFFFF:
            raise BackupError("what compresses has ended well, but not written all of it")

    def _put(self, data: bytes) -> None:
        self._sha256.update(data)
        self._last = (self._last + data[-4:])[-4:]
        write_all(self._descriptor, data)
        start_writeback(self._descriptor, self._size, len(data))
        self._size += len(data)


class _Zlib:
    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._stream = zlib.compressobj(_LEVEL, wbits=_GZIP)

    def write(self, data: bytes) -> None:
        if compressed := self._stream.compress(data):
            self._put(compressed)

    def close(self) -> None:
        self._put(self._stream.flush())

    def abort(self) -> None:
        pass


class _Stored:
    """Bytes as they are, in a third of the time that zlib takes for that (RFC 1951, section 3.2.4; RFC 1952)."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._crc = self._size = 0
        # Deflate, with no name and no time, by whichever system.
        self._pieces: list[bytes | memoryview] = [b"\x1f\x8b\x08" + bytes(6) + b"\xff"]

    def write(self, data: bytes) -> None:
        self._crc, self._size = zlib.crc32(data, self._crc), self._size + len(data)
        for begin in range(0, len(data), _BLOCK):
            block = memoryview(data)[begin : begin + _BLOCK]
            self._pieces += (struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block)
        if sum(map(len, self._pieces)) >= _CHUNK:
            self._flush()

    def close(self) -> None:
        # The last block is an empty one.
        self._pieces.append(struct.pack("<BHHII", 1, 0, 0xFFFF, self._crc, self._size & 0xFFFFFFFF))
        self._flush()

    def _flush(self) -> None:
        # One copy: a buffer that grows costs as much again in pages that the kernel has to give.
        self._put(b"".join(self._pieces))
        self._pieces = []

    def abort(self) -> None:
        pass


class _Child:
    """A program that compresses; a thread takes what it gives."""

    def __init__(self, command: Sequence[str], put: Callable[[bytes], None]) -> None:
        self._put = put
        self._command = command
        self._error: BaseException | None = None
        its_input, self._input = _pipe()
        self._output, its_output = _pipe()
        try:
            self._process = subprocess.Popen(command, stdin=its_input, stdout=its_output)
        finally:
            os.close(its_input)
            os.close(its_output)
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        try:
            write_all(self._input, data)
        except BrokenPipeError:
            self.close()
            raise BackupError(f"{self._command[0]} ended too early") from None

    def close(self) -> None:
        self._end()
        if self._error is not None:
            raise self._error
        if self._process.returncode:
            raise BackupError(f"{self._command[0]} failed with status {self._process.returncode}")

    def abort(self) -> None:
        self._process.kill()
        self._end()

    def _end(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1
        self._thread.join()
        self._process.wait()

    def _take(self) -> None:
        try:
            # Closed whatever happens, or the program would wait for ever for somebody to take what it has.
            with os.fdopen(self._output, "rb", buffering=_SMALL) as output:
                while data := output.read(_TAKEN):
                    self._put(data)
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that asked)
            self._error = error


class GzipReader:
    """The content of an archive, from the beginning of a file that stays open."""

    def __init__(self, archive: int, tools: Sequence[Sequence[str]] = _READERS) -> None:
        os.lseek(archive, 0, os.SEEK_SET)
        command = _find(tools)
        self._child: tuple[subprocess.Popen[bytes], BinaryIO] | None = None
        if command:
            ours, its_output = _pipe()
            try:
                process = subprocess.Popen(command, stdin=archive, stdout=its_output)
            finally:
                os.close(its_output)
            self._child = process, os.fdopen(ours, "rb", buffering=_CHUNK)
            self._read: Callable[[int], bytes] = self._child[1].read
        else:
            self._read = _Inflate(archive).read

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer only at the end.

        :raises BackupError: it cannot be decompressed.
        """
        return self._read(size)

    def close(self, *, whole: bool) -> None:
        """End it.

        :param whole: whether all was read, so that what decompresses must have ended well.
        :raises BackupError: it has not.
        """
        if self._child is None:
            return
        process, output = self._child
        if not whole:
            process.kill()
        output.close()
        if process.wait() and whole:
            raise BackupError(f"the archive cannot be decompressed: status {process.returncode}")


class _Inflate:
    def __init__(self, archive: int) -> None:
        self._archive = archive
        self._stream = zlib.decompressobj(wbits=_GZIP)

    def read(self, size: int) -> bytes:
        pieces = []
        while size:
            data = self._stream.unconsumed_tail or self._stream.unused_data or os.read(self._archive, _CHUNK)
            if self._stream.eof:
                if not data:
                    break
                # The next member.
                self._stream = zlib.decompressobj(wbits=_GZIP)
            try:
                piece = self._stream.decompress(data, size)
            except zlib.error as error:
                raise BackupError(f"the archive cannot be decompressed: {error}") from None
            if not data and not piece:
                raise BackupError("the archive ends too early")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _is_random(data: bytes) -> bool:
    """Tell whether nothing would make this smaller, by how many values its bytes have.

    :param data: a thousand bytes at least.
    """
    return len(set(data[:: len(data) // _SAMPLE][:_SAMPLE])) >= _RANDOM


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def start_writeback(descriptor: int, begin: int, size: int) -> None:
    """Have Linux begin to put on the disk what was just written there, so that a sync later has little to wait for."""
    # Meant to free memory, which pages that are not on the disk yet outlast. sync_file_range(2) is not in `os`.
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_DONTNEED)


def _find(tools: Sequence[Sequence[str]]) -> list[str]:
    for tool in tools:
        found = shutil.which(tool[0])
        if found:
            return [found, *tool[1:]]
    return []


def _pipe() -> tuple[int, int]:
    ours, others = os.pipe()
    # Fewer turns; a user without root has a limit for all of his pipes.
    with contextlib.suppress(OSError):
        fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _CHUNK)
    return ours, others
