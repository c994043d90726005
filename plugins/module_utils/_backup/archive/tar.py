# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Read and write tar archives of files and folders only (POSIX.1-2017, pax, section "ustar Interchange Format").

The standard library's `tarfile` trusts an archive: links, devices, sparse maps, headers of any length. This reader
refuses an archive at the first byte that a backup would not have, and holds no more than a block in memory.
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
_RECORD = 20 * BLOCK  # the size of a tar archive is a multiple of this
_CHUNK = 1 << 20  # bytes read at once
_PAX_MAX = 64 << 10  # bytes of a pax header, which has a path and some numbers
_NAME, _PREFIX = 100, 155  # sizes in bytes of the two fields for a path
_OCTAL_11, _OCTAL_7 = 8**11, 8**7  # the first numbers that do not fit into the fields
_TYPES = {FILE: b"0", FOLDER: b"5"}
_KINDS = {b"0": FILE, b"\0": FILE, b"5": FOLDER}
_PAX = b"x"
# The fields that are the same in each header: no link, the format, no user and group names, no device.
_CONSTANT = bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\0"
_CONSTANT_SUM = sum(_CONSTANT) + 8 * ord(" ")  # the field of the checksum itself counts as blanks
_LIMITS = {"size": _OCTAL_11, "uid": _OCTAL_7, "gid": _OCTAL_7, "mtime": _OCTAL_11}
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,9}) ([^=]{1,255})=")

#: Returns this many bytes; fewer only at the end.
Read = Callable[[int], bytes]


@dataclass(frozen=True)
class Member:
    """A file or a folder.

    :param path: relative, without a slash at its end; bytes that are not UTF-8 as from `os.fsdecode`.
    :param mtime: in whole seconds since 1970.
    """

    path: str
    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0


def header(member: Member) -> bytes:
    """Return the header of a member, with a pax header before it if one is needed."""
    path = member.path.encode("utf-8", "surrogateescape") + (b"/" if member.kind == FOLDER else b"")
    numbers = {"size": member.size, "uid": member.uid, "gid": member.gid, "mtime": member.mtime}
    large = {name: number for name, number in numbers.items() if not 0 <= number < _LIMITS[name]}
    extended = b"".join(_pax_record(name, b"%d" % number) for name, number in large.items())
    split = _split(path)
    if split is None:
        extended = _pax_record("path", path) + extended
        split = b"", path[:_NAME]
    # Copy the member only if necessary: most have no large numbers, and a copy takes time.
    known = replace(member, **dict.fromkeys(large, 0)) if large else member  # type: ignore[arg-type] # numbers
    plain = _ustar(*split, known, _TYPES[member.kind])
    if not extended:
        return plain
    pax = Member("", FILE, 0o644, size=len(extended))
    return _ustar(b"", b"pax_header", pax, _PAX) + extended + padding(len(extended)) + plain


def padding(size: int) -> bytes:
    """Return the padding that fills up the last block of a file of this size."""
    return bytes(-size % BLOCK)


def end(written: int) -> bytes:
    """Return the end of an archive: two empty blocks, and the padding of the last record.

    :param written: size of the archive so far.
    """
    return bytes(2 * BLOCK + -(written + 2 * BLOCK) % _RECORD)


