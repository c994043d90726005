# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What is excluded from backups of a folder, on its way from the one that goes to the one that comes."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePath

from . import gather
from .extract import OPEN_FOLDER
from .gather import Found


def excluded(folder: Path, patterns: Sequence[str]) -> Iterator[Found]:
    """Give what the patterns mean below a folder, and what is below that.

    :raises OSError: the folder cannot be read.
    """
    found = gather.walk(folder, (), gather.ignore) if folder.exists() else iter(())
    return (one for one in found if gather.matches(one.path, one.entry.name, patterns))


def carry(origin: Path, target: Path, patterns: Sequence[str], but: Collection[str] = ()) -> None:
    """Move what is excluded from one folder to the other, where that has nothing of the name.

    Others may write to both, and exchange folders for links meanwhile; nothing gets anywhere else by that.

    :param but: paths that stay.
    :raises OSError: it cannot be.
    """
    for found in excluded(origin, patterns):
        if found.path in but:
            continue
        # What went away meanwhile, perhaps with the folder that it is in, is not missed.
        with contextlib.suppress(FileNotFoundError), _same_place(target, found, origin) as folder:
            if not _has(folder, found.entry.name):
                os.rename(found.entry.name, found.entry.name, src_dir_fd=found.folder, dst_dir_fd=folder)


@contextlib.contextmanager
def _same_place(target: Path, found: Found, origin: Path) -> Iterator[int]:
    """Open the folder of the same path in the target; what is missing on the way is made as the origin has it."""
    with contextlib.ExitStack() as stack:
        theirs, ours = _opened(stack, origin), _opened(stack, target)
        for name in PurePath(found.path).parent.parts:
            theirs = _opened(stack, name, theirs)
            if not _has(ours, name):
                os.mkdir(name, 0o700, dir_fd=ours)
                ours = _opened(stack, name, ours)
                status = os.fstat(theirs)
                os.fchown(ours, status.st_uid, status.st_gid)
                os.fchmod(ours, stat.S_IMODE(status.st_mode))
            else:
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
