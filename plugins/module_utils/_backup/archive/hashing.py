# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""SHA-256 sums of many files, while others are read and written: hashlib lets go of Python's lock for large pieces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from hashlib import sha256
from queue import SimpleQueue

_LARGE = 64 << 10  # bytes; fewer are gathered, and handed over together
_HANDING_OVER = 12e-6  # seconds that it takes to hand a piece over, and to get Python's lock back from who digests it
_AHEAD = 8  # times that something may wait, a megabyte at most, so that memory stays flat

_Job = Callable[[], object]


class HashThread:
    """Digests in a thread of its own, in the order in which it comes from one other thread."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Sequence[_Job]] = SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._gathered: list[_Job] = []
        self._size = 0
        self._handed = self._done = 0
        self._turn = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def new(self) -> Hash:
        """Begin a sum."""
        return Hash(self)

    def close(self) -> None:
        """End the thread, after all that it was given."""
        self._flush(wait=True)
        self._jobs.put(())
        self._thread.join()

    def _put(self, job: _Job, size: int, *, wait: bool) -> int:
        """Hand something over; returns its place in the order, 0 where that would have to wait and must not."""
        self._gathered.append(job)
        self._size += size
        if self._size >= _LARGE and not self._flush(wait=wait):
            self._gathered.pop()
            self._size -= size
            return 0
        return self._handed + bool(self._gathered)

    def _flush(self, *, wait: bool) -> bool:
        """Hand over what was gathered; False where that would have to wait and must not."""
        if not self._gathered:
            return True
        taken = self._room.acquire(blocking=wait)
        if taken:
            self._jobs.put(self._gathered)
            self._handed += 1
            self._gathered, self._size = [], 0
        return taken

    def _wait(self, place: int) -> None:
        """Wait for all up to that place."""
        if place > self._handed:
            self._flush(wait=True)
        with self._turn:
            self._turn.wait_for(lambda: self._done >= place)
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while jobs := self._jobs.get():
            for job in jobs:
                self._do(job)
            with self._turn:
                self._done += 1
                self._turn.notify_all()
            self._room.release()

    def _do(self, job: _Job) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that asks for a sum)
            self._error = error


@cache
def _at_once() -> int:
    """Measure how many bytes are digested in the time that handing them over takes; many, with SHA instructions."""
    data, seconds = bytes(_LARGE), []
    for _ in range(3):
        began = time.perf_counter()
        sha256(data)
        seconds.append(time.perf_counter() - began)
    return min(int(_LARGE * _HANDING_OVER / min(seconds)), _LARGE // 2)


class Hash:
    """Of one file. Feed it, and ask for it when others have been begun."""

    def __init__(self, sums: HashThread) -> None:
        self._sums = sums
        self._digest = sha256()
        self._place = 0

    def update(self, data: bytes) -> None:
        """Take a piece; it is handed over, unless it is small or too many wait already."""
        job = partial(self._digest.update, data)
        # After what was handed over, because the order counts.
        after = self._place > 0
        small = not after and len(data) <= _at_once()
        place = 0 if small else self._sums._put(job, len(data), wait=after)
        if place:
            self._place = place
        else:
            job()

    def hexdigest(self) -> str:
        """Return the sum, in hexadecimal, as soon as all is digested."""
        if self._place:
            self._sums._wait(self._place)
        return self._digest.hexdigest()
