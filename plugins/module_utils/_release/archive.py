# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Download and extract archives safely."""

from __future__ import annotations

import base64
import hashlib
import http.client
import lzma
import os
import posixpath
import shutil
import ssl
import stat
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .command import split_credentials
from .errors import ReleaseError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
# Free disk space that extraction must leave.
MIN_FREE_BYTES = 64 << 20
_SOCKET_TIMEOUT = 30.0
_UNSUPPORTED = "a device or a pipe. Remove it from the archive."
_READ_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    NotImplementedError,
)


@dataclass(frozen=True)
class _Member:
    """One member of a tar or zip archive.

    :param kind: ``f`` file, ``x`` executable, ``d`` directory, ``l`` symbolic link, ``h`` hard link.
    :param open: opens the content of a file.
    """

    path: str
    kind: str
    size: int
    target: str
    open: Callable[[], IO[bytes]]


def extract(archive: Path, destination: Path) -> None:
    """Extract a tar or zip archive without writing outside of the destination.

    Does not use Python's extraction filters, which Debian 12's Python lacks. Refuses absolute paths, ``..`` and
    devices. Modes become 0755 and 0644, and the caller becomes the owner. Symbolic links are created last, so that no
    member is written through one; :func:`tree.entries` checks their targets later, after the exclusions.

    :param destination: a directory that does not exist yet.
    :raises ReleaseError: the archive is malicious, damaged, too large for the disk, or of an unknown format.
    """
    destination.mkdir(0o755)
    links: dict[str, str] = {}
    try:
        for member in _members(archive):
            _write_member(member, destination, links)
        for path, target in links.items():
            output = destination / path
            output.parent.mkdir(parents=True, exist_ok=True)
            _remove_existing(output)
            output.symlink_to(target)
    except _READ_ERRORS as exc:
        raise ReleaseError(
            f"{archive} is damaged, or not a tar or zip archive: {exc}. Replace it with an intact archive."
        ) from exc
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as exc:
        raise ReleaseError(
            f"{archive} contains {exc.filename} twice, with different types. Create the archive again."
        ) from exc


def strip_top(tree: Path) -> Path:
    """Return the only top-level directory of an extracted archive, or its root if there are other entries."""
    top = list(tree.iterdir())
    return top[0] if len(top) == 1 and top[0].is_dir() and not top[0].is_symlink() else tree


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive)
    else:
        raise ReleaseError(f"{archive} is damaged, or not a tar or zip archive. Replace it with an intact archive.")


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:*") as source:
        for info in source:
            kind = "d" if info.isdir() else "l" if info.issym() else "h" if info.islnk() else ""
            if info.isreg():
                kind = "x" if info.mode & stat.S_IXUSR else "f"
            if not kind:
                raise ReleaseError(f"{archive} contains {info.name!r}, {_UNSUPPORTED}")

            def content(info: tarfile.TarInfo = info) -> IO[bytes]:
                handle = source.extractfile(info)
                if handle is None:
                    raise ReleaseError(f"{archive} contains {info.name!r} without content. Create the archive again.")
                return handle

            yield _Member(info.name, kind, info.size if info.isreg() else 0, info.linkname, content)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as source:
        for info in source.infolist():
            # The upper half holds a Unix mode if the archive was created on Unix (APPNOTE.TXT 4.4.15).
            mode = info.external_attr >> 16
            target = ""
            if info.is_dir():
                kind = "d"
            elif stat.S_ISLNK(mode):
                kind, target = "l", os.fsdecode(source.read(info))
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise ReleaseError(f"{archive} contains {info.filename!r}, {_UNSUPPORTED}")
            else:
                kind = "x" if mode & stat.S_IXUSR else "f"

            def content(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return source.open(info)

            yield _Member(info.filename, kind, info.file_size, target, content)


def _write_member(member: _Member, destination: Path, links: dict[str, str]) -> None:
    path = _member_path(member.path)
    if path == ".":
        return
    output = destination / path
    links.pop(path, None)
    if member.kind == "l":
        links[path] = member.target
        return
    if member.kind == "d":
        output.mkdir(parents=True, exist_ok=True)
        return
    free = shutil.disk_usage(destination).free
    if member.size > free - MIN_FREE_BYTES:
        raise ReleaseError(
            f"{member.path} needs {member.size >> 20} MiB, but {destination.parent} has {free >> 20} MiB free. "
            "Free disk space."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    _remove_existing(output)
    if member.kind == "h":
        original = destination / _member_path(member.target)
        if not original.is_file():
            raise ReleaseError(
                f"{member.path!r} is a hard link to {member.target!r}, which is missing from the archive. "
                "Create the archive again."
            )
        shutil.copyfile(original, output)
        shutil.copymode(original, output)
        return
    with member.open() as source, output.open("xb") as handle:
        shutil.copyfileobj(source, handle, 1 << 20)
    output.chmod(0o755 if member.kind == "x" else 0o644)


def _remove_existing(output: Path) -> None:
    """Remove an earlier member of the same path: the last one wins, as in tar."""
    output.unlink(missing_ok=True)


def _member_path(path: str) -> str:
    """Return a member's normalized path below the destination.

    :raises ReleaseError: the path leaves the destination.
    """
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ReleaseError(f"The archive contains {path!r}, a path outside of it. Remove it from the archive.")
    return posixpath.normpath(path)


def download(url: str, destination: Path, environment: Mapping[str, str], timeout: int) -> str:
    """Download a URL to a file.

    :param environment: used for ``https_proxy``, ``http_proxy``, ``no_proxy`` (either case) and ``SSL_CERT_FILE``.
    :param timeout: seconds for the whole transfer.
    :returns: the SHA-256 of the content, in hexadecimal.
    :raises ReleaseError: the server is unreachable, answers with an error, or is too slow.
    """
    bare, user, password = split_credentials(url)
    request = urllib.request.Request(bare, headers={"User-Agent": "aapanel.pipeline"})  # noqa: S310 - scheme: see source.classify
    if user:
        # An unredirected header: urllib does not forward it to another host after a redirect.
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    context = ssl.create_default_context(cafile=environment.get("SSL_CERT_FILE"))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(_proxies(bare, environment)), urllib.request.HTTPSHandler(context=context)
    )
    deadline = time.monotonic() + timeout
    total = hashlib.sha256()
    try:
        with opener.open(request, timeout=min(_SOCKET_TIMEOUT, timeout)) as answer, destination.open("xb") as handle:
            while chunk := answer.read(1 << 16):
                total.update(chunk)
                handle.write(chunk)
                if time.monotonic() > deadline:
                    raise ReleaseError(f"{bare}: the download took longer than {timeout} s. Raise `timeout`.")
    except urllib.error.HTTPError as exc:
        raise ReleaseError(
            f"{bare} cannot be downloaded: HTTP {exc.code} {exc.reason}. Check the URL and its credentials."
        ) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise ReleaseError(
            f"{bare} cannot be downloaded: {getattr(exc, 'reason', exc)}. Check the URL and the network of this host."
        ) from exc
    return total.hexdigest()


def _proxies(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies for a URL; lower-case variables take precedence, as in curl."""
    found: dict[str, str] = {}
    for scheme in ("http", "https", "no"):
        value = environment.get(f"{scheme}_proxy", environment.get(f"{scheme.upper()}_PROXY", ""))
        if value:
            found[scheme] = value
    host = urllib.parse.urlsplit(url).netloc
    exempt = bool(found.get("no")) and urllib.request.proxy_bypass_environment(host, found)  # type: ignore[attr-defined]
    found.pop("no", None)
    return {} if exempt else found
