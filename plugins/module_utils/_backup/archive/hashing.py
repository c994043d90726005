# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""SHA-256 of many files, computed in a thread beside the reads and writes: hashlib releases the GIL for large data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from hashlib import sha256
from queue import SimpleQueue

_BATCH = 64 << 10  # bytes; smaller pieces are collected, and passed to the thread together
_HANDOVER = 12e-6  # seconds to pass a batch to the thread, and to get the GIL back from it
_QUEUED_MAX = 8  # batches, of a megabyte at most, so that the use of memory is bounded

_Job = Callable[[], object]


class HashThread:
    """A thread that hashes data in the order in which one other thread submits it."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Sequence[_Job]] = SimpleQueue()
        self._slots = threading.Semaphore(_QUEUED_MAX)
        self._batch: list[_Job] = []
        self._size = 0
        self._submitted = self._done = 0
        self._progress = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def new(self) -> Hash:
        """Return a new hash that uses this thread."""
        return Hash(self)

    def close(self) -> None:
        """End the thread when it has done all work."""
        self._flush(wait=True)
        self._queue.put(())
        self._thread.join()

    def _put(self, job: _Job, size: int, *, wait: bool) -> int:
        """Submit a job; return the number of its batch, or 0 if the queue is full and `wait` is false."""
        self._batch.append(job)
        self._size += size
        if self._size >= _BATCH and not self._flush(wait=wait):
            self._batch.pop()
            self._size -= size
            return 0
        return self._submitted + bool(self._batch)

    def _flush(self, *, wait: bool) -> bool:
        """Submit the current batch; return False if that would have to wait and must not."""
        if not self._batch:
            return True
        free = self._slots.acquire(blocking=wait)
        if free:
            self._queue.put(self._batch)
            self._submitted += 1
            self._batch, self._size = [], 0
        return free

    def _wait(self, batch: int) -> None:
        """Wait until all batches up to this number are done."""
        if batch > self._submitted:
            self._flush(wait=True)
        with self._progress:
            self._progress.wait_for(lambda: self._done >= batch)
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while jobs := self._queue.get():
            for job in jobs:
                self._do(job)
            with self._progress:
                self._done += 1
                self._progress.notify_all()
            self._slots.release()

    def _do(self, job: _Job) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that asks for a digest)
            self._error = error


@cache
def _direct_max() -> int:
    """Measure how many bytes are hashed in the time that passing them to a thread takes."""
    data, seconds = bytes(_BATCH), []
    for _round in range(3):
        began = time.perf_counter()
        sha256(data)
        seconds.append(time.perf_counter() - began)
    return min(int(_BATCH * _HANDOVER / min(seconds)), _BATCH // 2)


class Hash:
    """SHA-256 of one file. Ask for the digest after the next files have begun, so that it need not be waited for."""

    def __init__(self, thread: HashThread) -> None:
        self._thread = thread
        self._digest = sha256()
        self._batch = 0

    def update(self, data: bytes) -> None:
        """Add data: in the thread, unless it is small or the queue is full."""
        job = partial(self._digest.update, data)
        # Once data is in the queue, all later data has to follow it there: the order counts.
        queued = self._batch > 0
        direct = not queued and len(data) <= _direct_max()
        batch = 0 if direct else self._thread._put(job, len(data), wait=queued)
        if batch:
            self._batch = batch
        else:
            job()

    def hexdigest(self) -> str:
        """Wait until all data is hashed; return the digest in hexadecimal."""
        if self._batch:
            self._thread._wait(self._batch)
        return self._digest.hexdigest()
