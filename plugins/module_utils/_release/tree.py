# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ReleaseError

# What a working copy holds beside its source: another machine's, or made anew by running it.
DEFAULT_EXCLUDE = (
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "__pycache__",
    "*.pyc",
    "node_modules",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
)


@dataclass(frozen=True)
class Entry:
    """One thing in a tree: its relative path and what it is.

    :param kind: ``f`` file, ``x`` executable file, ``l`` symbolic link, ``d`` empty directory.
    """

    path: str
    kind: str
    target: str = ""


def relative_path(value: str, option: str) -> str:
    """Return a path below a tree in its plain form, without a slash at its end.

    :raises ReleaseError: it is empty, absolute, or leaves the tree.
    """
    parts = value.split("/")
    if not value.strip("/.") or value.startswith("/") or ".." in parts or "\0" in value:
        raise ReleaseError(f"{option}: {value!r} must be a relative path that stays inside the source.")
    return posixpath.normpath(value)


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a path is excluded.

    A pattern without a slash is compared with the name of the file or directory, at any depth; one with a slash with
    the whole relative path. Shell wildcards (:mod:`fnmatch`) work in both; what is below an excluded directory is
    excluded too.
    """
    name = posixpath.basename(path)
    for pattern in patterns:
        bare = pattern.strip("/")
        if fnmatch.fnmatchcase(path if "/" in bare or pattern.startswith("/") else name, bare):
            return True
    return False


def entries(root: Path, exclude: Sequence[str] = ()) -> Iterator[Entry]:
    """Walk a tree in an order that does not depend on the file system.

    :raises ReleaseError: it holds something that cannot be released: a socket, a device, a link that leaves it, or
        something unreadable.
    """
    if not root.is_dir():
        raise ReleaseError(f"{root} is not a directory.")
    yield from _walk(root, "", exclude, Path(os.path.realpath(root)))


def _walk(root: Path, below: str, exclude: Sequence[str], real_root: Path) -> Iterator[Entry]:
    try:
        with os.scandir(root / below) as listing:
            found = sorted(listing, key=lambda item: os.fsencode(item.name))
    except OSError as exc:
        raise ReleaseError(f"{exc.filename} cannot be read: {exc.strerror}.") from exc
    kept = 0
    for item in found:
        path = f"{below}/{item.name}" if below else item.name
        if is_excluded(path, exclude):
            continue
        kept += 1
        if item.is_symlink():
            target = os.fspath(Path(item.path).readlink())
            check_link(real_root, path, target)
            yield Entry(path, "l", target)
        elif item.is_dir():
            yield from _walk(root, path, exclude, real_root)
        elif item.is_file():
            yield Entry(path, "x" if item.stat(follow_symlinks=False).st_mode & stat.S_IXUSR else "f")
        else:
            raise ReleaseError(f"{item.path} is a socket, a pipe or a device; add it to `exclude`.")
    if below and not kept:
        yield Entry(below, "d")


def check_link(root: Path, path: str, target: str) -> None:
    """Refuse a symbolic link that would lead out of its tree.

    Resolved through the file system rather than by the names: ``a/link/../..`` is not where its text says it is.

    :param root: the tree, itself free of symbolic links.
    :raises ReleaseError: the link is absolute or leaves the tree.
    """
    final = Path(os.path.realpath((root / path).parent / target))
    if target.startswith("/") or not final.is_relative_to(root):
        raise ReleaseError(
            f"{path} is a symbolic link to {target}, which leads out of the source; make it relative and inside, "
            "or add it to `exclude`."
        )


def digest(root: Path, exclude: Sequence[str] = ()) -> str:
    """Return the SHA-256 of a tree, in hexadecimal: paths, executable bits, contents, links, empty directories.

    Owners, times and all other mode bits are left out: they differ between two checkouts of the same source.

    :raises ReleaseError: see :func:`entries`.
    """
    total = hashlib.sha256()
    for entry in entries(root, exclude):
        content = os.fsencode(entry.target)
        if entry.kind in "fx":
            content = file_digest(root / entry.path).encode()
        for field in (entry.kind.encode(), os.fsencode(entry.path), content):
            total.update(b"%d:" % len(field) + field)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    :raises ReleaseError: it cannot be read.
    """
    total = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                total.update(chunk)
    except OSError as exc:
        raise ReleaseError(f"{path} cannot be read: {exc.strerror}.") from exc
    return total.hexdigest()


def pack(root: Path, destination: Path, exclude: Sequence[str] = ()) -> None:
    """Write a tree to a gzipped tar archive: the same tree gives the same bytes.

    :raises ReleaseError: see :func:`entries`.
    """
    with (
        destination.open("wb") as raw,
        # Level 1: the archive is transferred once and thrown away.
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in entries(root, exclude):
            member = tarfile.TarInfo(entry.path)
            member.mode = 0o755 if entry.kind in "xd" else 0o644
            if entry.kind == "l":
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
                archive.addfile(member)
            elif entry.kind == "d":
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                try:
                    with (root / entry.path).open("rb") as handle:
                        member.size = os.fstat(handle.fileno()).st_size
                        archive.addfile(member, handle)
                except OSError as exc:
                    raise ReleaseError(f"{root / entry.path} changed while it was being packed: {exc}.") from exc


def transfer(root: Path, destination: Path, exclude: Sequence[str] = (), *, move: bool = False) -> None:
    """Copy or move a tree, with plain modes (0755 and 0644).

    A copied file gets the time of the copy. That matters: servers make a static file's ETag of its time and size, so a
    file whose time never changed would be served from caches after its content did.

    :param move: take the files away from the root, which must be on the same file system.
    :raises ReleaseError: see :func:`entries`.
    """
    destination.mkdir(0o755)
    # All of them before the first is moved: links are judged in the tree as it is.
    for entry in list(entries(root, exclude)):
        path = destination / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "l":
            path.symlink_to(entry.target)
        elif entry.kind == "d":
            path.mkdir()
        else:
            if move:
                (root / entry.path).rename(path)
            else:
                shutil.copyfile(root / entry.path, path, follow_symlinks=False)
            path.chmod(0o755 if entry.kind == "x" else 0o644)
