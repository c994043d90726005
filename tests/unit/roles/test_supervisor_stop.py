# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of roles/supervisor/files/stop.py with real processes: it stops the right ones, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STOP = Path(__file__).resolve().parents[3] / "roles" / "supervisor" / "files" / "stop.py"
SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start() -> Iterator[Start]:
    running = []

    def run(*command: str) -> subprocess.Popen:
        """Start Python under the given command line, and wait until it is ready."""
        # A relocated Python finds its library by its command line, which is a false one here.
        env = {**os.environ, "PYTHONHOME": sys.base_prefix}
        process = subprocess.Popen(list(map(str, command)), executable=sys.executable, stdout=subprocess.PIPE, env=env)
        running.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def place(tmp_path) -> dict[str, Path]:
    supervisord = tmp_path / "bin" / "supervisord"
    supervisord.parent.mkdir()
    supervisord.write_text(SLEEP)
    return {
        "config": tmp_path / "etc" / "supervisord.conf",
        "program": tmp_path / "release" / "bin" / "python",
        "supervisord": supervisord,
    }


def stop(place, seconds=20) -> str:
    command = [sys.executable, STOP, "--config", place["config"], "--program", place["program"]]
    done = subprocess.run([*command, "--seconds", str(seconds)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


def test_it_reports_that_nothing_runs(place):
    assert stop(place) == "Nothing runs.\n"


def test_a_program_that_outlived_supervisord_is_stopped(place, start):
    orphan = start(place["program"], "-c", SLEEP)
    assert stop(place) == f"Stopped the program (pid {orphan.pid}).\n"
    assert orphan.wait(10) == -signal.SIGTERM


def test_supervisord_is_stopped_before_the_program(place, start):
    daemon = start("python3", place["supervisord"], "-c", place["config"])
    orphan = start(place["program"], "-c", SLEEP)
    said = stop(place).splitlines()
    assert said == [f"Stopped supervisord (pid {daemon.pid}).", f"Stopped the program (pid {orphan.pid})."]


def test_a_process_that_ignores_sigterm_is_killed(place, start):
    deaf = start(place["program"], "-c", DEAF)
    began = time.monotonic()
    stop(place, seconds=1)
    assert deaf.wait(10) == -signal.SIGKILL
    assert time.monotonic() - began >= 1


def test_other_processes_are_not_stopped(place, start):
    others = [
        start("vim", "-c", SLEEP, place["config"]),  # an editor with the configuration open
        start("supervisorctl", "-c", SLEEP, place["config"]),
        start("python3", place["supervisord"], "-c", "/another/supervisord.conf"),
        start(f"{place['program']}3", "-c", SLEEP),  # another path with the same beginning
        start("grep", "-c", SLEEP, place["program"]),
    ]
    assert stop(place) == "Nothing runs.\n"
    assert [other.poll() for other in others] == [None] * len(others)


def test_a_zombie_is_not_waited_for(place, start):
    # In a container whose init does not reap, zombies stay.
    zombie = start(place["program"], "-c", SLEEP)
    zombie.kill()
    deadline = time.monotonic() + 10
    while "Z" not in Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert stop(place) == "Nothing runs.\n"
