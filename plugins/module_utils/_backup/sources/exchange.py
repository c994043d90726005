# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Swap two folders, so that a process that dies in between can be undone by the next one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..._host import durable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: The file system cannot exchange two names: overlayfs with a folder of a lower layer, for example.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.ENOTSUP)
_NONE = "none"


def swap(path: Path, other: Path) -> None:
    """Swap two folders; `path` may be missing.

    :raises OSError: a step failed; `swap_back` undoes those before.
    """
    # The inode identifies the live folder, whatever its name is when this dies.
    durable.write(_note(other), _identity(path))
    if not path.exists():
        other.rename(path)
    elif not _exchange(path, other):
        path.rename(_aside(other))
        other.rename(path)
        _aside(other).rename(other)
    _sync(path, other)


def swap_back(path: Path, other: Path) -> bool:
    """Give the live folder its name back, however far `swap` has come; return False if that never began.

    :raises OSError: a step failed, or the live folder is gone.
    """
    try:
        live = _note(other).read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    aside = _aside(other)
    if live == _identity(path):
        pass
    elif live == _NONE:
        if not other.exists():
            path.rename(other)
    elif live == _identity(aside):
        if path.exists():
            path.rename(other)
        aside.rename(path)
    elif live != _identity(other):
        raise FileNotFoundError(errno.ENOENT, "the folder from before the restore is gone")
    elif not path.exists():
        other.rename(path)
    elif not _exchange(path, other):
        other.rename(aside)
        path.rename(other)
        aside.rename(path)
    _sync(path, other)
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step (renameat2(2)); return False if the file system cannot."""
    # Imported here: ctypes needs memory that is writable and executable, which the units of backups are denied.
    import ctypes  # noqa: PLC0415

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), os.fspath(one))


def _note(other: Path) -> Path:
    return other.with_name(f"{other.name}.present")


def _aside(other: Path) -> Path:
    return other.with_name(f"{other.name}.aside")


def _identity(path: Path) -> str:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return _NONE
    # Without the device number: both folders are on one file system, whose number may change with a reboot.
    return str(status.st_ino)


def _sync(path: Path, other: Path) -> None:
    durable.sync(path.parent)
    durable.sync(other.parent)
