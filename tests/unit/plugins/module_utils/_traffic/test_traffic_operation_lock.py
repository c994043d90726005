# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import BusyError, LostError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.machine import Host, start_time
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.operation_lock import (
    Operation,
    OperationLock,
    Owner,
    SlotRelease,
)
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.settings import Settings
from fake_host import CONTROLLER, World, make_world

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def world() -> Iterator[World]:
    made = make_world()
    yield made
    made.close()


def lock_of(world: World) -> OperationLock:
    """Return the lock as a new process sees it."""
    return OperationLock(world.root, world.spawn())


def real(folder: Path) -> OperationLock:
    """Return a lock on the machine that runs the tests."""
    return OperationLock(folder, Host(Settings(folder, folder, folder, folder)))


def test_an_operation_is_read_as_it_was_written(world: World) -> None:
    lock = lock_of(world)
    assert lock.current() is None
    begun = lock.begin("deploy", Owner("ann", {"host": "laptop", "pid": 7}), 3, 60.0)
    changed = lock.update(
        begun, source=SlotRelease("blue", "1"), target=SlotRelease("green", "2"), durations={"locked": 0.1}
    )
    assert lock.current() == changed
    assert changed.generation == 3
    assert "deploy 3 of 2 by ann" in str(changed)
    lock.end(changed)
    assert lock.current() is None


def test_a_second_operation_is_refused_and_releases_nothing(world: World) -> None:
    first, second = lock_of(world), lock_of(world)
    begun = first.begin("deploy", CONTROLLER, 1, 60.0)
    with pytest.raises(BusyError, match="ann@laptop"):
        second.begin("switch", Owner("bob"), 1, 0.0)
    assert first.current() == begun
    forged = dataclasses.replace(begun, token="00")
    for attempt in (lambda: second.end(forged), lambda: second.update(forged, state="x")):
        with pytest.raises(LostError):
            attempt()
    assert first.current() == begun
    first.end(begun)


def test_a_process_that_lost_its_operation_fails_at_its_next_step(world: World) -> None:
    first, second = lock_of(world), lock_of(world)
    begun = first.begin("deploy", CONTROLLER, 1, 60.0)
    taken = second.take_over(begun)
    assert taken.token != begun.token
    entered = []
    for attempt in (lambda: first.end(begun), lambda: first.update(begun, state="x"), lambda: first.take_over(begun)):
        with pytest.raises(LostError, match="was settled"):
            attempt()
    with pytest.raises(LostError), first.holding(begun):
        entered.append(1)
    assert not entered
    assert second.current() == taken


def test_the_last_process_with_a_token_holds_the_operation(world: World) -> None:
    first, second = lock_of(world), lock_of(world)
    begun = first.begin("deploy", CONTROLLER, 1, 60.0)
    pid, started = second._machine.process()
    later = second.update(begun, pid=pid, pid_started=started)
    with pytest.raises(LostError):
        first.update(begun, state="switching")
    assert second.update(later, state="built").state == "built"


def test_a_process_of_this_boot_is_alive_until_it_ends(world: World) -> None:
    lock = lock_of(world)
    begun = lock.begin("switch", CONTROLLER, 1, 0.0)
    assert lock.is_alive(begun)
    started = world.pids.pop(begun.pid)
    assert not lock.is_alive(begun), "it ended"
    world.pids[begun.pid] = started + 1
    assert not lock.is_alive(begun), "another one has its pid"
    world.pids[begun.pid] = started
    world.boots += 1
    assert not lock.is_alive(begun), "it is of another boot"


def test_a_lease_outlives_its_process_and_ends_with_the_boot(world: World) -> None:
    lock = lock_of(world)
    begun = lock.begin("deploy", CONTROLLER, 1, 60.0)
    world.pids.clear()
    world.clock += 59.0
    assert lock.is_alive(begun)
    world.clock += 1.0
    assert not lock.is_alive(begun)
    world.clock -= 60.0
    world.boots += 1
    assert not lock.is_alive(begun)


