# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Tar archives of files and folders, and of nothing else (POSIX.1-2017, pax, section "ustar Interchange Format").

The standard library's `tarfile` believes what an archive says: links, devices, sparse maps, headers of any length. What
is read here is refused at the first byte that a backup of ours would not have, and takes one block of memory.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ..errors import NotAuthenticError

FILE: Final = "f"
FOLDER: Final = "d"
BLOCK: Final = 512
_RECORD = 20 * BLOCK  # tar writes no shorter pieces
_CHUNK = 1 << 20  # bytes read at once
_EXTENDED_MAX = 64 << 10  # bytes of a pax header: a path and some numbers
_NAME, _PREFIX = 100, 155  # bytes of a path that a header has room for
_OCTAL_11, _OCTAL_7 = 8**11, 8**7  # beyond what its fields can say
_TYPES = {FILE: b"0", FOLDER: b"5"}
_KINDS = {b"0": FILE, b"\0": FILE, b"5": FOLDER}
_EXTENDED = b"x"
# No link, the format, nobody's name, no device.
_SAME = bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\0"
_SAME_SUM = sum(_SAME) + 8 * ord(" ")  # a checksum's own field counts as blanks
_BEYOND = {"size": _OCTAL_11, "uid": _OCTAL_7, "gid": _OCTAL_7, "mtime": _OCTAL_11}
_RECORD_OF_PAX = re.compile(rb"([1-9][0-9]{0,9}) ([^=]{1,255})=")

#: Gives exactly so many bytes.
Read = Callable[[int], bytes]


@dataclass(frozen=True)
class Member:
    """A file or a folder.

    :param path: relative, without a slash at its end; bytes that are no UTF-8 are as `os.fsdecode` has them.
    :param mtime: whole seconds since 1970.
    """

    path: str
    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0


def header(member: Member) -> bytes:
    """Return the header of a member, with a pax header before it where it needs one."""
    path = member.path.encode("utf-8", "surrogateescape") + (b"/" if member.kind == FOLDER else b"")
    numbers = {"size": member.size, "uid": member.uid, "gid": member.gid, "mtime": member.mtime}
    large = {name: number for name, number in numbers.items() if not 0 <= number < _BEYOND[name]}
    extended = b"".join(_pax_record(name, b"%d" % number) for name, number in large.items())
    split = _split(path)
    if split is None:
        extended = _pax_record("path", path) + extended
        split = b"", path[:_NAME]
    # Most have none, and each copy takes its time.
    known = replace(member, **dict.fromkeys(large, 0)) if large else member  # type: ignore[arg-type] # numbers
    plain = _ustar(*split, known, _TYPES[member.kind])
    if not extended:
        return plain
    note = Member("", FILE, 0o644, size=len(extended))
    return _ustar(b"", b"pax_header", note, _EXTENDED) + extended + padding(len(extended)) + plain


def padding(size: int) -> bytes:
    """Return what follows so many bytes of a file, up to a whole block."""
    return bytes(-size % BLOCK)


def end(written: int) -> bytes:
    """Return what ends an archive: two blocks, and what fills a record up.

    :param written: bytes of the archive so far.
    """
    return bytes(2 * BLOCK + -(written + 2 * BLOCK) % _RECORD)


