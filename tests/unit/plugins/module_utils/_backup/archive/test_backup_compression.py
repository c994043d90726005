# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Incompressible data is stored, whichever program compresses, and every reader takes the archive for one stream."""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from random import Random

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive.compression import GzipReader, GzipWriter
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError

MIB = 1 << 20
HEADER = b"header".ljust(512, b"\0")
TEXT = b"".join(b"%d bottles of beer on the wall\n" % n for n in range(MIB // 32))[:MIB]
ODD = 333_333
IN_A_ROW = 8  # MiB of what cannot shrink, before it is stored

# Decompression programs; without any of them, zlib decompresses.
READERS = {
    "igzip": [("igzip", "--decompress", "--stdout")],
    "pigz": [("pigz", "--decompress", "--stdout")],
    "gzip": [("gzip", "--decompress", "--stdout")],
    "zlib": [],
}
WRITERS = {"igzip": [("igzip", "-2", "--stdout")], "pigz": [("pigz", "-2", "--stdout")], "zlib": []}


def there(tools):
    """Return the programs that this machine has."""
    return [name for name in tools if name == "zlib" or shutil.which(name)]


@pytest.fixture(params=there(WRITERS))
def writer(request):
    return WRITERS[request.param]


@pytest.fixture
def archive(tmp_path):
    with (tmp_path / "archive.gz").open("w+b", buffering=0) as file:
        yield file


def random(mebibytes):
    """Return random bytes that are the same in each run."""
    generator = Random(mebibytes)
    return [generator.randbytes(MIB) for _ in range(mebibytes)]


def read(file, tools):
    """Read everything, in pieces of an odd size."""
    stream = GzipReader(file.fileno(), tools)
    pieces = list(iter(lambda: stream.read(ODD), b""))
    stream.close(whole=True)
    assert {len(piece) for piece in pieces[:-1]} <= {ODD}
    return b"".join(pieces)


def write(file, pieces, tools):
    archive = GzipWriter(file.fileno(), tools)
    for piece in pieces:
        archive.write(HEADER)
        archive.write(piece)
    digest = archive.close()
    file.seek(0)
    written = file.read()
    assert (digest.size, digest.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    return b"".join(HEADER + piece for piece in pieces)


def members(file):
    """Return the content of each gzip member."""
    file.seek(0)
    rest, found = file.read(), []
    while rest:
        stream = zlib.decompressobj(wbits=31)
        found.append(stream.decompress(rest))
        assert stream.eof
        rest = stream.unused_data
    return found


@pytest.mark.parametrize("reader", there(READERS))
def test_all_readers_take_the_members_for_one_stream(reader, writer, archive):
    pieces = [TEXT, *random(IN_A_ROW + 2), TEXT, TEXT[:70_000], *random(IN_A_ROW + 1), b"end"]
    content = write(archive, pieces, writer)
    assert len(members(archive)) == 4
    assert read(archive, READERS[reader]) == content


def test_incompressible_data_is_stored_after_a_while(writer, archive):
    pieces = [*random(IN_A_ROW + 3), TEXT]
    content = write(archive, pieces, writer)
    first, stored, last = members(archive)
    assert first + stored + last == content
    assert stored in content
    assert (len(first) // MIB, len(stored) // MIB, len(last) // MIB) == (IN_A_ROW, 3, 1)
    archive.seek(0)
    # In blocks of 64 KiB.
    assert pieces[IN_A_ROW + 1][:60_000] in archive.read()
    assert os.fstat(archive.fileno()).st_size < len(content)


def test_short_runs_of_incompressible_data_start_no_new_member(writer, archive):
    """Pictures between pages, or a short log between pictures, are not worth the end of a program."""
    content = write(archive, [piece for picture in random(2 * IN_A_ROW) for piece in (picture, TEXT)], writer)
    assert members(archive) == [content]
    archive.seek(0)
    archive.truncate()
    content = write(archive, [piece for picture in random(3 * IN_A_ROW) for piece in (picture, TEXT[:1000])], writer)
    assert len(members(archive)) == 2


@pytest.mark.parametrize("reader", there(READERS))
def test_a_truncated_archive_is_refused(reader, archive):
    """In a stored member, whose bytes a reader could return before it sees the end."""
    write(archive, random(IN_A_ROW + 2), [])
    archive.truncate(os.fstat(archive.fileno()).st_size - 100_000)
    with pytest.raises(BackupError):
        read(archive, READERS[reader])
