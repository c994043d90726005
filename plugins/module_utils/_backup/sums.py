# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""SHA-256 sums of many files, while others are read and written: hashlib lets go of Python's lock for large pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from queue import SimpleQueue

_LARGE = 64 << 10  # bytes; to hand fewer over takes longer than to digest them
_AHEAD = 4  # pieces that may wait, so that memory stays flat


class Sums:
    """Digests large pieces in a thread of its own, in the order in which they come."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def new(self) -> Sum:
        """Begin a sum."""
        return Sum(self)

    def close(self) -> None:
        """End the thread, after all that it was given."""
        self._jobs.put(None)
        self._thread.join()

    def _put(self, job: Callable[[], object], *, wait: bool = True) -> bool:
        """Hand something over; False where that would have to wait and must not."""
        taken = self._room.acquire(blocking=wait)
        if taken:
            self._jobs.put(job)
        return taken

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while job := self._jobs.get():
            self._do(job)
            self._room.release()

    def _do(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that asks for a sum)
            self._error = error


class Sum:
    """Of one file. Feed it, end it, and ask for it when others have been begun."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self._digest = sha256()
        self._done: threading.Event | None = None

    def update(self, data: bytes) -> None:
        """Take a piece; a large one is handed over, unless others are waiting already."""
        job = partial(self._digest.update, data)
        if self._done is not None:
            # After what was handed over, because the order counts.
            self._sums._put(job)
        elif len(data) >= _LARGE and self._sums._put(job, wait=False):
            self._done = threading.Event()
        else:
            job()

    def end(self) -> None:
        """Say that there was the last piece."""
        if self._done is not None:
            self._sums._put(self._done.set)

    def hexdigest(self) -> str:
        """Return the sum, in hexadecimal, as soon as all is digested; only after `end`."""
        if self._done is not None:
            self._done.wait()
            self._sums._check()
        return self._digest.hexdigest()
