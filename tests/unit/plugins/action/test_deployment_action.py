# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.aapanel.pipeline.plugins.action.deployment import controller, is_dead


def test_a_controller_differs_from_all_other_processes():
    here = controller(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        there = controller(other.pid)
        assert there != here
        assert not is_dead(there, here)
        other.communicate(b"\n")
    assert is_dead(there, here)
    assert not is_dead(here, here)


def test_a_zombie_is_dead():
    here = controller(os.getpid())
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    there = controller(other.pid)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(there, here)
    other.communicate()


def test_a_reused_pid_is_another_process():
    here = controller(os.getpid())
    assert is_dead({**here, "started": here["started"] - 1}, here)


def test_a_process_of_another_machine_never_counts_as_dead():
    here = controller(os.getpid())
    gone = {**here, "pid": 2**22 + 1}
    assert is_dead(gone, here)
    assert not is_dead({**gone, "host": "elsewhere"}, here)
    assert not is_dead({**gone, "boot_id": "another boot, or another container"}, here)
    assert not is_dead({}, here)
