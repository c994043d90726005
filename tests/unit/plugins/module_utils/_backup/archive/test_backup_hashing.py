# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import hashlib
import threading

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import hashing
from hypothesis import given
from hypothesis import strategies as st

pieces = st.lists(st.sampled_from([b"", b"a", b"b" * (64 << 10), b"c" * (200 << 10)]), max_size=12)


@given(st.lists(pieces, min_size=1, max_size=6))
def test_digests_of_many_files_at_once(files):
    with contextlib.closing(hashing.HashThread()) as running:
        begun = [running.new() for _ in files]
        for place in range(max(map(len, files))):
            for sum_, content in zip(begun, files, strict=True):
                for piece in content[place : place + 1]:
                    sum_.update(piece)
        assert [sum_.hexdigest() for sum_ in begun] == [hashlib.sha256(b"".join(c)).hexdigest() for c in files]


class Stuck:
    """A digest that blocks until it is released, or fails."""

    def __init__(self, error=None):
        self.may = threading.Event()
        self.taken = 0
        self._error = error

    def update(self, data):
        if self._error:
            raise self._error
        self.may.wait(10)
        self.taken += len(data)

    def hexdigest(self):
        return str(self.taken)


@pytest.fixture
def running():
    with contextlib.closing(hashing.HashThread()) as found:
        yield found


def begun(running, monkeypatch, digest):
    monkeypatch.setattr(hashing, "sha256", lambda: digest)
    found = running.new()
    monkeypatch.undo()
    return found


def test_a_full_queue_makes_the_caller_hash_directly(running, monkeypatch):
    stuck = Stuck()
    slow, large = begun(running, monkeypatch, stuck), b"x" * (64 << 10)
    for _ in range(hashing._QUEUED_MAX):
        slow.update(large)
    # More data would have to be kept in memory.
    fast = running.new()
    fast.update(large)
    assert fast.hexdigest() == hashlib.sha256(large).hexdigest()
    stuck.may.set()
    assert slow.hexdigest() == str(hashing._QUEUED_MAX * len(large))


def test_an_error_is_raised_where_the_digest_is_read(running, monkeypatch):
    broken = begun(running, monkeypatch, Stuck(MemoryError("none left")))
    broken.update(b"x" * (64 << 10))
    with pytest.raises(MemoryError, match="none left"):
        broken.hexdigest()
