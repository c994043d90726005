# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Move what is excluded from backups of a folder: from the live folder into the restored one, and back."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePath

from ..._host import nofollow
from ..._host.nofollow import OPEN_FOLDER
from . import gather
from .gather import Found

#: Errors of one path: something of another kind is on the way or at the target, or it cannot be moved at all (it is
#: immutable, for example, or the root of a file system).
_UNMOVABLE = (
    *(errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR),
    *(errno.EPERM, errno.EBUSY, errno.EXDEV),
)


def find_excluded(folder: Path, patterns: Sequence[str]) -> Iterator[Found]:
    """Yield what the patterns match below a folder.

    :raises OSError: the folder cannot be read.
    """
    # Without patterns, which is usual, the folder is not walked: the panel is stopped meanwhile.
    found = gather.walk_directory(folder, (), gather.no_warning) if patterns and folder.exists() else iter(())
    return (one for one in found if gather.matches(one.path, one.entry.name, patterns))


def remove_excluded(live: Path, loaded: Path, patterns: Sequence[str]) -> list[str]:
    """Remove what is excluded from a restored folder, if the live folder has the same path.

    Such a path was excluded only after the backup. Nobody else may be able to write to the restored folder.

    :returns: the excluded paths that stay.
    :raises OSError: a path cannot be removed.
    """
    live_paths = {found.path for found in find_excluded(live, patterns)}
    stays = []
    for path in [found.path for found in find_excluded(loaded, patterns)]:
        if path not in live_paths:
            stays.append(path)
        elif (loaded / path).is_dir():
            shutil.rmtree(loaded / path)
        else:
            # It may be gone already, with the folder that contained it.
            (loaded / path).unlink(missing_ok=True)
    return stays


def move_excluded(origin: Path, target: Path, patterns: Sequence[str], but: Collection[str] = ()) -> list[str]:
    """Move what is excluded from one folder to another, unless that has something of the same path.

    Others may write to both folders, and exchange folders for symlinks meanwhile. Nothing leaves the two folders then.

    :param but: paths that stay.
    :returns: the paths that could not be moved, each with the reason.
    :raises OSError: one of the folders cannot be read or written.
    """
    unmovable = []
    for found in find_excluded(origin, patterns):
        if found.path in but:
            continue
        try:
            with _same_folder(target, found, origin) as folder:
                if not _has(folder, found.entry.name):
                    os.rename(found.entry.name, found.entry.name, src_dir_fd=found.folder, dst_dir_fd=folder)
        except FileNotFoundError:
            # Removed meanwhile, perhaps with the folder that contained it.
            pass
        except OSError as error:
            if error.errno not in _UNMOVABLE:
                raise
            unmovable.append(f"{found.path} ({error.strerror})")
    return unmovable


@contextlib.contextmanager
def _same_folder(target: Path, found: Found, origin: Path) -> Iterator[int]:
    """Open the folder of the same path in the target; missing folders are created like those of the origin."""
    with contextlib.ExitStack() as stack:
        in_origin, in_target = _opened(stack, origin), _opened(stack, target)
        for name in PurePath(found.path).parent.parts:
            in_origin = _opened(stack, name, in_origin)
            if not _has(in_target, name):
                nofollow.make_folder(name, in_origin, in_target)
            in_target = _opened(stack, name, in_target)
        yield in_target


def _opened(stack: contextlib.ExitStack, folder: Path | str, below: int | None = None) -> int:
    descriptor = os.open(folder, OPEN_FOLDER, dir_fd=below)
    stack.callback(os.close, descriptor)
    return descriptor


def _has(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
