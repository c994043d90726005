# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person does on the host itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kit.hosts import docker, wait_until

from driver import (
    SCENARIO,
    SECONDS,
    SLACK,
    Host,
    deploy,
    everywhere,
    play,
    setting,
    settled,
    sound,
    visited,
)

HOOKS = [
    f"{prefix}{state}"
    for state in ("backup", "build", "migrate", "start", "switch", "confirm")
    for prefix in ("before_", "", "after_")
    if prefix or state == "backup"
]
# Runs on the host, because a state lasts for a second or so: signal a switch when it is in that state, and traffic has
# moved if that is what the state is about.
INTERRUPT = """
import contextlib, json, pathlib, signal, subprocess, sys
operation = pathlib.Path("/var/lib/aapanel/traffic/operation.json")
state = sys.argv[1]
switch = subprocess.Popen(["panelctl", "switch", "inactive", "--force"], stdout=sys.stderr)
there = False
while not there:
    if switch.poll() is not None:
        sys.exit(f"it ended before it was {state}")
    with contextlib.suppress(FileNotFoundError):
        now = json.loads(operation.read_text())
        there = now["state"] == state and (state != "switching" or "switched" in now["durations"])
switch.send_signal(signal.Signals[f"SIG{sys.argv[2]}"])
print(switch.wait(60))
"""


@pytest.fixture(scope="module")
def two_good() -> None:
    """Both slots hold something that can serve."""
    deploy(**setting("by hand"))


def other(slot: str) -> str:
    """The other colour."""
    return {"blue": "green", "green": "blue"}[slot]


@pytest.mark.usefixtures("two_good")
def test_a_switch_waits_for_its_confirmation(hosts: list[Host]) -> None:
    """It goes back by itself, or stays where somebody confirms it."""

    def unconfirmed(host: Host) -> None:
        live = host.status()["live"]
        host.panelctl("switch", "inactive", "--unconfirmed", "--reason", "a try")
        assert host.status()["live"] == other(live)
        assert 0 < host.status()["operation"]["confirm_within"] <= SECONDS["confirm"]
        last = settled(host, "reverted", kind="switch", within=SECONDS["confirm"] + SECONDS["settle"] + SLACK)
        assert "not confirmed within" in last["reason"]
        assert host.status()["live"] == live
        host.panelctl("switch", "inactive", "--unconfirmed", "--force", "--reason", "for good")
        host.panelctl("confirm")
        settled(host, "confirmed", kind="switch")
        assert host.status()["live"] == other(live)

    with visited(hosts):
        everywhere(hosts, unconfirmed)
    for host in hosts:
        sound(host)


@pytest.mark.usefixtures("two_good")
@pytest.mark.parametrize("number", ["INT", "KILL"])
@pytest.mark.parametrize("state", ["started", "switching"])
def test_a_switch_is_interrupted(state: str, number: str, hosts: list[Host]) -> None:
    """Ctrl-C, or worse: no lock is left, and traffic is where it was."""

    def interrupt(host: Host) -> None:
        live = host.status()["live"]
        said = host.run("python3", "-c", INTERRUPT, state, number, check=False)
        assert said.stdout.strip() == {"INT": "1", "KILL": "-9"}[number], f"{said.stdout}{said.stderr}"
        result = "reverted" if state == "switching" else "abandoned"
        settled(host, result, kind="switch", within=SECONDS["settle"] + 3 * SLACK)
        assert host.status()["live"] == live

    with visited(hosts):
        everywhere(hosts, interrupt)
    for host in hosts:
        sound(host)


def test_maintenance(hosts: list[Host]) -> None:
    """Visitors get our page and are told when to come back; health stays open, and so do deploys."""
    everywhere(hosts, lambda host: host.panelctl("maintenance", "on"))
    try:
        for host in hosts:
            page = host.ask("/version")
            assert page["status"] == 503
            assert int(page["headers"]["retry-after"]) > 0
            assert "no-store" in page["headers"]["cache-control"]
            assert "<html" in page["body"]
            assert "nginx" not in page["body"]
            assert host.ask("/health/ready")["status"] == 200
        deploy(**setting("maintenance"))
        for host in hosts:
            assert host.ask("/")["status"] == 503
            assert host.status()["maintenance"]
    finally:
        everywhere(hosts, lambda host: host.panelctl("maintenance", "off"))
    for host in hosts:
        settled(host, "confirmed")
        sound(host)


def test_hooks(hosts: list[Host], tmp_path: Path) -> None:
    """In their order; one that fails ends the deploy before any traffic moved."""
    before = everywhere(hosts, Host.status)
    diary = tmp_path / "diary"
    diary.touch()
    for name in [*HOOKS, "failed"]:
        note = f"""---
- name: Write it down
  ansible.builtin.lineinfile:
    path: {diary}
    line: "{{{{ inventory_hostname }}}} {name}"
  delegate_to: localhost
  throttle: 1
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
"""
        (tmp_path / f"{name}.yml").write_text(note)
    hooks = {name: str(tmp_path / f"{name}.yml") for name in [*HOOKS, "failed"]}
    deploy(panel_hooks=hooks, **setting("hooks"))
    for host in hosts:
        settled(host, "confirmed")
        assert re.findall(rf"^{host.name} (\w+)$", diary.read_text(), re.MULTILINE) == HOOKS
    now = everywhere(hosts, Host.status)
    assert all(now[host]["live"] == other(before[host]["live"]) for host in hosts)
    diary.write_text("")
    hooks["before_switch"] = str(SCENARIO / "hooks/fail.yml")
    with visited(hosts):
        tried = play("deploy", panel_hooks=hooks, **setting("other hooks"))
    assert not tried.ok
    assert "this hook refuses" in tried.output
    for host in hosts:
        last = settled(host, "failed")
        assert "this hook refuses" in last["reason"]
        assert host.status()["live"] == now[host]["live"]
        # Up to the one that failed, and then the one that is for that.
        expected = [*HOOKS[: HOOKS.index("before_switch")], "failed"]
        assert re.findall(rf"^{host.name} (\w+)$", diary.read_text(), re.MULTILINE) == expected
        sound(host)


def test_a_reboot_loses_nothing(hosts: list[Host]) -> None:
    """The link names the colour that starts; the other one stays down."""
    before = everywhere(hosts, Host.status)
    everywhere(hosts, lambda host: docker("restart", host.name))

    def back(host: Host) -> None:
        wait_until(lambda: host.status()["healthy"], 60.0, f"{host.name} serves")
        now = host.status()
        assert (now["live"], now["release"]) == (before[host]["live"], before[host]["release"])
        assert host.main_pid(other(now["live"])) == "0"
        assert host.ask("/version")["headers"]["x-release"] == now["release"]

    everywhere(hosts, back)
