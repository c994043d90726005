# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Locks of the kernel's: they fall with the process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..._host import durable
from ..errors import BusyError

_POLL = 0.2  # seconds


@contextlib.contextmanager
def held(file: Path, wait: float, who: str) -> Iterator[None]:
    """Keep all others out.

    :param wait: seconds to wait for another one.
    :param who: may be the other one, for the message.
    :raises BusyError: it has not ended by then.
    """
    durable.make(file.parent)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while not _try(descriptor):
            if time.monotonic() >= deadline:
                process = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
                raise BusyError(f"another {who} is at work (process {process or 'unknown'})")
            time.sleep(_POLL)
        # Only to be told to others: a disk that is full has to be pruned all the same.
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
