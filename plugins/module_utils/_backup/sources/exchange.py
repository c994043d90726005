# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Two folders that change places, so that a run that dies in between can be undone by whoever comes next."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..._host import durable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: Where a file system has no exchange: overlayfs with a folder of a lower layer, for example.
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.ENOTSUP)
_NONE = "none"


def swap(path: Path, other: Path) -> None:
    """Put *other* in the place of *path*, which goes to the place of *other*; either of them may be missing there.

    :raises OSError: it cannot be; `swap_back` knows how far it came.
    """
    # Which one was the present is known by its inode, whatever its name is by then.
    durable.write(_note(other), _identity(path))
    if not path.exists():
        other.rename(path)
    elif not _exchange(path, other):
        path.rename(_aside(other))
        other.rename(path)
        _aside(other).rename(other)
    _sync(path, other)


def swap_back(path: Path, other: Path) -> bool:
    """Give the present its place again, if it left it; False where nothing began.

    :raises OSError: it cannot be.
    """
    try:
        present = _note(other).read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    aside = _aside(other)
    if present == _identity(path):
        pass
    elif present == _NONE:
        if not other.exists():
            path.rename(other)
    elif present == _identity(aside):
        if path.exists():
            path.rename(other)
        aside.rename(path)
    elif present != _identity(other):
        raise FileNotFoundError(errno.ENOENT, "the folder that was there before is gone")
    elif not path.exists():
        other.rename(path)
    elif not _exchange(path, other):
        other.rename(aside)
        path.rename(other)
        aside.rename(path)
    _sync(path, other)
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where that cannot be. renameat2(2)"""
    # Here, because it wants memory that can be written and executed, which a unit that only backs up is denied.
    import ctypes  # noqa: PLC0415

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in _UNABLE:
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
    # Both are on one file system; by what number the kernel knows that is another matter after a reboot.
    return str(status.st_ino)


def _sync(path: Path, other: Path) -> None:
    durable.sync(path.parent)
    durable.sync(other.parent)
