# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.
# pylint: disable=ansible-bad-function  # panelctl runs this too, without AnsibleModule

"""Compress and decompress in a child process: by igzip, several times as fast as pigz; by pigz; or here, by zlib."""

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

_CHUNK = 1 << 20  # bytes to read at once, and size of a pipe
_SMALL = 64 << 10  # bytes; smaller pieces are collected, because each handover costs a context switch
_OUTPUT = 256 << 10  # bytes of output to collect before they are written; a program returns a tenth of that at once
_BLOCK_MAX = 0xFFFF  # bytes in a stored block
_SAMPLE = 1024  # bytes of a piece that are examined
_RANDOM = 240  # distinct values in a sample; random bytes have 251 on average; code, text and databases have fewer
_INCOMPRESSIBLE_RUN = 8 << 20  # bytes in a row after which data is stored, because ending a program takes time
_LEVEL = 2  # as fast as 1 in igzip; the best level is a few percent smaller, and takes several times as long
_GZIP = 16 + zlib.MAX_WBITS  # zlib's value for a gzip header and trailer
_COMPRESSORS = (("igzip", f"-{_LEVEL}", "--stdout"), ("pigz", f"-{_LEVEL}", "--stdout"))
_DECOMPRESSORS = (("igzip", "--decompress", "--stdout"), ("pigz", "--decompress", "--stdout"))


@dataclass(frozen=True)
class Digest:
    """Size and digest of an archive file.

    :param sha256: in hexadecimal.
    """

    size: int
    sha256: str


class Compressor(Protocol):
    """Compresses bytes, and passes the result on."""

    def write(self, data: bytes) -> None:
        """Compress bytes.

        :raises OSError: the archive cannot be written.
        :raises BackupError: the compression program failed.
        """

    def close(self) -> None:
        """Write the rest; raises as `write` does."""

    def abort(self) -> None:
        """Stop, and discard unfinished work."""


class GzipWriter:
    """Writes a gzip file: compresses and hashes in one pass.

    The file has one or more gzip members (RFC 1952, section 2.2), which readers treat as one stream. Pictures and
    other compressed files would take as much time as compressible data, so they are stored in a member of their own.

    :param descriptor: the file; it stays open.
    :param tools: compression programs, the best one first; zlib is used if none is installed.

    `hashes` is for the digests of the files that are written.
    """

    def __init__(self, descriptor: int, tools: Sequence[Sequence[str]] = _COMPRESSORS) -> None:
        self._descriptor = descriptor
        self._command = _find(tools)
        self._archive_hashes = HashThread()
        self._sha256 = self._archive_hashes.new()
        self._size = 0
        self.written = 0
        self._small = bytearray()
        self._incompressible = 0
        self._compressor = self._new_compressor()
        self.hashes = HashThread()

    def write(self, data: bytes) -> None:
        """Compress bytes; raises as `Compressor.write` does."""
        self.written += len(data)
        if len(data) < _SMALL:
            self._small += data
        if len(data) >= _SMALL or len(self._small) >= _SMALL:
            self._flush()
        if len(data) >= _SMALL:
            self._compress(data)

    def close(self) -> Digest:
        """Complete the file; return its size and digest. Raises the errors of `Compressor.write`."""
        self._flush()
        self._close()
        self._end()
        return Digest(self._size, self._sha256.hexdigest())

    def abort(self) -> None:
        """Stop, and discard unfinished work."""
        self._compressor.abort()
        self._end()

    def _end(self) -> None:
        self.hashes.close()
        self._archive_hashes.close()

    def _flush(self) -> None:
        if self._small:
            self._compress(bytes(self._small))
            self._small.clear()

    def _compress(self, data: bytes) -> None:
        """Compress or store bytes."""
        # Small pieces are mostly headers of members, and show nothing about the large ones around them.
        if len(data) >= _SMALL:
            before = self._stored
            self._incompressible = self._incompressible + len(data) if _is_random(data) else 0
            if self._stored is not before:
                self._close()
                self._compressor = self._new_compressor()
        self._compressor.write(data)
        self._member_size += len(data)

    @property
    def _stored(self) -> bool:
        return self._incompressible > _INCOMPRESSIBLE_RUN

    def _new_compressor(self) -> Compressor:
        """Begin a gzip member; return what compresses it."""
        self._member_size, self._last = 0, b""
        if self._stored:
            return _StoredBlocks(self._put)
        return _ExternalCompressor(self._command, self._put) if self._command else _ZlibCompressor(self._put)

    def _close(self) -> None:
        """End a gzip member; raises as `Compressor.write` does."""
        self._compressor.close()
        # RFC 1952, section 2.3.1: a member ends with the size of its content. A truncated one ends otherwise.
        if int.from_bytes(self._last, "little") != self._member_size & 0xFFFFFFFF:
            raise BackupError("the compression program exited with status 0, but did not write everything; try again")

    def _put(self, data: bytes) -> None:
        self._sha256.update(data)
        self._last = (self._last + data[-4:])[-4:]
        write_all(self._descriptor, data)
        start_writeback(self._descriptor, self._size, len(data))
        self._size += len(data)


