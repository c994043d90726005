# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What is excluded from backups of a folder, on its way from the one that goes to the one that comes."""

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

#: Something of another kind is on the way or there by now, or it must not be moved, or is the root of a file system.
_NO_PLACE = (
    *(errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR),
    *(errno.EPERM, errno.EBUSY, errno.EXDEV),
)


def find_excluded(folder: Path, patterns: Sequence[str]) -> Iterator[Found]:
    """Give what the patterns mean below a folder, and what is below that.

    :raises OSError: the folder cannot be read.
    """
    # The panel stands still meanwhile, and mostly nothing is excluded.
    found = gather.walk_directory(folder, (), gather.no_warning) if patterns and folder.exists() else iter(())
    return (one for one in found if gather.matches(one.path, one.entry.name, patterns))


def remove_excluded(present: Path, loaded: Path, patterns: Sequence[str]) -> list[str]:
    """Remove what is excluded from a folder that nobody else can write to, where the present has the same.

    It is excluded by now, and was not yet when the other folder was backed up.

    :returns: the paths of what is excluded, and stays.
    :raises OSError: it cannot be.
    """
    theirs = {found.path for found in find_excluded(present, patterns)}
    stays = []
    for path in [found.path for found in find_excluded(loaded, patterns)]:
        if path not in theirs:
            stays.append(path)
        elif (loaded / path).is_dir():
            shutil.rmtree(loaded / path)
        else:
            # Or it went with the folder that it is in.
            (loaded / path).unlink(missing_ok=True)
    return stays


def move_excluded(origin: Path, target: Path, patterns: Sequence[str], but: Collection[str] = ()) -> list[str]:
    """Move what is excluded from one folder to the other, where that has nothing of the name.

    Others may write to both, and exchange folders for links meanwhile; nothing gets anywhere else by that.

    :param but: paths that stay.
    :returns: the paths of what has no place in the target, each with why.
    :raises OSError: it cannot be.
    """
    homeless = []
    for found in find_excluded(origin, patterns):
        if found.path in but:
            continue
        try:
            with _same_place(target, found, origin) as folder:
                if not _has(folder, found.entry.name):
                    os.rename(found.entry.name, found.entry.name, src_dir_fd=found.folder, dst_dir_fd=folder)
        except FileNotFoundError:
            # What went away meanwhile, perhaps with the folder that it is in, is not missed.
            pass
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise
            homeless.append(f"{found.path} ({error.strerror})")
    return homeless


@contextlib.contextmanager
def _same_place(target: Path, found: Found, origin: Path) -> Iterator[int]:
    """Open the folder of the same path in the target; what is missing on the way is made as the origin has it."""
    with contextlib.ExitStack() as stack:
        theirs, ours = _opened(stack, origin), _opened(stack, target)
        for name in PurePath(found.path).parent.parts:
            theirs = _opened(stack, name, theirs)
            if not _has(ours, name):
                nofollow.make_folder(name, theirs, ours)
            ours = _opened(stack, name, ours)
        yield ours


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
