# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Locks of the kernel (flock): a lock is released when its process ends, however that happens."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from . import durable
from .errors import HostError

_POLL = 0.2  # seconds


class LockedError(HostError):
    """Another process holds the lock.

    :param holder: process ID of the holder, as text; empty where it is unknown.
    """

    def __init__(self, file: Path, holder: str) -> None:
        super().__init__(f"{file} is locked by process {holder or 'unknown'}")
        self.holder = holder


@contextlib.contextmanager
def hold(file: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock; the file and its folder are created if they are missing.

    :param wait: seconds to wait for another holder.
    :raises LockedError: another process still holds it then.
    """
    durable.make(file.parent)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while not _try(descriptor):
            if time.monotonic() >= deadline:
                raise LockedError(file, os.pread(descriptor, 64, 0).decode("ascii", "replace").strip())
            time.sleep(_POLL)
        # The process ID is only for messages. Go on without it: a full disk has to be pruned, which needs the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
