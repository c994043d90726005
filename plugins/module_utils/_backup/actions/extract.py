# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Verify a backup, and only then extract it: into a folder that only its owner can enter, and only signed members."""

from __future__ import annotations

import contextlib
import errno
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
_NO_FOLDER = (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)
_WRITEBACK_MIN = 64 << 10  # bytes; smaller writes are left to the kernel, which combines them
_PENDING_DIGESTS_MAX = 64  # files whose digest may lag behind while the next ones are written
# Size of the content divided by the size of the archive: text reaches 30, zeroes reach 1000.
_RATIO_MAX = 200
# Bytes that are always allowed, because an empty database file is mostly zeroes.
_SIZE_ALLOWED = 1 << 30


@dataclass(frozen=True)
class ArchiveLimits:
    """The limits for an unsigned archive; a larger one may be a decompression bomb.

    :param members: number of members.
    :param size: bytes of all members.
    :param free_space: bytes that the members may take on the disk.
    """

    members: int = 1_000_000
    size: int = 1 << 40
    free_space: int = 1 << 62

    @classmethod
    def for_archive(cls, archive: int, folder: Path) -> ArchiveLimits:
        """Return the limits for an archive that is extracted into a folder.

        :param archive: descriptor of the archive.
        :param folder: an existing folder on the target file system.
        """
        size = max(os.fstat(archive).st_size * _RATIO_MAX, _SIZE_ALLOWED)
        return cls(size=size, free_space=shutil.disk_usage(folder).free - RESERVED_SPACE)


@contextlib.contextmanager
def verified_backup(store: Store, name: str, report_progress: Progress = SILENT) -> Iterator[tuple[Manifest, int]]:
    """Verify every byte of a backup; yield its manifest and the descriptor of its archive.

    Replacing the archive afterwards has no effect, because callers read from the verified descriptor. The result is
    remembered for commands that do not read archives.

    :raises BackupError: there is no such backup.
    :raises NotAuthenticError: it is not what was signed, or it is not in the catalog of this host.
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
    """Verify every byte of an archive at any path; yield its descriptor.

    :raises NotAuthenticError: it is not what was signed.
    """
    with _open_archive(path) as descriptor:
        _verify(path, descriptor, found, report_progress)
        yield descriptor


@contextlib.contextmanager
def unproven_archive(store: Store, name: str) -> Iterator[int]:
    """Open an archive of the first format, which is not signed; yield its descriptor.

    :raises BackupError: there is no such archive.
    :raises NotAuthenticError: the name belongs or belonged to a signed backup, or the archive's own digest is wrong.
    """
    if not names.is_old_name(name) or store.path(name, names.MANIFEST).exists() or store.catalog().created(name):
        raise NotAuthenticError(f"{name}: not an archive of the first format; --unproven restores nothing else")
    try:
        info = store.path(name, names.INFO).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BackupError(f"{name}: no such backup: {error.strerror}") from None
    digests = dict(re.findall(r"^(MD5|SHA256): *([0-9a-f]+)\s*$", info, re.MULTILINE))
    path = store.path(name, names.ARCHIVE)
    with _open_archive(path) as descriptor:
        for kind, expected in digests.items():
            # MD5 detects accidental damage only. Nothing protects these archives against manipulation.
            if _digest(descriptor, kind.lower()) != expected:
                raise NotAuthenticError(f"{path}: its {kind} differs from the one in its .info file")
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
    """A verified archive, and the members to extract from it.

    :param archive: descriptor of the archive.
    :param only: members to extract, with everything below them; None for all.
    """

    found: Manifest
    archive: int
    only: Sequence[str] | None = None


def extract(
    found: Manifest, archive: int, folder: Path, only: Sequence[str] | None = None, report_progress: Progress = SILENT
) -> None:
    """Extract members of one verified archive into a new folder; see `extract_all`."""
    extract_all([Part(found, archive, only)], folder, report_progress)


def extract_all(parts: Sequence[Part], folder: Path, report_progress: Progress = SILENT) -> None:
    """Extract members of verified archives into a new folder. Only root restores their owners.

    :raises BackupError: the folder already exists, or cannot be written.
    :raises NotAuthenticError: an archive does not match its manifest, or two archives have the same member.
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
    """Extract an unsigned archive into a new folder.

    :raises BackupError: the folder already exists, or cannot be written.
    :raises NotAuthenticError: the archive has a kind of member that no backup has, or exceeds the limits.
    """
    members = size = 0
    with _extraction_root(folder) as root, _open_reader(archive) as reader:
        for member, content in tar.members(reader.read):
            members, size = members + 1, size + member.size
            if members > limits.members or size > limits.size:
                raise NotAuthenticError(
                    f"the archive has more than {limits.members} members or {limits.size} bytes: it may be a bomb"
                )
            if size > limits.free_space:
                raise BackupError(f"{folder}: not enough free space for the content of the archive")
            # `tar .` puts "./" before each path.
            path = member.path.removeprefix("./")
            if path == ".":
                continue
            check_path(path)
            root.add(Entry(replace(member, path=path)), content)


@contextlib.contextmanager
def _extraction_root(folder: Path) -> Iterator[_ExtractionRoot]:
    """Yield the writer for a staging folder, which is renamed to this folder once it is complete."""
    with _staging_folder(folder) as staging, _ExtractionRoot(staging, owners=os.geteuid() == 0) as root:
        yield root


@contextlib.contextmanager
def _open_reader(archive: int) -> Iterator[GzipReader]:
    reader, complete = GzipReader(archive), False
    try:
        yield reader
        complete = True
    finally:
        reader.close(whole=complete)


