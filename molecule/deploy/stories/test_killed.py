# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A killed controller or a rebooted host: the operation is settled automatically, and a healthy slot serves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.hosts import docker, wait_until
from kit.playbooks import Playbook, run_playbook

from driver import (
    SECONDS,
    SLACK,
    HeldDeploy,
    PanelHost,
    assert_finished,
    assert_no_failed_unit,
    changed_setting,
    deploy,
    on_all,
)

# State in which the deploy is held: the hook that holds it there, and the result in the history.
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
# Each state with each host rebooted takes twice as long, so it needs THOROUGH=1.
CASES = [
    pytest.param(state, rebooted, marks=[pytest.mark.always] if state == ALWAYS else [])
    for number, state in enumerate(STATES)
    for rebooted in (0, 1)
    if rebooted == number % 2 or os.environ.get("THOROUGH")
]


@pytest.fixture
def before(hosts: list[PanelHost]) -> dict[PanelHost, dict[str, Any]]:
    """Return the status of each host before the story."""
    return on_all(hosts, PanelHost.status)


def kill_controller(state: str, hosts: list[PanelHost], folder: Path) -> None:
    """Kill the controller of a deploy with all its processes when all hosts have reached a state."""
    hook, _ = STATES[state]
    value = {"app_lease_seconds": SECONDS["lease"], **changed_setting(folder.name)}
    if hook:
        hold = HeldDeploy(folder / "hold", hook, **value)
        hold.wait_until_held(hosts)
        assert [host.operation()["state"] for host in hosts] == [state] * len(hosts)
        hold.playbook.kill()
        return
    running = Playbook("deploy", **value)

    def kill_on_host(host: PanelHost) -> None:
        # Its process on the host is killed too, or it would go on to `verified`. Each host is checked separately,
        # because one may leave the state before the other reaches it.
        def reached() -> bool:
            assert not running.ended(), running.output[-4000:]
            return bool(host.operation().get("state") == state)

        wait_until(reached, 300.0, f"{host.name} is {state}")
        host.run("kill", "-9", str(host.operation()["pid"]))

    try:
        on_all(hosts, kill_on_host)
    finally:
        running.kill()


def reboot(host: PanelHost) -> None:
    """Restart a host, and wait until it serves."""
    docker("restart", host.name)

    def booted() -> bool:
        return host.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip() == "running"

    wait_until(booted, 60.0, f"{host.name} boots")
    # After a boot no earlier operation can be alive, so the host does not wait for the lease.
    wait_until(lambda: not host.operation() and host.status()["healthy"], 30.0, f"{host.name} serves")


def assert_undone(host: PanelHost, state: str, before: dict[str, Any]) -> None:
    """Check that the same slot and release serve as before, and that the history has the result."""
    timeout = (SECONDS["confirm"] if state == "verified" else SECONDS["lease"]) + SECONDS["settle"] + SLACK
    last = assert_finished(host, STATES[state][1], within=timeout)
    now = host.status()
    assert (now["live"], now["release"]) == (before["live"], before["release"])
    assert last["source"] == {"slot": before["live"], "release": before["release"]}
    assert last["reason"]


@pytest.mark.parametrize(("state", "rebooted"), CASES)
def test_a_deploy_is_undone_after_its_controller_is_killed(
    state: str, rebooted: int, hosts: list[PanelHost], before: dict[PanelHost, dict[str, Any]], tmp_path: Path
) -> None:
    """The controller gets SIGKILL. One host is rebooted at once, the other one waits for the lease to end."""
    pids = {host: host.main_pid(before[host]["live"]) for host in hosts}
    kill_controller(state, hosts, tmp_path)

    def undone(host: PanelHost) -> None:
        if host is hosts[rebooted]:
            reboot(host)
        assert_undone(host, state, before[host])
        if host is not hosts[rebooted]:
            assert host.main_pid(before[host]["live"]) == pids[host]
        assert_no_failed_unit(host)

    on_all(hosts, undone)


@pytest.fixture
def held(hosts: list[PanelHost], tmp_path: Path) -> Iterator[HeldDeploy]:
    """Start a deploy with a lease of five minutes, hold it before its build, and kill it afterwards."""
    hold = HeldDeploy(tmp_path / "hold", "before_build", **changed_setting("held"))
    hold.wait_until_held(hosts)
    yield hold
    hold.playbook.kill()


def test_a_second_deploy_is_refused_while_the_first_runs(hosts: list[PanelHost], held: HeldDeploy) -> None:
    """The second one names the owner of the first, and changes nothing."""
    operations = on_all(hosts, PanelHost.operation)
    second = run_playbook("deploy", **changed_setting("second"))
    assert not second.ok
    for host in hosts:
        assert operations[host]["owner"]["name"] in second.output
        assert "is alive, so nothing was touched" in second.output
        assert host.operation() == operations[host]
        assert "is alive" in host.panelctl("switch", "inactive", "--wait", "0", status=5)
        assert "is alive" in host.panelctl("rollback", "--wait", "0", "--force", status=5)
    held.resume()
    assert held.playbook.finish().ok, held.playbook.output[-4000:]
    for host in hosts:
        assert_finished(host, "confirmed")
        assert_no_failed_unit(host)


def test_the_lease_of_a_dead_owner_is_not_waited_for(hosts: list[PanelHost], held: HeldDeploy) -> None:
    """The next run on the same controller sees that the previous one is dead, before its lease ends."""
    held.playbook.kill()
    generations = {host: host.operation()["generation"] for host in hosts}
    next_one = deploy(**changed_setting("next"))
    assert next_one.seconds < 60
    for host in hosts:
        abandoned = next(record for record in host.history() if record["generation"] == generations[host])
        assert abandoned["result"] == "abandoned"
        assert assert_finished(host, "confirmed")["generation"] == generations[host] + 1
        assert_no_failed_unit(host)
