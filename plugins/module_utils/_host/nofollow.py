# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Files and folders where others can write: nobody leads what is done here elsewhere by a link of that name.

What is made has its name when it is whole and theirs whose it is to be. The folders above are not looked at: who can
write to those can give another meaning to all that is below.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import stat
import uuid
from pathlib import Path

from . import durable

#: How a folder is opened that nobody may exchange for a link.
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED = ".unfinished-"


def read(file: Path | str, below: int | None = None) -> int:
    """Open a file, and wait for nobody; returns its descriptor.

    :param below: descriptor of the folder that it is in, where it is named without.
    :raises OSError: there is none, or it is a link, a folder, a pipe or a device.
    """
    descriptor = os.open(file, _READ, dir_fd=below)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "this is no file", os.fspath(file))
    return descriptor


def make(file: Path | str, below: int | None = None) -> int:
    """Make a file that nobody has put there, for its owner only; returns its descriptor.

    :param below: as of `read`.
    :raises OSError: it cannot be; or something has the name.
    """
    return os.open(file, _MAKE, 0o600, dir_fd=below)


def copy(origin: Path, target: Path) -> None:
    """Copy a file with its owner, mode and time, durably, in the place of what has the name.

    :raises OSError: it cannot be; or a folder has the name.
    """
    # Of one that was killed at this.
    for left in target.parent.glob(f".{glob.escape(target.name)}{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            left.unlink()
    unfinished = target.with_name(f".{target.name}{_UNFINISHED}{uuid.uuid4()}")
    with os.fdopen(read(origin), "rb") as content, os.fdopen(make(unfinished), "wb") as written:
        try:
            shutil.copyfileobj(content, written)
            written.flush()
            copy_metadata(written.fileno(), content.fileno())
            os.fsync(written.fileno())
            unfinished.rename(target)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
    durable.sync(target.parent)


def make_folder(name: str, like: int, below: int) -> None:
    """Make a folder with the owner, mode and time of another one.

    :param like: descriptor of that.
    :param below: descriptor of the folder that it is made in.
    :raises OSError: it cannot be; or something but an empty folder has the name.
    """
    unfinished = f"{_UNFINISHED}{uuid.uuid4()}"
    os.mkdir(unfinished, 0o700, dir_fd=below)
    try:
        descriptor = os.open(unfinished, OPEN_FOLDER, dir_fd=below)
        try:
            made = os.fstat(descriptor)
            with os.scandir(descriptor) as held:
                if (made.st_uid, made.st_mode & 0o777) != (os.geteuid(), 0o700) or any(held):
                    raise FileExistsError(errno.EEXIST, "somebody has put another folder into its place", name)
            copy_metadata(descriptor, like)
        finally:
            os.close(descriptor)
        os.rename(unfinished, name, src_dir_fd=below, dst_dir_fd=below)
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(unfinished, dir_fd=below)
        raise


def copy_metadata(descriptor: int, like: int) -> None:
    """Give a file or folder owner, mode and time of another one, and of its extended attributes what can be.

    :raises OSError: it cannot be.
    """
    status = os.fstat(like)
    os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    # Some are the kernel's own, and some file systems have none.
    with contextlib.suppress(OSError):
        for name in os.listxattr(like):
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(like, name))
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