@contextlib.contextmanager
def _staging_folder(folder: Path) -> Iterator[int]:
    """Yield a new folder that is renamed to this one once it is complete.

    :raises BackupError: this folder already exists.
    :raises BusyError: another restore to this folder is in progress.
    """
    if os.path.lexists(folder):
        raise BackupError(f"{folder} already exists, and a restore overwrites nothing: choose another folder")
    staging = folder.with_name(f".restoring-{folder.name}")
    _remove_leftover(staging)
    staging.mkdir(mode=0o700)
    descriptor = os.open(staging, OPEN_FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made = os.fstat(descriptor)
        if made.st_uid != os.geteuid() or made.st_mode & 0o077:
            raise NotAuthenticError(f"{staging}: this folder was replaced by another one during the restore")
        yield descriptor
        if not os.path.samestat(made, staging.lstat()):
            raise NotAuthenticError(f"{staging}: this folder was replaced by something else during the restore")
        staging.rename(folder)
        durable.sync(folder.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def _remove_leftover(staging: Path) -> None:
    """Remove the staging folder of a restore that was killed; the kernel released its lock with the process."""
    try:
        left = os.open(staging, OPEN_FOLDER)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(staging)
    except BlockingIOError:
        raise BusyError(f"{staging}: another restore uses this folder") from None
    finally:
        os.close(left)


def _signed_members(found: Manifest, reader: GzipReader) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Yield the members of an archive; each one has to match the next entry of the manifest."""
    signed = found.entries()
    for member, content in tar.members(reader.read):
        entry = next(signed, None)
        if entry is None or entry.member != member:
            raise NotAuthenticError(f"the archive contains {member.path!r} where its manifest lists something else")
        check_path(member.path)
        yield entry, content
    if next(signed, None) is not None:
        raise NotAuthenticError("the archive has fewer members than its manifest")


class _ExtractionRoot:
    """Writes members below a folder. It creates every file and folder itself, and never opens an existing file."""

    def __init__(self, folder: int, *, owners: bool) -> None:
        self._owners = owners
        self._root = os.dup(folder)
        # The current folder stays open, because files of one folder follow each other.
        self._current: tuple[str, int] = ("", self._root)
        self._folders: list[tar.Member] = []
        self._hashes = HashThread()
        self._pending: deque[tuple[Entry, Hash]] = deque()

    def __enter__(self) -> _ExtractionRoot:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self._complete()
        finally:
            self._hashes.close()
            self._close_current()
            os.close(self._root)

    def add(self, entry: Entry, content: Iterator[bytes]) -> None:
        if entry.member.kind == tar.FOLDER:
            self._add_folder(entry.member)
        else:
            self._add_file(entry, content)

    def _add_folder(self, member: tar.Member) -> None:
        parent, name = self._open_parent(member.path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            # Created before, as the parent of an earlier member.
            os.close(self._open_folder(member.path))
        self._folders.append(member)

    def _add_file(self, entry: Entry, content: Iterator[bytes]) -> None:
        member, digest = entry.member, self._hashes.new() if entry.sha256 else None
        parent, name = self._open_parent(member.path)
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
            self._pending.append((entry, digest))
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
        """Compare the digests of written files with the signed ones.

        :param left: how many of the last files to leave for later.
        """
        while len(self._pending) > left:
            entry, digest = self._pending.popleft()
            if not hmac.compare_digest(digest.hexdigest(), entry.sha256):
                raise NotAuthenticError(f"the content of {entry.member.path!r} is not what was signed")

    def _complete(self) -> None:
        self._check_digests(0)
        # Innermost first: a folder gets its permissions, perhaps read-only, only once it is complete.
        for member in sorted(self._folders, key=lambda folder: folder.path, reverse=True):
            descriptor = self._open_folder(member.path)
            try:
                self._set_metadata(descriptor, member)
            finally:
                os.close(descriptor)
        # One syncfs(2) is faster than one fsync(2) for each file.
        _sync_all(self._root)

    def _set_metadata(self, descriptor: int, member: tar.Member) -> None:
        try:
            if self._owners:
                os.fchown(descriptor, member.uid, member.gid)
            os.fchmod(descriptor, member.mode & 0o777)
            os.utime(descriptor, (member.mtime, member.mtime))
        except OverflowError:
            raise NotAuthenticError(f"{member.path!r} has an invalid owner or modification time") from None

    def _open_parent(self, path: str) -> tuple[int, str]:
        folder, _slash, name = path.rpartition("/")
        if folder != self._current[0]:
            self._close_current()
            self._current = ("", self._root)
            if folder:
                self._current = (folder, self._open_folder(folder, make=True))
        return self._current[1], name

    def _open_folder(self, path: str, *, make: bool = False) -> int:
        """Open a folder below the root, through no symlink.

        :param make: whether to create the folders that are missing.
        :raises NotAuthenticError: something else than a folder is in the way.
        :raises OSError: a folder cannot be created or opened.
        """
        try:
            return nofollow.open_folder(self._root, path, 0o700 if make else None)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            raise NotAuthenticError(f"{path!r}: {error.filename!r} is not a folder: {error.strerror}") from None

    def _close_current(self) -> None:
        if self._current[1] != self._root:
            os.close(self._current[1])
            self._current = ("", self._root)


def _sync_all(descriptor: int) -> None:
    """Sync the file system that a file is on; `os.sync` would wait for all file systems.

    :raises OSError: something could not be written, which `os.sync` does not report.
    """
    # Imported here, because ctypes needs memory that is writable and executable, which the backup unit forbids.
    import ctypes  # noqa: PLC0415

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
