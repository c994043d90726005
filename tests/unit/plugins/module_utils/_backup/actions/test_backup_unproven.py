# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of the first format, which are not signed: extracted only on request, and checked thoroughly."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, extract
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError, NotAuthenticError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import directory
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import State

NAME = "backup_20240101_000000"
SMALL = extract.ArchiveLimits(members=100, size=1 << 20)


def packed(*items):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as target:
        for item, content in items:
            item.size = len(content)
            target.addfile(item, io.BytesIO(content))
    return buffer.getvalue()


def item(name="file", **changes):
    found = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(found, key, value)
    return found


@pytest.fixture
def put(store):
    """Create an archive of the first format."""

    def write(archive, info=None):
        store.folder.mkdir(exist_ok=True)
        store.path(NAME, names.ARCHIVE).write_bytes(archive)
        told = f"MD5: {hashlib.md5(archive, usedforsecurity=False).hexdigest()}\n" if info is None else info
        store.path(NAME, names.INFO).write_text(told)

    return write


def restore(store, to, limits=SMALL):
    with extract.unproven_archive(store, NAME) as archive:
        extract.extract_unproven(archive, to, limits)


def test_archive_of_the_first_format_is_extracted(store, put, tmp_path):
    put(packed((item("./data", type=tarfile.DIRTYPE, mode=0o750), b""), (item("./data/file", mtime=1.5), b"content")))
    assert [backup.state for backup in store.backups()] == [State.OLD]
    restore(store, tmp_path / "to")
    assert (tmp_path / "to/data/file").read_bytes() == b"content"


@pytest.mark.parametrize("info", ["MD5: " + "0" * 32 + "\n", "Format: v2\nSHA256: " + "0" * 64 + "\n"])
def test_wrong_digest_is_refused(info, store, put, tmp_path):
    put(packed((item(), b"x")), info)
    with pytest.raises(NotAuthenticError, match="differs from the one"):
        restore(store, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_signed_backup_is_not_extracted_unproven(store, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    signed = create.create(store, [directory.Files("data", root)])
    store.path(signed.name, names.MANIFEST).unlink()
    with (
        pytest.raises(NotAuthenticError, match="--unproven restores nothing else"),
        extract.unproven_archive(store, signed.name),
    ):
        pass
    with pytest.raises(BackupError, match="no such backup"), extract.unproven_archive(store, NAME):
        pass


@pytest.mark.parametrize(
    "items",
    [
        [(item("../outside"), b"x")],
        [(item("/outside"), b"x")],
        [(item("a/../../outside"), b"x")],
        [(item("link", type=tarfile.SYMTYPE, linkname="/etc"), b""), (item("link/passwd"), b"x")],
        [(item("link", type=tarfile.LNKTYPE, linkname="/etc/passwd"), b"")],
        [(item("device", type=tarfile.CHRTYPE), b"")],
        [(item("pipe", type=tarfile.FIFOTYPE), b"")],
        [(item("twice"), b"x"), (item("twice"), b"y")],
        [(item("file"), b"x"), (item("file/below"), b"y")],
        [(item("file"), b"x"), (item("file", type=tarfile.DIRTYPE), b"")],
        [(item("/".join(["d"] * 300)), b"x")],
        [(item(f"{number}"), b"") for number in range(101)],
        [(item("large"), bytes((1 << 20) + 1))],
    ],
)
def test_hostile_members_are_refused_and_nothing_is_written_outside(items, store, put, tmp_path):
    deep = tmp_path / "deep"
    deep.mkdir()
    put(packed(*items))
    with pytest.raises(NotAuthenticError):
        restore(store, deep / "to")
    assert not (tmp_path / "outside").exists()
    assert [path.name for path in deep.iterdir()] in ([], ["to"])


def test_set_id_bits_are_dropped(store, put, tmp_path):
    put(packed((item("tool", mode=0o6755), b"x"), (item("folder", type=tarfile.DIRTYPE, mode=0o3777), b"")))
    restore(store, tmp_path / "to")
    assert (tmp_path / "to/tool").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "to/folder").stat().st_mode & 0o7777 == 0o777


BOMBS = {
    "gzip": lambda: packed((item("zeroes"), bytes(64 << 20))),
    "pax": lambda: packed((item("x", pax_headers={"comment": "y" * (64 << 20)}), b"")),
    "count": lambda: packed(*((item(f"{number}"), b"") for number in range(20_000))),
    "sparse": lambda: packed(
        (item("s", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 50)}), b"0\n" * 256)
    ),
    "no archive": lambda: gzip.compress(b"\x01" * (64 << 20)),
}
UNDER_A_LIMIT = """
import resource, sys
sys.path[:0] = {path!r}
from pathlib import Path
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import extract
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import NotAuthenticError
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
with open(sys.argv[1], "rb") as archive:
    try:
        extract.extract_unproven(archive.fileno(), Path(sys.argv[2]), extract.ArchiveLimits(10_000, 32 << 20))
    except NotAuthenticError as error:
        print(error)
        sys.exit(4)
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_decompression_bomb_is_refused(bomb, put, store, tmp_path):
    put(BOMBS[bomb]())
    program = UNDER_A_LIMIT.format(path=sys.path, limit=256 << 20)
    archive = store.path(NAME, names.ARCHIVE)
    done = subprocess.run(
        [sys.executable, "-c", program, archive, tmp_path / "to"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert sum(path.stat().st_size for path in (tmp_path / "to").rglob("*") if path.is_file()) <= 32 << 20


def test_implausible_compression_ratio_is_refused(put, store, tmp_path):
    """Regardless of the free space. Too little free space has an error of its own."""
    put(BOMBS["gzip"]())
    with store.path(NAME, names.ARCHIVE).open("rb") as archive:
        assert extract.ArchiveLimits.for_archive(archive.fileno(), tmp_path).size == 1 << 30
        os.truncate(archive.name, 10 << 20)
        limits = extract.ArchiveLimits.for_archive(archive.fileno(), tmp_path)
        assert limits.size == 200 * (10 << 20)
        assert 0 < limits.free_space < shutil.disk_usage(tmp_path).free
    put(BOMBS["gzip"]())
    with store.path(NAME, names.ARCHIVE).open("rb") as archive:
        with pytest.raises(NotAuthenticError, match="more than"):
            extract.extract_unproven(archive.fileno(), tmp_path / "to", replace(limits, size=32 << 20))
        with pytest.raises(BackupError, match="not enough free space"):
            extract.extract_unproven(archive.fileno(), tmp_path / "other", replace(limits, free_space=32 << 20))


def test_memory_limit_of_the_bomb_test_works(tmp_path):
    """A test of the test above: under its limit, Python cannot allocate the size of a bomb."""
    program = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({256 << 20},) * 2); bytes({512 << 20})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 256 << 20
