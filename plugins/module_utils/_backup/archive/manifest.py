# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The manifest: the signed description of a backup, without which its archive is not a backup.

A text file. Its first line is a summary, and the next ones are the members in the order of the archive, each as
canonical JSON. The last line names the key, and has the signature of all bytes before it. The file is read by line, so
that a million members need no memory. The algorithm is always HMAC-SHA256; nothing in the file can select another one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ..errors import BackupError, NotAuthenticError
from . import canonical, keyring, names, tar
from .keyring import Keyring

FORMAT = 2
PURPOSE = "backup"
_LINE_MAX = 1 << 20  # bytes; a path has 4,096 at most
_SIGNATURE = re.compile(rb"signature ([a-z0-9-]{1,63}) ([0-9a-f]{64})\n")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True)
class SourceRecord:
    """The entry of a source in the summary.

    :param kind: files, sqlite, postgresql or mysql.
    :param member: path in the archive: of the dump, or of the folder.
    :param tool: program that made the dump, with its version.
    :param rows: number of rows by table, for databases.
    :param canary: value that was written into the source just before; empty if that was not possible.
    """

    kind: str
    name: str
    member: str
    tool: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)
    canary: str = ""


@dataclass(frozen=True)
class Entry:
    """A member of the archive, with the SHA-256 of its content in hexadecimal; empty for a folder."""

    member: tar.Member
    sha256: str = ""


@dataclass(frozen=True)
class Summary:
    """The first line of a manifest.

    :param host: ID of the installation; not its host name, which another one may have.
    :param set: name of the backup set.
    :param previous: SHA-256 of the previous manifest, in hexadecimal; empty for the first.
    :param began: start of the snapshot, in UTC: newer data is not in it.
    :param members: number of members.
    :param content_size: bytes of all members: the room that a restore needs.
    :param size: bytes of the archive.
    :param partial: whether something that was asked for is missing; the warnings say what.
    """

    host: str
    set: str
    name: str
    seq: int
    previous: str
    key: str
    began: str
    sources: tuple[SourceRecord, ...]
    members: int
    content_size: int
    size: int
    sha256: str
    warnings: tuple[str, ...] = ()
    partial: bool = False


def write(out: BinaryIO, summary: Summary, entries: Iterable[bytes], keys: Keyring) -> str:
    """Write a manifest, signed with the key that the summary names; return its SHA-256 in hexadecimal.

    :param entries: lines of :func:`encode_entry`, as many as the summary says.
    :raises BackupError: a line is too long, because of too many warnings or tables.
    """
    mac, digest = keys.mac(keyring.MANIFEST, summary.key), hashlib.sha256()

    def put(data: bytes) -> None:
        if len(data) > _LINE_MAX:
            raise BackupError(
                f"the manifest would have a line of {len(data)} bytes, more than the {_LINE_MAX} that can be read: "
                "there are too many warnings or tables"
            )
        mac.update(data)
        digest.update(data)
        out.write(data)

    content = {"format": FORMAT, "purpose": PURPOSE, **dataclasses.asdict(summary)}
    put(canonical.encode(content) + b"\n")
    for entry in entries:
        put(entry)
    signature = b"signature %s %s\n" % (summary.key.encode("ascii"), mac.hexdigest().encode("ascii"))
    digest.update(signature)
    out.write(signature)
    return digest.hexdigest()


def encode_entry(entry: Entry) -> bytes:
    """Return the line for a member."""
    return canonical.encode({**vars(entry.member), "sha256": entry.sha256}) + b"\n"


@dataclass(frozen=True)
class Manifest:
    """An authentic manifest.

    :param sha256: of the whole file, in hexadecimal; `previous` in the next manifest.
    """

    summary: Summary
    sha256: str
    _stream: BinaryIO
    _entries_at: int

    def entries(self) -> Iterator[Entry]:
        """Yield the members, in the order of the archive."""
        self._stream.seek(self._entries_at)
        for _member in range(self.summary.members):
            yield _parse_entry(self._stream.readline(_LINE_MAX))


