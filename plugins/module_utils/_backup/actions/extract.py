# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Verify a backup, and only then read it: into a folder that nobody else can reach, and nothing but what is signed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..._host import durable, nofollow
from ..._host.nofollow import OPEN_FOLDER
from ..archive import names, tar
from ..archive.compression import GzipReader, start_writeback, write_all
from ..archive.hashing import Hash, HashThread
from ..archive.manifest import Entry, Manifest
from ..archive.paths import check_path
from ..errors import AlteredError, BackupError, BusyError, NotAuthenticError
from ..progress import SILENT, Progress
from ..storage.store import RESERVED_SPACE, Store, check_size, missing_archive, open_file

_CHUNK = 1 << 20  # bytes
_WRITEBACK_MIN = 64 << 10  # bytes; below that the disk is better left to gather them
_PENDING_DIGESTS_MAX = 64  # files that may still be digested while the next ones are written
# Text comes to thirty times its archive, zeroes to a thousand times.
_RATIO_MAX = 200
# What nobody has to be afraid of: the empty file of a database is such zeroes.
_SIZE_ALLOWED = 1 << 30


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive that nobody signed may come to; beyond that it is a bomb.

    :param size: bytes of all members.
    :param room: bytes that may be taken of the disk.
    """

    members: int = 1_000_000
    size: int = 1 << 40
    room: int = 1 << 62

    @classmethod
    def for_archive(cls, archive: int, folder: Path) -> ArchiveLimits:
        """Return what an archive may come to in a folder.

        :param archive: its descriptor.
        :param folder: one that is there.
        """
        size = max(os.fstat(archive).st_size * _RATIO_MAX, _SIZE_ALLOWED)
        return cls(size=size, room=shutil.disk_usage(folder).free - RESERVED_SPACE)


@contextlib.contextmanager
def verified_backup(store: Store, name: str, report_progress: Progress = SILENT) -> Iterator[tuple[Manifest, int]]:
    """Open a backup whose every byte is what was signed; gives its manifest and the descriptor of its archive.

    Nobody can exchange the archive afterwards: it is the descriptor that was digested which is read. What was found is
    remembered, for those who only look.

    :raises BackupError: there is no such backup.
    :raises NotAuthenticError: it is not what was signed, or not where or when it belongs.
    """
    path = store.path(name, names.ARCHIVE)
    with store.open(name) as found, _open_archive(path) as descriptor:
        report_progress(f"verifying {name}", found.summary.size)
        before = os.fstat(descriptor)
        try:
            _verify(path, descriptor, found, report_progress)
        except AlteredError:
            store.corrupt_markers.mark(name, before)
            raise
        store.corrupt_markers.clear(name)
        yield found, descriptor


@contextlib.contextmanager
def verified_archive(path: Path, found: Manifest, report_progress: Progress = SILENT) -> Iterator[int]:
    """Open an archive whose every byte is what was signed, wherever it is; gives its descriptor.

    :raises NotAuthenticError: it is not.
    """
    with _open_archive(path) as descriptor:
        _verify(path, descriptor, found, report_progress)
        yield descriptor


@contextlib.contextmanager
def unproven_archive(store: Store, name: str) -> Iterator[int]:
    """Open an archive of the first format, of which nothing proves what it is; gives its descriptor.

    :raises BackupError: there is none.
    :raises NotAuthenticError: that name is, or was, one of a signed backup; or its own digest does not fit.
    """
    if not names.is_old_name(name) or store.path(name, names.MANIFEST).exists() or store.catalog().created(name):
        raise NotAuthenticError(
            f"{name}: this is no backup of the first format; it is restored with its proof or not at all"
        )
    try:
        info = store.path(name, names.INFO).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BackupError(f"{name}: there is no such backup: {error.strerror}") from None
    digests = dict(re.findall(r"^(MD5|SHA256): *([0-9a-f]+)\s*$", info, re.MULTILINE))
    path = store.path(name, names.ARCHIVE)
    with _open_archive(path) as descriptor:
        for kind, expected in digests.items():
            # MD5 finds what broke by itself; against people nothing here helps.
            if _digest(descriptor, kind.lower()) != expected:
                raise NotAuthenticError(f"{path}: its {kind} is not the one that its .info has")
        yield descriptor


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[int]:
    with open_file(path, NotAuthenticError(missing_archive(path))) as stream:
        yield stream.fileno()


def _digest(descriptor: int, algorithm: str, report_progress: Progress = SILENT) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    while data := os.read(descriptor, _CHUNK):
        digest.update(data)
        report_progress.advance(len(data))
    return digest.hexdigest()


def _verify(path: Path, descriptor: int, found: Manifest, report_progress: Progress) -> None:
    check_size(path, os.fstat(descriptor), found.summary)
    if not hmac.compare_digest(_digest(descriptor, "sha256", report_progress), found.summary.sha256):
        raise AlteredError(f"{path}: its content is not what was signed")


class Part(NamedTuple):
    """What is wanted of a verified archive.

    :param archive: its descriptor.
    :param only: members that are wanted, with what is below them; all, where there is none.
    """

    found: Manifest
    archive: int
    only: Sequence[str] | None = None


def extract(
    found: Manifest, archive: int, folder: Path, only: Sequence[str] | None = None, report_progress: Progress = SILENT
) -> None:
    """Write the members of a verified archive below a folder that is made for that; see `extract_all`."""
    extract_all([Part(found, archive, only)], folder, report_progress)


def extract_all(parts: Sequence[Part], folder: Path, report_progress: Progress = SILENT) -> None:
    """Write members of verified archives below a folder that is made for that. Root gives them their owners.

    :raises BackupError: the folder is there already, or cannot be written.
    :raises NotAuthenticError: an archive has something else than its manifest, or two have the same.
    """
    with _extraction_root(folder) as root:
        for found, archive, only in parts:
            report_progress(f"extracting {found.summary.name}", found.summary.content_size)
            with _open_reader(archive) as reader:
                for entry, content in _signed_members(found, reader):
                    if only is None or any(f"{entry.member.path}/".startswith(f"{path}/") for path in only):
                        root.add(entry, content)
                    report_progress.advance(entry.member.size)


def extract_unproven(archive: int, folder: Path, limits: ArchiveLimits) -> None:
    """Write all members of an archive that nobody signed below a folder that is made for that.

    :raises BackupError: the folder is there already, or cannot be written.
    :raises NotAuthenticError: the archive has something that no backup has, or more than the limits allow.
    """
    members = size = 0
    with _extraction_root(folder) as root, _open_reader(archive) as reader:
        for member, content in tar.members(reader.read):
            members, size = members + 1, size + member.size
            if members > limits.members or size > limits.size:
                raise NotAuthenticError(f"the archive has more than {limits.members} members or {limits.size} bytes")
            if size > limits.room:
                raise BackupError(f"{folder}: there is no room for all of the archive")
            # What people pack by hand begins with a dot.
            path = member.path.removeprefix("./")
            if path == ".":
                continue
            check_path(path)
            root.add(Entry(replace(member, path=path)), content)


@contextlib.contextmanager
def _extraction_root(folder: Path) -> Iterator[_ExtractionRoot]:
    """Give what fills a fresh folder, which takes this one's place when all is in it."""
    with _staging_folder(folder) as staging, _ExtractionRoot(staging, owners=os.geteuid() == 0) as root:
        yield root


