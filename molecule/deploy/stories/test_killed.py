# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever dies at work, host or controller, leaves a host that comes to rest by itself, on a healthy colour."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.hosts import docker, wait_until

from driver import (
    SECONDS,
    SLACK,
    Hold,
    Host,
    Play,
    deploy,
    everywhere,
    play,
    setting,
    settled,
    sound,
)

# By the state in which the deploy is held: the hook that holds it there, and what the journal says afterwards.
STATES = {
    "locked": ("before_backup", "abandoned"),
    "building": ("before_build", "abandoned"),
    "prepared": ("before_migrate", "abandoned"),
    "migrated": ("before_start", "abandoned"),
    "healthy": ("before_switch", "abandoned"),
    "switching": ("", "reverted"),
    "verified": ("before_confirm", "reverted"),
}
ALWAYS = "switching"
# Each state on each Debian in both ways takes twice as long: THOROUGH=1 does it.
CASES = [
    pytest.param(state, rebooted, marks=[pytest.mark.always] if state == ALWAYS else [])
    for number, state in enumerate(STATES)
    for rebooted in (0, 1)
    if rebooted == number % 2 or os.environ.get("THOROUGH")
]


@pytest.fixture
def before(hosts: list[Host]) -> dict[Host, dict[str, Any]]:
    """What served before."""
    return everywhere(hosts, Host.status)


def killed_at(state: str, hosts: list[Host], folder: Path) -> None:
    """Kill the controller of a deploy, with all processes that it has, when all hosts are in that state."""
    hook, _ = STATES[state]
    value = {"app_lease_seconds": SECONDS["lease"], **setting(folder.name)}
    if hook:
        hold = Hold(folder / "hold", hook, **value)
        hold.reached(hosts)
        assert [host.operation()["state"] for host in hosts] == [state] * len(hosts)
        hold.play.kill()
        return
    running = Play("deploy", **value)

    def kill_there(host: Host) -> None:
        # What it started on the hosts dies with it, or it would go on to `verified`. Each host is asked alone: one may
        # leave the state before the other comes to it.
        def comes_to_it() -> bool:
            assert not running.ended(), running.output[-4000:]
            return bool(host.operation().get("state") == state)

        wait_until(comes_to_it, 300.0, f"{host.name} is {state}")
        host.run("kill", "-9", str(host.operation()["pid"]))

    try:
        everywhere(hosts, kill_there)
    finally:
        running.kill()


def reboot(host: Host) -> None:
    """Restart it, and wait until it serves."""
    docker("restart", host.name)

    def booted() -> bool:
        return host.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip() == "running"

    wait_until(booted, 60.0, f"{host.name} boots")
    # It is known at once that nobody of before can be at work: no lease is waited for.
    wait_until(lambda: not host.operation() and host.status()["healthy"], 30.0, f"{host.name} serves")


def at_rest(host: Host, state: str, before: dict[str, Any]) -> None:
    """What served before serves again, or still, and the journal says how it ended."""
    patience = (SECONDS["confirm"] if state == "verified" else SECONDS["lease"]) + SECONDS["settle"] + SLACK
    last = settled(host, STATES[state][1], within=patience)
    now = host.status()
    assert (now["live"], now["release"]) == (before["live"], before["release"])
    assert last["source"] == {"slot": before["live"], "release": before["release"]}
    assert last["reason"]


@pytest.mark.parametrize(("state", "rebooted"), CASES)
def test_the_controller_dies_and_a_host_too(
    state: str, rebooted: int, hosts: list[Host], before: dict[Host, dict[str, Any]], tmp_path: Path
) -> None:
    """Killed with -9, and nobody comes to help. One host is rebooted at once, the other has to find out by itself."""
    pids = {host: host.main_pid(before[host]["live"]) for host in hosts}
    killed_at(state, hosts, tmp_path)

    def over(host: Host) -> None:
        if host is hosts[rebooted]:
            reboot(host)
        at_rest(host, state, before[host])
        if host is not hosts[rebooted]:
            assert host.main_pid(before[host]["live"]) == pids[host]
        sound(host)

    everywhere(hosts, over)


@pytest.fixture
def held(hosts: list[Host], tmp_path: Path) -> Iterator[Hold]:
    """A deploy that is at work, with a lease of five minutes."""
    hold = Hold(tmp_path / "hold", "before_build", **setting("held"))
    hold.reached(hosts)
    yield hold
    hold.play.kill()


def test_a_live_owner_is_left_alone(hosts: list[Host], held: Hold) -> None:
    """Whoever comes second is told who is at work, and touches nothing."""
    operations = everywhere(hosts, Host.operation)
    second = play("deploy", **setting("second"))
    assert not second.ok
    for host in hosts:
        assert operations[host]["owner"]["name"] in second.output
        assert "is alive, so nothing was touched" in second.output
        assert host.operation() == operations[host]
        assert "is alive" in host.panelctl("switch", "inactive", "--wait", "0", status=5)
        assert "is alive" in host.panelctl("rollback", "--wait", "0", "--force", status=5)
    held.release()
    assert held.play.finish().ok, held.play.output[-4000:]
    for host in hosts:
        settled(host, "confirmed")
        sound(host)


def test_a_dead_owner_is_not_waited_for(hosts: list[Host], held: Hold) -> None:
    """The next run of the same machine sees that the one before is dead, whatever its lease says."""
    held.play.kill()
    generations = {host: host.operation()["generation"] for host in hosts}
    next_one = deploy(**setting("next"))
    assert next_one.seconds < 60
    for host in hosts:
        abandoned = next(record for record in host.history() if record["generation"] == generations[host])
        assert abandoned["result"] == "abandoned"
        assert settled(host, "confirmed")["generation"] == generations[host] + 1
        sound(host)