class _ZlibCompressor:
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


class _StoredBlocks:
    """Stores bytes uncompressed, in a third of the time of zlib (RFC 1951, section 3.2.4; RFC 1952)."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._crc = self._size = 0
        # Header: deflate, without name and time, unknown system.
        self._pieces: list[bytes | memoryview] = [b"\x1f\x8b\x08" + bytes(6) + b"\xff"]

    def write(self, data: bytes) -> None:
        self._crc, self._size = zlib.crc32(data, self._crc), self._size + len(data)
        for begin in range(0, len(data), _BLOCK_MAX):
            block = memoryview(data)[begin : begin + _BLOCK_MAX]
            self._pieces += (struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block)
        if sum(map(len, self._pieces)) >= _CHUNK:
            self._flush()

    def close(self) -> None:
        # The final block is empty.
        self._pieces.append(struct.pack("<BHHII", 1, 0, 0xFFFF, self._crc, self._size & 0xFFFFFFFF))
        self._flush()

    def _flush(self) -> None:
        # Joined once: a growing buffer would take as much time again for new pages from the kernel.
        self._put(b"".join(self._pieces))
        self._pieces = []

    def abort(self) -> None:
        pass


class _ExternalCompressor:
    """Compresses with a program; a thread reads its output."""

    def __init__(self, command: Sequence[str], put: Callable[[bytes], None]) -> None:
        self._put = put
        self._command = command
        self._error: BaseException | None = None
        child_input, self._input = _pipe()
        self._output, child_output = _pipe()
        try:
            self._process = subprocess.Popen(command, stdin=child_input, stdout=child_output)
        finally:
            os.close(child_input)
            os.close(child_output)
        self._thread = threading.Thread(target=self._read_output, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        try:
            write_all(self._input, data)
        except BrokenPipeError:
            self.close()
            raise BackupError(f"{self._command[0]} ended before its input did; try again") from None

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

    def _read_output(self) -> None:
        try:
            # Close the pipe in any case: the program would block on a full one without limit.
            with os.fdopen(self._output, "rb", buffering=_SMALL) as output:
                while data := output.read(_OUTPUT):
                    self._put(data)
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that writes)
            self._error = error


class GzipReader:
    """Reads the decompressed content of a gzip file, from its beginning; the file stays open."""

    def __init__(self, archive: int, tools: Sequence[Sequence[str]] = _DECOMPRESSORS) -> None:
        os.lseek(archive, 0, os.SEEK_SET)
        command = _find(tools)
        self._child: tuple[subprocess.Popen[bytes], BinaryIO] | None = None
        if command:
            output, child_output = _pipe()
            try:
                process = subprocess.Popen(command, stdin=archive, stdout=child_output)
            finally:
                os.close(child_output)
            self._child = process, os.fdopen(output, "rb", buffering=_CHUNK)
            self._read: Callable[[int], bytes] = self._child[1].read
        else:
            self._read = _Inflate(archive).read

    def read(self, size: int) -> bytes:
        """Return this many bytes; fewer only at the end.

        :raises BackupError: the file cannot be decompressed.
        """
        return self._read(size)

    def close(self, *, whole: bool) -> None:
        """End the decompression.

        :param whole: whether everything was read, so that the program must have exited with status 0.
        :raises BackupError: it has not.
        """
        if self._child is None:
            return
        process, output = self._child
        if not whole:
            process.kill()
        output.close()
        if process.wait() and whole:
            raise BackupError(
                f"the archive cannot be decompressed: the program failed with status {process.returncode}"
            )


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
                # The next gzip member begins.
                self._stream = zlib.decompressobj(wbits=_GZIP)
            try:
                piece = self._stream.decompress(data, size)
            except zlib.error as error:
                raise BackupError(f"the archive cannot be decompressed: {error}") from None
            if not data and not piece:
                raise BackupError("the archive cannot be decompressed: it is truncated")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _is_random(data: bytes) -> bool:
    """Tell whether data cannot be compressed, by the number of distinct byte values in a sample.

    :param data: at least _SAMPLE bytes.
    """
    return len(set(data[:: len(data) // _SAMPLE][:_SAMPLE])) >= _RANDOM


def write_all(descriptor: int, data: bytes) -> None:
    """Write all data to a file."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def start_writeback(descriptor: int, begin: int, size: int) -> None:
    """Have Linux start to flush what was just written there, so that a later fsync has little to wait for."""
    # The call is for freeing the page cache; dirty pages stay, but are flushed. `os` has no sync_file_range(2).
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_DONTNEED)


def _find(tools: Sequence[Sequence[str]]) -> list[str]:
    for tool in tools:
        found = shutil.which(tool[0])
        if found:
            return [found, *tool[1:]]
    return []


def _pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe()
    # A larger pipe takes fewer context switches. Without root it may exceed the limit for all pipes of the user.
    with contextlib.suppress(OSError):
        fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, _CHUNK)
    return read_end, write_end