def test_a_build_keeps_its_deploy_alive_and_no_other_state(world: World) -> None:
    lock = lock_of(world)
    begun = lock.begin("deploy", CONTROLLER, 1, 0.0)
    world.pids.clear()
    world.building = True
    assert not lock.is_alive(begun)
    assert lock.is_alive(dataclasses.replace(begun, state="building"))


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_the_wall_clock_has_no_effect(tmp_path: Path, jump: float) -> None:
    lock = real(tmp_path)
    begun = lock.begin("deploy", CONTROLLER, 1, 60.0)
    gone = lock.update(begun, pid=0, pid_started=1)
    with mock.patch("time.time", return_value=jump), mock.patch("time.time_ns", return_value=int(jump * 1e9)):
        assert lock.is_alive(gone)
        assert not lock.is_alive(dataclasses.replace(gone, lease_until=lock._machine.now() - 0.1))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"x"', "{}", '{"owner": 1}', "\x00\x00\x00", "\udcff"])
def test_an_invalid_file_does_not_block_operations(world: World, text: str) -> None:
    (world.root / "operation.json").write_text(text, errors="surrogateescape")
    lock = lock_of(world)
    assert lock.current() is None
    begun = lock.begin("deploy", CONTROLLER, 1, 60.0)
    assert lock.current() == begun


def test_an_incomplete_file_does_not_block_operations(world: World) -> None:
    lock = lock_of(world)
    lock.begin("deploy", CONTROLLER, 1, 60.0)
    file = world.root / "operation.json"
    whole = file.read_text()
    for length in range(0, len(whole) - 2, 7):
        file.write_text(whole[:length])
        assert lock.current() is None


def test_the_files_are_private(tmp_path: Path) -> None:
    real(tmp_path).begin("deploy", CONTROLLER, 1, 60.0)
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
        "operation.json": 0o600,
        ".lock": 0o600,
    }


# --- real processes ---------------------------------------------------------------------------------------------------


def _contend(folder: Path, rounds: int) -> None:
    lock = real(folder)
    counter = folder / "counter"
    for _ in range(rounds):
        operation = None
        while operation is None:
            with contextlib.suppress(BusyError):
                operation = lock.begin("switch", Owner(str(os.getpid())), 1, 0.0)
        value = int(counter.read_text())
        time.sleep(0.0005)
        counter.write_text(str(value + 1))
        lock.end(operation)


def test_real_processes_hold_the_lock_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    processes = [FORK.Process(target=_contend, args=(tmp_path, 25)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert (tmp_path / "counter").read_text() == "50"
    assert real(tmp_path).current() is None


def _hold(folder: Path, says: object) -> None:
    lock = real(folder)
    operation = lock.begin("switch", Owner("holder"), 1, 0.0)
    with lock.holding(operation):
        says.send(operation.pid)  # type: ignore[attr-defined]
        signal.pause()


def test_a_killed_process_releases_the_kernel_lock_and_counts_as_dead(tmp_path: Path) -> None:
    here, there = FORK.Pipe()
    holder = FORK.Process(target=_hold, args=(tmp_path, there))
    holder.start()
    assert here.recv() == holder.pid
    lock = real(tmp_path)
    present = lock.current()
    assert present is not None
    assert lock.is_alive(present)
    with (tmp_path / ".lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(present.pid, signal.SIGKILL)
    holder.join(10)
    assert not lock.is_alive(present)
    lock.end(lock.take_over(present))


def test_child_processes_do_not_inherit_the_kernel_lock(tmp_path: Path) -> None:
    lock = real(tmp_path)
    with lock.exclusive():
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with (tmp_path / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        child.kill()
        child.wait()


def test_the_start_time_distinguishes_live_dead_and_later_processes() -> None:
    mine = start_time(os.getpid())
    assert mine is not None
    child = subprocess.Popen(["sleep", "60"])
    later = start_time(child.pid)
    assert later is not None
    assert later >= mine
    child.kill()
    deadline = time.monotonic() + 10
    while start_time(child.pid) is not None:  # a zombie until its parent waits for it
        assert time.monotonic() < deadline
    child.wait()
    assert start_time(child.pid) is None


def test_an_operation_of_another_version_is_ignored(world: World) -> None:
    lock = lock_of(world)
    begun = lock.begin("deploy", CONTROLLER, 1, 60.0)
    file = world.root / "operation.json"
    file.write_text(file.read_text().replace('"reason"', '"because"'))
    assert lock.current() is None
    assert isinstance(begun, Operation)
