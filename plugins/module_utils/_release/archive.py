# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

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
# What stays free on the disk whatever an archive claims to hold.
RESERVE = 64 << 20
_SOCKET_TIMEOUT = 30.0
_DAMAGED = (
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
    """One member of an archive, of whichever format.

    :param kind: ``f`` file, ``x`` executable, ``d`` directory, ``l`` symbolic link, ``h`` hard link.
    :param open: gives the content of a file.
    """

    path: str
    kind: str
    size: int
    target: str
    open: Callable[[], IO[bytes]]


def extract(archive: Path, destination: Path) -> None:
    """Unpack a tar or zip archive so that nothing lands outside of the destination.

    Python's own extraction filters are not relied on: Debian 12's Python has none. Refused are absolute paths, ``..``
    and devices; modes become 0755 and 0644, owners the caller. Symbolic links are made last, so that no member is ever
    written through one. Where they lead is for :func:`tree.entries` to judge, once it is known which are wanted.

    :param destination: a directory that does not exist yet.
    :raises ReleaseError: the archive is hostile, damaged, too large for the disk, or of an unknown format.
    """
    destination.mkdir(0o755)
    links: dict[str, str] = {}
    try:
        for member in _members(archive):
            _place(member, destination, links)
        for path, target in links.items():
            place = destination / path
            place.parent.mkdir(parents=True, exist_ok=True)
            _clear(place)
            place.symlink_to(target)
    except _DAMAGED as exc:
        raise ReleaseError(f"{archive} is damaged or no tar or zip archive: {exc}.") from exc
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as exc:
        raise ReleaseError(f"{archive} holds one path as two different things: {exc.filename}.") from exc


def strip_top(tree: Path) -> Path:
    """Return the directory that holds the source: the single top directory of an archive, or all of it."""
    top = list(tree.iterdir())
    return top[0] if len(top) == 1 and top[0].is_dir() and not top[0].is_symlink() else tree


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive)
    else:
        raise ReleaseError(f"{archive} is damaged or no tar or zip archive.")


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:*") as source:
        for info in source:
            kind = "d" if info.isdir() else "l" if info.issym() else "h" if info.islnk() else ""
            if info.isreg():
                kind = "x" if info.mode & stat.S_IXUSR else "f"
            if not kind:
                raise ReleaseError(f"{archive} holds {info.name!r}, a device or a pipe.")

            def content(info: tarfile.TarInfo = info) -> IO[bytes]:
                handle = source.extractfile(info)
                if handle is None:
                    raise ReleaseError(f"{archive} holds {info.name!r} without content.")
                return handle

            yield _Member(info.name, kind, info.size if info.isreg() else 0, info.linkname, content)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as source:
        for info in source.infolist():
            # The upper half holds a Unix mode where the archive was made on Unix (APPNOTE.TXT 4.4.15).
            mode = info.external_attr >> 16
            target = ""
            if info.is_dir():
                kind = "d"
            elif stat.S_ISLNK(mode):
                kind, target = "l", os.fsdecode(source.read(info))
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise ReleaseError(f"{archive} holds {info.filename!r}, a device or a pipe.")
            else:
                kind = "x" if mode & stat.S_IXUSR else "f"

            def content(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return source.open(info)

            yield _Member(info.filename, kind, info.file_size, target, content)


def _place(member: _Member, destination: Path, links: dict[str, str]) -> None:
    path = _inside(member.path)
    if path == ".":
        return
    place = destination / path
    links.pop(path, None)
    if member.kind == "l":
        links[path] = member.target
        return
    if member.kind == "d":
        place.mkdir(parents=True, exist_ok=True)
        return
    free = shutil.disk_usage(destination).free
    if member.size > free - RESERVE:
        raise ReleaseError(
            f"{member.path} unpacks to {member.size >> 20} MiB, but {destination.parent} has {free >> 20} MiB free."
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    _clear(place)
    if member.kind == "h":
        original = destination / _inside(member.target)
        if not original.is_file():
            raise ReleaseError(f"{member.path!r} is a hard link to {member.target!r}, which the archive does not hold.")
        shutil.copyfile(original, place)
        shutil.copymode(original, place)
        return
    with member.open() as source, place.open("xb") as handle:
        shutil.copyfileobj(source, handle, 1 << 20)
    place.chmod(0o755 if member.kind == "x" else 0o644)


def _clear(place: Path) -> None:
    """Make room for a member that comes a second time: the last one counts, as in tar."""
    place.unlink(missing_ok=True)


def _inside(path: str) -> str:
    """Return a member's path below the destination, refusing one that would leave it."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ReleaseError(f"The archive holds {path!r}, which leads out of it.")
    return posixpath.normpath(path)


def download(url: str, destination: Path, environment: Mapping[str, str], timeout: int) -> str:
    """Fetch a URL into a file.

    :param environment: ``https_proxy``, ``http_proxy``, ``no_proxy`` (either case) and ``SSL_CERT_FILE`` are honoured.
    :param timeout: seconds that the whole transfer may take.
    :returns: the SHA-256 of what came, in hexadecimal.
    :raises ReleaseError: the server cannot be reached, refuses, or is too slow.
    """
    bare, user, password = split_credentials(url)
    request = urllib.request.Request(bare, headers={"User-Agent": "aapanel.pipeline"})  # noqa: S310 - scheme: see source.classify
    if user:
        # Not sent on to another host: urllib keeps an unredirected header to the first request.
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
                    raise ReleaseError(f"{bare} was not fetched within {timeout} s.")
    except urllib.error.HTTPError as exc:
        raise ReleaseError(f"{bare} cannot be fetched: HTTP {exc.code} {exc.reason}.") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise ReleaseError(f"{bare} cannot be fetched: {getattr(exc, 'reason', exc)}.") from exc
    return total.hexdigest()


def _proxies(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies for a URL; lower-case variables win over upper-case ones, as in curl."""
    found: dict[str, str] = {}
    for scheme in ("http", "https", "no"):
        value = environment.get(f"{scheme}_proxy", environment.get(f"{scheme.upper()}_PROXY", ""))
        if value:
            found[scheme] = value
    host = urllib.parse.urlsplit(url).netloc
    exempt = bool(found.get("no")) and urllib.request.proxy_bypass_environment(host, found)  # type: ignore[attr-defined]
    found.pop("no", None)
    return {} if exempt else found