@contextlib.contextmanager
def _open_reader(archive: int) -> Iterator[GzipReader]:
    reader, whole = GzipReader(archive), False
    try:
        yield reader
        whole = True
    finally:
        reader.close(whole=whole)


@contextlib.contextmanager
def _staging_folder(folder: Path) -> Iterator[int]:
    """Give a fresh folder that takes this one's place when all is in it: what has the name is whole."""
    if os.path.lexists(folder):
        raise BackupError(f"{folder}: it is there already; nothing is restored over something else")
    staging = folder.with_name(f".restoring-{folder.name}")
    _sweep(staging)
    staging.mkdir(mode=0o700)
    descriptor = os.open(staging, OPEN_FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made = os.fstat(descriptor)
        if made.st_uid != os.geteuid() or made.st_mode & 0o077:
            raise NotAuthenticError(f"{staging}: somebody has put another folder into its place")
        yield descriptor
        if not os.path.samestat(made, staging.lstat()):
            raise NotAuthenticError(f"{staging}: somebody has put something else into its place")
        staging.rename(folder)
        durable.sync(folder.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def _sweep(staging: Path) -> None:
    """Remove what a restore has left that died; the kernel's lock on it fell with its process."""
    try:
        left = os.open(staging, OPEN_FOLDER)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(staging)
    except BlockingIOError:
        raise BusyError(f"{staging}: another restore is at work there") from None
    finally:
        os.close(left)


def _signed_members(found: Manifest, reader: GzipReader) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Give the members of an archive, in lockstep with those that were signed."""
    signed = found.entries()
    for member, content in tar.members(reader.read):
        # What is not in the manifest is not there, and nothing can be there twice.
        entry = next(signed, None)
        if entry is None or entry.member != member:
            raise NotAuthenticError(f"the archive has {member.path!r} where its manifest has something else")
        check_path(member.path)
        yield entry, content
    if next(signed, None) is not None:
        raise NotAuthenticError("the archive ends before its manifest does")


class _ExtractionRoot:
    """A folder that is being filled. Each name is made anew, in a folder that this one has made."""

    def __init__(self, folder: int, *, owners: bool) -> None:
        self._owners = owners
        self._root = os.dup(folder)
        # One is kept open, because files of a folder follow each other.
        self._open_folder: tuple[str, int] = ("", self._root)
        self._folders: list[tar.Member] = []
        self._sums = HashThread()
        self._unproven: deque[tuple[Entry, Hash]] = deque()

    def __enter__(self) -> _ExtractionRoot:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self._complete()
        finally:
            self._sums.close()
            self._close()
            os.close(self._root)

    def add(self, entry: Entry, content: Iterator[bytes]) -> None:
        if entry.member.kind == tar.FOLDER:
            self._add_folder(entry.member)
        else:
            self._add_file(entry, content)

    def _add_folder(self, member: tar.Member) -> None:
        parent, name = self._parent(member.path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            # Made on the way to something that came before it.
            os.close(self._descend(member.path))
        self._folders.append(member)

    def _add_file(self, entry: Entry, content: Iterator[bytes]) -> None:
        member, digest = entry.member, self._sums.new() if entry.sha256 else None
        parent, name = self._parent(member.path)
        try:
            descriptor = nofollow.make(name, parent)
        except FileExistsError:
            raise NotAuthenticError(f"{member.path!r} is in the archive twice") from None
        try:
            self._write(descriptor, content, digest)
            self._set_metadata(descriptor, member)
        finally:
            os.close(descriptor)
        if digest:
            self._unproven.append((entry, digest))
            self._check_digests(_PENDING_DIGESTS_MAX)

    def _write(self, descriptor: int, content: Iterator[bytes], digest: Hash | None) -> None:
        size = 0
        for data in content:
            if digest:
                digest.update(data)
            write_all(descriptor, data)
            if len(data) >= _WRITEBACK_MIN:
                start_writeback(descriptor, size, len(data))
            size += len(data)

    def _check_digests(self, left: int) -> None:
        """Compare what was written with what was signed, but for so many of the last files."""
        while len(self._unproven) > left:
            entry, digest = self._unproven.popleft()
            if not hmac.compare_digest(digest.hexdigest(), entry.sha256):
                raise NotAuthenticError(f"the content of {entry.member.path!r} is not what was signed")

    def _complete(self) -> None:
        self._check_digests(0)
        # Innermost first: a folder that may not be written into is closed only when all is in it.
        for member in sorted(self._folders, key=lambda folder: folder.path, reverse=True):
            descriptor = self._descend(member.path)
            try:
                self._set_metadata(descriptor, member)
            finally:
                os.close(descriptor)
        # One call for all files instead of one for each.
        _sync_all(self._root)

    def _set_metadata(self, descriptor: int, member: tar.Member) -> None:
        try:
            if self._owners:
                os.fchown(descriptor, member.uid, member.gid)
            os.fchmod(descriptor, member.mode & 0o777)
            os.utime(descriptor, (member.mtime, member.mtime))
        except OverflowError:
            raise NotAuthenticError(f"{member.path!r} has an owner or a time that there cannot be") from None

    def _parent(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        if folder != self._open_folder[0]:
            self._close()
            self._open_folder = ("", self._root)
            if folder:
                self._open_folder = (folder, self._descend(folder, make=True))
        return self._open_folder[1], name

    def _descend(self, path: str, *, make: bool = False) -> int:
        """Open a folder below the root, through no symlink.

        :param make: whether to create the folders that are missing.
        :raises NotAuthenticError: something else than a folder is in the way.
        """
        try:
            return nofollow.open_folder(self._root, path, 0o700 if make else None)
        except OSError as error:
            raise NotAuthenticError(f"{path!r}: {error.filename or path!r} is not a folder: {error.strerror}") from None

    def _close(self) -> None:
        if self._open_folder[1] != self._root:
            os.close(self._open_folder[1])
            self._open_folder = ("", self._root)


def _sync_all(descriptor: int) -> None:
    """Write all of a file system to the disk: of the one of this file, while `os.sync` waits for all that there are.

    :raises OSError: not all could be written, which `os.sync` does not tell.
    """
    # Here, because it wants memory that can be written and executed, which a unit that only backs up is denied.
    import ctypes  # noqa: PLC0415

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
