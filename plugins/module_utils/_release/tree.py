# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Walk, digest, pack and copy directory trees."""

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

# Files of a working copy that are not source: specific to a machine, or created again when the app runs.
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
    """One entry of a tree.

    :param path: relative path.
    :param kind: ``f`` file, ``x`` executable file, ``l`` symbolic link, ``d`` empty directory.
    :param target: target of a symbolic link.
    """

    path: str
    kind: str
    target: str = ""


def relative_path(value: str, option: str) -> str:
    """Return a path below a tree in normalized form, without a trailing slash.

    :raises ReleaseError: it is empty, absolute, or leaves the tree.
    """
    parts = value.split("/")
    if not value.strip("/.") or value.startswith("/") or ".." in parts or "\0" in value:
        raise ReleaseError(f"{option}: {value!r} must be a relative path inside the source.")
    return posixpath.normpath(value)


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Return whether a path is excluded.

    A pattern without a slash matches the name of a file or directory at any depth; one with a slash matches the whole
    relative path. Both can contain shell wildcards (:mod:`fnmatch`). An excluded directory excludes its content.
    """
    name = posixpath.basename(path)
    for pattern in patterns:
        bare = pattern.strip("/")
        if fnmatch.fnmatchcase(path if "/" in bare or pattern.startswith("/") else name, bare):
            return True
    return False


def entries(root: Path, exclude: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the entries of a tree, in an order that does not depend on the file system.

    :raises ReleaseError: an entry is a socket, a device, or a link that leaves the tree, or cannot be read.
    """
    if not root.is_dir():
        raise ReleaseError(f"{root} is not a directory; correct the path.")
    yield from _walk(root, "", exclude, Path(os.path.realpath(root)))


def _walk(root: Path, below: str, exclude: Sequence[str], real_root: Path) -> Iterator[Entry]:
    try:
        with os.scandir(root / below) as listing:
            found = sorted(listing, key=lambda item: os.fsencode(item.name))
    except OSError as exc:
        raise ReleaseError(f"{exc.filename} cannot be read: {exc.strerror}. Fix it, or add it to `exclude`.") from exc
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
            raise ReleaseError(
                f"{item.path} cannot be released: it is a socket, a pipe or a device. Add it to `exclude`."
            )
    if below and not kept:
        yield Entry(below, "d")


def check_link(root: Path, path: str, target: str) -> None:
    """Refuse a symbolic link that leaves its tree.

    Resolves the link in the file system, because the text of ``a/link/../..`` does not show its target.

    :param root: the resolved path of the tree.
    :raises ReleaseError: the link is absolute or leaves the tree.
    """
    final = Path(os.path.realpath((root / path).parent / target))
    if target.startswith("/") or not final.is_relative_to(root):
        raise ReleaseError(
            f"{path} is a symbolic link to {target}, which is outside of the source. Replace it by a relative link "
            "inside the source, or add it to `exclude`."
        )


def digest(root: Path, exclude: Sequence[str] = ()) -> str:
    """Return the SHA-256 of a tree, in hexadecimal: paths, executable bits, contents, links, empty directories.

    Excludes owners, times and other mode bits, which differ between checkouts of the same source.

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
        raise ReleaseError(f"{path} cannot be read: {exc.strerror}. Check the path and its permissions.") from exc
    return total.hexdigest()


def pack(root: Path, destination: Path, exclude: Sequence[str] = ()) -> None:
    """Write a tree to a gzipped tar archive; equal trees give equal archives.

    :raises ReleaseError: see :func:`entries`.
    """
    with (
        destination.open("wb") as raw,
        # Fast compression (level 1): the archive is transferred once, then removed.
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
                    raise ReleaseError(f"{root / entry.path} changed while it was packed: {exc}. Run again.") from exc


def transfer(root: Path, destination: Path, exclude: Sequence[str] = (), *, move: bool = False) -> None:
    """Copy or move a tree; modes become 0755 and 0644.

    A copied file gets the current time. Web servers compute a static file's ETag from its time and size, so with an
    old time, caches would serve old content after a change.

    :param move: move the files; ``root`` must be on the same file system.
    :raises ReleaseError: see :func:`entries`.
    """
    destination.mkdir(0o755)
    # List all entries before moving the first: links are checked against the complete tree.
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
