# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import os
import subprocess
import tarfile

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import tar
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import NotAuthenticError
from hypothesis import given
from hypothesis import strategies as st

names = st.binary(min_size=1, max_size=120).filter(lambda name: not {0, 0x2F} & set(name) and name not in (b".", b".."))
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: os.fsdecode(b"/".join(parts)))
owners = st.integers(0, 2**32 - 2)
times = st.integers(-(2**40), 2**40)
modes = st.integers(0, 0o7777)
files = st.builds(tar.Member, paths, st.just(tar.FILE), modes, owners, owners, st.integers(0, 2000), times)
folders = st.builds(tar.Member, paths, st.just(tar.FOLDER), modes, owners, owners, st.just(0), times)


def archive(*found):
    data = b""
    for member, content in found:
        data += tar.header(member) + content + tar.padding(len(content))
    return data + tar.end(len(data))


def read(data):
    return [(member, b"".join(content)) for member, content in tar.members(io.BytesIO(data).read)]


@given(st.lists(st.one_of(files, folders), max_size=5))
def test_archives_are_readable_here_and_by_tarfile(found):
    written = [(member, b"x" * member.size) for member in found]
    data = archive(*written)
    assert len(data) % 10240 == 0
    assert read(data) == written
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as other:
        there = other.getmembers()
        assert [(item.name, item.isdir(), item.size) for item in there] == [
            (member.path, member.kind == tar.FOLDER, member.size) for member in found
        ]
        for item, member in zip(there, found, strict=True):
            assert (item.mode, item.uid, item.gid, item.mtime) == (member.mode, member.uid, member.gid, member.mtime)


@given(st.integers(8**11 - 1, 2**60))
def test_a_size_that_needs_a_pax_header(size):
    member = tar.Member("large", tar.FILE, 0o600, size=size)
    head = tar.header(member)
    found, _ = next(tar.members(io.BytesIO(head).read))
    assert found == member
    with tarfile.open(fileobj=io.BytesIO(head), mode="r|") as other:
        assert next(iter(other)).size == size


@pytest.mark.parametrize("style", ["ustar", "posix", "gnu"])
def test_archives_of_gnu_tar_are_readable(style, tmp_path):
    deep = tmp_path / "tree" / "folder"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"content")
    (deep / "empty").touch()
    (deep / ("long" * 24)).write_text("x" * 600)
    options = ["--sort=name", f"--format={style}", "--blocking-factor=20", "--no-recursion"]
    shown = ["tree/folder", "tree/folder/empty", "tree/folder/file", f"tree/folder/{'long' * 24}"]
    if style == "gnu":
        # GNU's own format has longer names in a type of member that is refused.
        shown.pop()
    done = subprocess.run(["tar", "-C", tmp_path, *options, "-cf", "-", *shown], capture_output=True, check=True)
    found = read(done.stdout)
    assert [member.path for member, _ in found] == shown
    assert {member.path: content for member, content in found}["tree/folder/file"] == b"content"


def test_archives_are_readable_by_gnu_tar(tmp_path):
    long = "/".join(["a" * 60] * 6)
    data = archive(
        (tar.Member("d", tar.FOLDER, 0o750), b""), (tar.Member(f"d/{long}", tar.FILE, 0o640, size=3), b"abc")
    )
    subprocess.run(["tar", "-C", tmp_path, "--no-same-owner", "-xpf", "-"], input=data, check=True, capture_output=True)
    assert (tmp_path / "d" / long).read_bytes() == b"abc"
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o750


def hostile(**changes):
    """Return an archive of one empty member, written by the standard library."""
    style = changes.pop("format", tarfile.PAX_FORMAT)
    item = tarfile.TarInfo("member")
    for name, value in changes.items():
        setattr(item, name, value)
    return item.tobuf(style) + bytes(tar.BLOCK * 2)


@pytest.mark.parametrize(
    "data",
    [
        *(
            hostile(type=kind, linkname="/etc/passwd")
            for kind in (b"1", b"2", b"3", b"4", b"6", b"7", b"S", b"g", b"Z")
        ),
        hostile(type=tarfile.DIRTYPE, size=512),
        hostile(pax_headers={"linkpath": "/etc/passwd"}),
        hostile(pax_headers={"GNU.sparse.major": "1"}),
        hostile(pax_headers={"path": "x" * 70_000}),
        hostile(pax_headers={"size": "-1"}),
        hostile(pax_headers={"size": "1e3"}),
        hostile(name="n" * 200, format=tarfile.GNU_FORMAT),
        hostile(size=2**40, format=tarfile.GNU_FORMAT),
        b"",
        bytes(tar.BLOCK),
        bytes(2 * tar.BLOCK) + b"x" * tar.BLOCK,
        bytes(2 * tar.BLOCK + 20 * tar.BLOCK),
        b"\x1f\x8b" * tar.BLOCK,
    ],
)
def test_unexpected_members_are_refused(data):
    with pytest.raises(NotAuthenticError):
        read(data)


@pytest.fixture(scope="module")
def small():
    member = tar.Member("folder/file", tar.FILE, 0o600, size=3, mtime=1_700_000_000)
    long = tar.Member("l" * 120, tar.FILE, 0o600, size=2)
    return archive((tar.Member("folder", tar.FOLDER, 0o700), b""), (member, b"abc"), (long, b"de"))


def test_a_truncated_archive_is_refused_wherever_it_ends(small):
    # The padding of the last record may be missing.
    needed = len(small.rstrip(b"\0")) // tar.BLOCK * tar.BLOCK + 3 * tar.BLOCK
    for size in range(needed):
        with pytest.raises(NotAuthenticError):
            read(small[:size])


@given(st.data())
def test_a_flipped_bit_raises_no_other_error(small, data):
    place = data.draw(st.integers(0, len(small) - 1))
    broken = bytearray(small)
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = read(bytes(broken))
    except NotAuthenticError:
        return
    # The checksums of tar do not cover contents and valid pax headers; the manifest does.
    assert len(found) == 3


def test_unread_content_is_skipped(small):
    assert [member.path for member, _ in tar.members(io.BytesIO(small).read)] == ["folder", "folder/file", "l" * 120]
