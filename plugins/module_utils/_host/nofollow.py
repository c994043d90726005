# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Open and create files in folders that other accounts can write to, without following links.

A new file or folder is renamed into place once it is complete and has its final owner. Parent folders are not checked:
an account that can write to those controls everything below.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import stat
import uuid
from pathlib import Path, PurePosixPath

from . import durable

#: Flags to open a folder without following a link.
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED = ".unfinished-"


def read(file: Path | str, below: int | None = None) -> int:
    """Open a regular file without blocking, and return its descriptor.

    :param below: descriptor of its folder, if `file` is a name in it.
    :raises OSError: the file is missing, or a link, a folder, a pipe or a device.
    """
    descriptor = os.open(file, _READ, dir_fd=below)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(file))
    return descriptor


def make(file: Path | str, below: int | None = None) -> int:
    """Create a file with mode 0600, and return its descriptor.

    :param below: see `read`.
    :raises OSError: it cannot be created, or the name exists.
    """
    return os.open(file, _MAKE, 0o600, dir_fd=below)


def open_folder(root: int, path: str, create_mode: int | None = None) -> int:
    """Open a folder one path component at a time, through no symlink; returns its descriptor.

    :param root: descriptor of the folder that the path is relative to; it stays open.
    :param path: names joined by single slashes; empty for the root itself.
    :param create_mode: permissions for the folders that are missing, which are created; None to fail on them.
    :raises OSError: a component is missing, or is not a folder; `filename` is the path up to that component.
    """
    current, walked = os.dup(root), PurePosixPath()
    for name in path.split("/") if path else ():
        walked /= name
        try:
            if create_mode is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, create_mode, dir_fd=current)
            following = os.open(name, OPEN_FOLDER, dir_fd=current)
        except OSError as error:
            error.filename = str(walked)
            raise
        finally:
            os.close(current)
        current = following
    return current


def copy(origin: Path, target: Path) -> None:
    """Copy a file with its owner, mode and time durably, replacing the target.

    :raises OSError: it cannot be copied, or the target is a folder.
    """
    # Leftovers of a killed process.
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
    """Create a folder with the owner, mode and time of another one.

    :param like: descriptor of the other folder.
    :param below: descriptor of the parent folder.
    :raises OSError: it cannot be created, or the name exists and is not an empty folder.
    """
    unfinished = f"{_UNFINISHED}{uuid.uuid4()}"
    os.mkdir(unfinished, 0o700, dir_fd=below)
    try:
        descriptor = os.open(unfinished, OPEN_FOLDER, dir_fd=below)
        try:
            made = os.fstat(descriptor)
            with os.scandir(descriptor) as held:
                if (made.st_uid, made.st_mode & 0o777) != (os.geteuid(), 0o700) or any(held):
                    raise FileExistsError(errno.EEXIST, "another process replaced the new folder", name)
            copy_metadata(descriptor, like)
        finally:
            os.close(descriptor)
        os.rename(unfinished, name, src_dir_fd=below, dst_dir_fd=below)
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(unfinished, dir_fd=below)
        raise


def copy_metadata(descriptor: int, like: int) -> None:
    """Copy owner, mode, time and, as far as possible, extended attributes to a file or folder.

    :param like: descriptor of the file or folder to copy from.
    :raises OSError: owner, mode or time cannot be set.
    """
    status = os.fstat(like)
    os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    # Some attributes belong to the kernel, and some file systems have none.
    with contextlib.suppress(OSError):
        for name in os.listxattr(like):
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(like, name))
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