def read(stream: BinaryIO, keys: Keyring) -> Manifest:
    """Read a manifest from a file, which stays open. The signature is checked before anything else is parsed.

    :raises NotAuthenticError: it is not a manifest, or not signed with a key of the keyring.
    """
    stream.seek(0)
    signed, sha256, count, signature = _digest(stream)
    key = signature[1].decode("ascii")
    mac = keys.mac(keyring.MANIFEST, key)
    stream.seek(0)
    _feed(mac, stream, signed)
    if not hmac.compare_digest(mac.hexdigest().encode("ascii"), signature[2]):
        raise NotAuthenticError("the signature is wrong; the manifest was changed, or signed with another key")
    stream.seek(0)
    summary = _parse_summary(stream.readline(_LINE_MAX))
    if summary.key != key:
        raise NotAuthenticError(f"the manifest names the key {summary.key}, but its signature the key {key}")
    if summary.members != count - 1:
        raise NotAuthenticError(f"the manifest has {count - 1} members, but its summary says {summary.members}")
    return Manifest(summary, sha256, stream, stream.tell())


def _digest(stream: BinaryIO) -> tuple[int, str, int, re.Match[bytes]]:
    """Return the number of signed bytes, the digest of the file, the number of signed lines, and the signature."""
    digest, signed, count, last = hashlib.sha256(), 0, 0, b""
    while True:
        now = stream.readline(_LINE_MAX)
        if now:
            digest.update(now)
        if not now:
            break
        if last:
            if not last.endswith(b"\n"):
                raise NotAuthenticError("the manifest has a line that is too long")
            signed += len(last)
            count += 1
        last = now
    found = _SIGNATURE.fullmatch(last)
    if found is None or not count:
        raise NotAuthenticError(
            "the manifest has no signature at its end; the file was truncated, or is not a manifest"
        )
    return signed, digest.hexdigest(), count, found


def _feed(mac: hmac.HMAC, stream: BinaryIO, size: int) -> None:
    while size:
        piece = stream.read(min(size, io.DEFAULT_BUFFER_SIZE * 16))
        if not piece:
            raise NotAuthenticError("the manifest changed while it was being read")
        mac.update(piece)
        size -= len(piece)


def _parse_summary(text: bytes) -> Summary:
    content = _object(text)
    version, purpose = content.pop("format", None), content.pop("purpose", None)
    if (version, purpose) != (FORMAT, PURPOSE):
        raise NotAuthenticError(
            f"the file is signed as {purpose!r} of format {version!r}, not as a backup of format {FORMAT}"
        )
    try:
        content["sources"] = tuple(SourceRecord(**given) for given in content["sources"])
        content["warnings"] = tuple(content["warnings"])
        summary = Summary(**content)
    except (TypeError, KeyError) as error:
        raise NotAuthenticError(f"the summary of the manifest has wrong fields: {error}") from None
    if not _is_sane(summary):
        raise NotAuthenticError("the summary of the manifest is signed, but has invalid values")
    return summary


def _is_sane(summary: Summary) -> bool:
    try:
        return bool(
            names.is_name(summary.name)
            and names.is_set_name(summary.set)
            and summary.name.endswith(f"_{summary.seq:06d}")
            and _TIME.fullmatch(summary.began)
            and _DIGEST.fullmatch(summary.sha256)
            and (not summary.previous or _DIGEST.fullmatch(summary.previous))
            and min(summary.size, summary.content_size, summary.members, summary.seq) >= 0
        )
    except (TypeError, ValueError):
        return False


def _parse_entry(text: bytes) -> Entry:
    content = _object(text)
    try:
        sha256 = content.pop("sha256")
        entry = Entry(tar.Member(**content), sha256)
    except (TypeError, KeyError) as error:
        raise NotAuthenticError(f"a member of the manifest has wrong fields: {error}") from None
    if entry.member.kind == tar.FILE and not _DIGEST.fullmatch(entry.sha256):
        raise NotAuthenticError(f"the manifest has no digest for {entry.member.path!r}")
    return entry


def _object(text: bytes) -> dict[str, Any]:
    found = canonical.decode(text.removesuffix(b"\n"))
    if not isinstance(found, dict):
        raise NotAuthenticError("a line of the manifest is not a JSON object")
    return found
