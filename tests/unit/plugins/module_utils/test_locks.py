# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import threading
import time

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._host import locks


def test_a_held_lock_names_its_holder(tmp_path):
    file = tmp_path / "state" / "lock"
    with (
        locks.hold(file),
        pytest.raises(locks.LockedError, match=f"is locked by process {os.getpid()}$"),
        locks.hold(file),
    ):
        pass
    with locks.hold(file):
        pass


def test_a_waiter_gets_the_lock_when_it_is_released(tmp_path):
    file, held = tmp_path / "lock", threading.Event()

    def hold():
        with locks.hold(file):
            held.set()
            time.sleep(0.1)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with locks.hold(file, wait=10):
        pass
    other.join()


def test_an_unknown_holder_is_reported(tmp_path):
    file = tmp_path / "lock"
    with locks.hold(file):
        file.write_text("")
        with pytest.raises(locks.LockedError, match="process unknown"), locks.hold(file):
            pass
