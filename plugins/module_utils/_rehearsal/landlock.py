# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Confine a process and its children without root, with the kernel's Landlock, landlock(7).

Landlock has only rules that allow. A folder is hidden by allowing everything around it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

# The same system call numbers on all architectures of Python's manylinux.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # flag of landlock_create_ruleset(2)
_PATH_BENEATH, _NET_PORT = 1, 2
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_WRITE_FILE, _READ_FILE, _TRUNCATE = 1 << 1, 1 << 2, 1 << 14
# Remove and create files of each kind.
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))
_REFER = 1 << 13
_TCP = _BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPES = 3  # abstract unix sockets and signals
# The first ABI version with each access right.
_ABI_REFER, _ABI_TRUNCATE, _ABI_TCP, _ABI_SCOPES = 2, 3, 4, 6

_libc = ctypes.CDLL(None, use_errno=True)


class Confinement:
    """A set of allowed accesses; it takes effect with `enter`.

    :param hidden: folder whose files cannot be read; an absolute path without links.
    :param writable: folders and files that can be written.
    :param listens: TCP ports to listen on (Linux 6.7 and newer; unrestricted before).
    :param connects: TCP ports to connect to, likewise.
    :raises OSError: the kernel has no Landlock, or it is disabled.
    """

    def __init__(
        self, hidden: Path, writable: Sequence[Path], listens: Sequence[int] = (), connects: Sequence[int] = ()
    ) -> None:
        abi = version()
        self._files = _WRITE_FILE | _READ_FILE | (_TRUNCATE if abi >= _ABI_TRUNCATE else 0)
        self._folders = _CHANGE_FOLDER | (_REFER if abi >= _ABI_REFER else 0)
        handled = [self._files | self._folders]
        handled += [sum(_TCP)] if abi >= _ABI_TCP else []
        handled += [_SCOPES] if abi >= _ABI_SCOPES else []
        attributes = struct.pack(f"={len(handled)}Q", *handled)
        self.descriptor = _call(_CREATE_RULESET, attributes, len(attributes), 0)
        try:
            for path in _surroundings(hidden):
                self._allow(path, _READ_FILE)
            for path in writable:
                self._allow(path, self._files | self._folders)
            if abi >= _ABI_TCP:
                for ports, access in ((listens, _BIND_TCP), (connects, _CONNECT_TCP)):
                    for port in ports:
                        self._rule(_NET_PORT, struct.pack("=QQ", access, port))
        except OSError:
            self.close()
            raise

    def enter(self) -> None:
        """Confine this process permanently, and let it die with its parent. For a child before its exec.

        :raises OSError: the kernel refuses.
        """
        for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
            if _libc.prctl(option, value, 0, 0, 0):
                raise _error()
        _call(_RESTRICT_SELF, self.descriptor, 0)

    def close(self) -> None:
        """Close the ruleset; processes that entered it stay confined."""
        os.close(self.descriptor)

    def _allow(self, path: Path, access: int) -> None:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return  # It was removed meanwhile, or is a mount that does not respond.
        try:
            mode = os.fstat(descriptor).st_mode
            # The target of a link has its own rule.
            if not stat.S_ISLNK(mode):
                access &= -1 if stat.S_ISDIR(mode) else self._files
                self._rule(_PATH_BENEATH, struct.pack("=Qi", access, descriptor))
        finally:
            os.close(descriptor)

    def _rule(self, kind: int, attributes: bytes) -> None:
        _call(_ADD_RULE, self.descriptor, kind, attributes, 0)


def version() -> int:
    """Return the version of the kernel's Landlock ABI.

    :raises OSError: the kernel has no Landlock, or it is disabled.
    """
    return _call(_CREATE_RULESET, None, 0, _VERSION)


def _surroundings(hidden: Path) -> list[Path]:
    """Return the siblings of a folder, and of each of its parents."""
    found = []
    for inner in (hidden, *hidden.parents[:-1]):
        # A folder that cannot be listed belongs to another account.
        with contextlib.suppress(PermissionError):
            found += [entry for entry in inner.parent.iterdir() if entry != inner]
    return found


def _call(number: int, *arguments: int | bytes | None) -> int:
    # syscall(2) takes one machine word per argument.
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