def members(read: Read) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Read an archive: each member with its content, in pieces. A content that is left unread is skipped.

    :param read: gives so many bytes; fewer only at the end of the archive.
    :raises NotAuthenticError: something stands there that no backup of ours would have.
    """
    extended: dict[str, bytes] | None = None
    while True:
        block = _exactly(read, BLOCK)
        if not any(block):
            if extended is not None or any(_exactly(read, BLOCK)):
                raise _strange("it ends in the middle")
            _nothing_follows(read)
            return
        kind, member = _parse(block)
        if kind == _EXTENDED:
            if extended is not None or member.size > _EXTENDED_MAX:
                raise _strange(f"an extended header of {member.size} bytes")
            extended = _parse_pax(_exactly(read, member.size))
            _zeroes(read, member.size)
            continue
        if extended is not None:
            member, extended = _extend(member, extended), None
        content = _content(read, member.size)
        yield member, content
        for _ in content:
            pass


def _content(read: Read, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = _exactly(read, min(left, _CHUNK))
        left -= len(piece)
        yield piece
    _zeroes(read, size)


def _zeroes(read: Read, size: int) -> None:
    if any(_exactly(read, -size % BLOCK)):
        raise _strange("something is hidden behind the end of a file")


def _nothing_follows(read: Read) -> None:
    size = 0
    while piece := read(BLOCK):
        size += len(piece)
        if any(piece) or size >= _RECORD:
            raise _strange("something follows its end")


def _exactly(read: Read, size: int) -> bytes:
    piece = read(size) if size else b""
    if len(piece) != size:
        raise _strange("it ends too early")
    return piece


def _parse(block: bytes) -> tuple[bytes, Member]:
    if _number(block[148:156]) != _checksum(block):
        raise _strange("the checksum of a header is wrong")
    if block[257:263] not in (b"ustar\0", b"ustar "):
        raise _strange("a header of no known format")
    kind = block[156:157]
    if kind != _EXTENDED and kind not in _KINDS:
        raise _strange(f"a member of type {kind!r}: only files and folders are restored")
    gnu = block[257:263] == b"ustar "
    prefix, name = b"" if gnu else _text(block[345:500]), _text(block[0:100])
    path = prefix + b"/" + name if prefix else name
    return kind, Member(
        path=_path(path, kind),
        kind=_KINDS.get(kind, FILE),
        mode=stat.S_IMODE(_number(block[100:108])),
        uid=_number(block[108:116]),
        gid=_number(block[116:124]),
        size=_size(_number(block[124:136]), kind),
        mtime=_number(block[136:148]),
    )


def _extend(member: Member, extended: dict[str, bytes]) -> Member:
    kind = _TYPES[member.kind]
    changes: dict[str, str | int] = {}
    for name, value in extended.items():
        if name == "path":
            changes[name] = _path(value, kind)
        elif name in _BEYOND:
            # Others write fractions of seconds.
            whole = re.fullmatch(rb"(-?[0-9]{1,19})(\.[0-9]+)?", value)
            if whole is None or (whole[2] and name != "mtime"):
                raise _strange(f"{name} is {value[:40]!r}")
            changes[name] = int(whole[1]) if name != "size" else _size(int(whole[1]), kind)
        elif name not in ("atime", "ctime"):
            raise _strange(f"the extended header {name[:40]!r}")
    return replace(member, **changes)  # type: ignore[arg-type] # by their names


def _parse_pax(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    while data:
        start = _RECORD_OF_PAX.match(data)
        length = int(start[1]) if start else 0
        if start is None or not start.end() < length <= len(data) or data[length - 1 : length] != b"\n":
            raise _strange("an extended header that is none")
        name = start[2].decode("ascii", "replace")
        if name in found:
            raise _strange(f"{name[:40]} twice in an extended header")
        found[name] = data[start.end() : length - 1]
        data = data[length:]
    return found


def _path(path: bytes, kind: bytes) -> str:
    if kind == _EXTENDED:
        return ""
    if kind == _TYPES[FOLDER]:
        path = path.removesuffix(b"/")
    return path.decode("utf-8", "surrogateescape")


def _size(size: int, kind: bytes) -> int:
    if size < 0 or (size and kind == _TYPES[FOLDER]):
        raise _strange(f"a size of {size} bytes")
    return size


def _text(field: bytes) -> bytes:
    text, _, rest = field.partition(b"\0")
    if any(rest):
        raise _strange("something is hidden behind the end of a name")
    return text


def _number(field: bytes) -> int:
    digits = field.strip(b" \0")
    # int() alone would take signs, underscores and blanks.
    if digits and (not digits.isdigit() or b"8" in digits or b"9" in digits):
        raise _strange(f"a number that is none: {field!r}")
    return int(digits or b"0", 8)


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """Part a path into the two fields of a header; None where it does not fit."""
    if len(path) <= _NAME:
        return b"", path
    # The last byte may be a folder's own slash.
    cut = path.find(b"/", len(path) - _NAME - 1, len(path) - 1)
    return (path[:cut], path[cut + 1 :]) if 0 < cut <= _PREFIX else None


def _ustar(prefix: bytes, name: bytes, member: Member, kind: bytes) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (member.mode, member.uid, member.gid, member.size, member.mtime)
    # What is zero adds nothing, and to sum up a whole block takes as long as all the rest.
    checksum = _SAME_SUM + sum(map(sum, (name, numbers, kind, prefix)))
    name, prefix = name.ljust(_NAME, b"\0"), prefix.ljust(_PREFIX, b"\0")
    return b"%s%s%06o\0 %s%s%s%s" % (name, numbers, checksum, kind, _SAME, prefix, bytes(12))


def _pax_record(name: str, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (name.encode("ascii"), value)
    # The length counts its own digits.
    length = len(rest) + len(str(len(rest)))
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d%s" % (length, rest)


def _strange(what: str) -> NotAuthenticError:
    return NotAuthenticError(f"the archive is no backup: {what}")