def members(read: Read) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Read an archive: yield each member with its content, in pieces. Content that is not read is skipped.

    :param read: returns a number of bytes; fewer only at the end of the archive.
    :raises NotAuthenticError: it has something that a backup never has.
    """
    extended: dict[str, bytes] | None = None
    while True:
        block = _read_exactly(read, BLOCK)
        if not any(block):
            if extended is not None or any(_read_exactly(read, BLOCK)):
                raise _invalid("it ends within a member")
            _check_end(read)
            return
        kind, member = _parse(block)
        if kind == _PAX:
            if extended is not None or member.size > _PAX_MAX:
                raise _invalid(f"it has an unexpected pax header of {member.size} bytes")
            extended = _parse_pax(_read_exactly(read, member.size))
            _check_padding(read, member.size)
            continue
        if extended is not None:
            member, extended = _apply_pax(member, extended), None
        content = _content(read, member.size)
        yield member, content
        for _chunk in content:
            pass


def _content(read: Read, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = _read_exactly(read, min(left, _CHUNK))
        left -= len(piece)
        yield piece
    _check_padding(read, size)


def _check_padding(read: Read, size: int) -> None:
    if any(_read_exactly(read, -size % BLOCK)):
        raise _invalid("the padding of a file is not empty")


def _check_end(read: Read) -> None:
    size = 0
    while piece := read(BLOCK):
        size += len(piece)
        if any(piece) or size >= _RECORD:
            raise _invalid("data follows its end")


def _read_exactly(read: Read, size: int) -> bytes:
    piece = read(size) if size else b""
    if len(piece) != size:
        raise _invalid("it is truncated")
    return piece


def _parse(block: bytes) -> tuple[bytes, Member]:
    if _parse_octal(block[148:156]) != _checksum(block):
        raise _invalid("a header has a wrong checksum")
    if block[257:263] not in (b"ustar\0", b"ustar "):
        raise _invalid("a header has an unknown format")
    kind = block[156:157]
    if kind != _PAX and kind not in _KINDS:
        raise _invalid(f"it has a member of type {kind!r}; only files and folders are allowed")
    gnu = block[257:263] == b"ustar "
    prefix, name = b"" if gnu else _parse_text(block[345:500]), _parse_text(block[0:100])
    path = prefix + b"/" + name if prefix else name
    return kind, Member(
        path=_path(path, kind),
        kind=_KINDS.get(kind, FILE),
        mode=stat.S_IMODE(_parse_octal(block[100:108])),
        uid=_parse_octal(block[108:116]),
        gid=_parse_octal(block[116:124]),
        size=_size(_parse_octal(block[124:136]), kind),
        mtime=_parse_octal(block[136:148]),
    )


def _apply_pax(member: Member, extended: dict[str, bytes]) -> Member:
    kind = _TYPES[member.kind]
    changes: dict[str, str | int] = {}
    for name, value in extended.items():
        if name == "path":
            changes[name] = _path(value, kind)
        elif name in _LIMITS:
            # Other programs write fractions of seconds.
            whole = re.fullmatch(rb"(-?[0-9]{1,19})(\.[0-9]+)?", value)
            if whole is None or (whole[2] and name != "mtime"):
                raise _invalid(f"a pax header has the {name} {value[:40]!r}")
            changes[name] = int(whole[1]) if name != "size" else _size(int(whole[1]), kind)
        elif name not in ("atime", "ctime"):
            raise _invalid(f"a pax header has the unknown key {name[:40]!r}")
    return replace(member, **changes)  # type: ignore[arg-type] # by their names


def _parse_pax(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    while data:
        start = _PAX_RECORD.match(data)
        length = int(start[1]) if start else 0
        if start is None or not start.end() < length <= len(data) or data[length - 1 : length] != b"\n":
            raise _invalid("a pax header is malformed")
        name = start[2].decode("ascii", "replace")
        if name in found:
            raise _invalid(f"a pax header has {name[:40]} twice")
        found[name] = data[start.end() : length - 1]
        data = data[length:]
    return found


def _path(path: bytes, kind: bytes) -> str:
    if kind == _PAX:
        return ""
    if kind == _TYPES[FOLDER]:
        path = path.removesuffix(b"/")
    return path.decode("utf-8", "surrogateescape")


def _size(size: int, kind: bytes) -> int:
    if size < 0 or (size and kind == _TYPES[FOLDER]):
        raise _invalid(f"a member has the size {size}")
    return size


def _parse_text(field: bytes) -> bytes:
    text, _separator, rest = field.partition(b"\0")
    if any(rest):
        raise _invalid("a name has data behind its end")
    return text


def _parse_octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    # int() alone would accept signs, underscores and blanks.
    if digits and (not digits.isdigit() or b"8" in digits or b"9" in digits):
        raise _invalid(f"a header has the invalid number {field!r}")
    return int(digits or b"0", 8)


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """Split a path into the two fields of a header; return None if it does not fit."""
    if len(path) <= _NAME:
        return b"", path
    # Without the last byte, which may be the slash at the end of a folder.
    cut = path.find(b"/", len(path) - _NAME - 1, len(path) - 1)
    return (path[:cut], path[cut + 1 :]) if 0 < cut <= _PREFIX else None


def _ustar(prefix: bytes, name: bytes, member: Member, kind: bytes) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (member.mode, member.uid, member.gid, member.size, member.mtime)
    # Zeros add nothing, and the sum of a whole block would take as long as all the rest.
    checksum = _CONSTANT_SUM + sum(map(sum, (name, numbers, kind, prefix)))
    name, prefix = name.ljust(_NAME, b"\0"), prefix.ljust(_PREFIX, b"\0")
    return b"%s%s%06o\0 %s%s%s%s" % (name, numbers, checksum, kind, _CONSTANT, prefix, bytes(12))


def _pax_record(name: str, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (name.encode("ascii"), value)
    # The length includes its own digits.
    length = len(rest) + len(str(len(rest)))
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d%s" % (length, rest)


def _invalid(what: str) -> NotAuthenticError:
    return NotAuthenticError(f"not the archive of a backup: {what}")
