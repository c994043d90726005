# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The installed program, killed at system calls, including those that Python code cannot observe."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys

import pytest
from faulty_host import Host

RENAME, UNLINK, MKDIR = "rename,renameat,renameat2", "unlink,unlinkat", "mkdir,mkdirat"
CALLS = {
    "create": ["write", "pwrite64", "fsync", RENAME, UNLINK],
    "prune": ["fsync", UNLINK],
    "key-rotate": [RENAME],
    "restore": [MKDIR],
}
#: How many calls lie between two at which it is killed; THOROUGH=1 takes them all.
STEP = 1 if os.environ.get("THOROUGH") else 5
STRACE = ["strace", "-f", "-qq", "-o", "/dev/null"]


def can_trace():
    if not shutil.which("strace"):
        return False
    return not subprocess.run([*STRACE, "-e", "trace=none", "true"], capture_output=True, check=False).returncode


pytestmark = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")


@pytest.fixture
def host(memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    for _ in range(3):
        host.panelctl("create")
    host.keep()
    return host


@pytest.mark.parametrize(("command", "calls"), [(command, calls) for command in CALLS for calls in CALLS[command]])
def test_killed_at_any_system_call(command, calls, host, install):
    program, before = install("_backup", host.settings), host.names()
    arguments = [command, "--to", host.to] if command == "restore" else [command]
    for number in itertools.count(1, STEP):
        host.reset()
        inject = f"inject={calls}:signal=KILL:when={number}"
        traced = [*STRACE, "-e", f"trace={calls}", "-e", inject, sys.executable, "-I", "-B", program, *arguments]
        done = subprocess.run(traced, capture_output=True, text=True, check=False)
        if command == "key-rotate":
            host.panelctl("key-rotate")
        if host.to.exists():
            assert (host.to / "files/data/folder/file").read_text() == "content\n"
            shutil.rmtree(host.to)
        elif command == "restore":
            host.panelctl("restore", "--to", str(host.to))
            shutil.rmtree(host.to)
        host.assert_sound(before, may_go=1 if command == "prune" else 0)
        if done.returncode == 0:
            break
        assert done.returncode in (-9, 137), done.stderr
    assert number > 1
