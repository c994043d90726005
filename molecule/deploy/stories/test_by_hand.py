# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""panelctl on the host, maintenance, hooks and a reboot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kit.hosts import docker, wait_until
from kit.playbooks import run_playbook

from driver import (
    SCENARIO,
    SECONDS,
    SLACK,
    PanelHost,
    assert_finished,
    assert_no_failed_unit,
    changed_setting,
    deploy,
    on_all,
    other_slot,
    visited,
)

HOOKS = [
    f"{prefix}{state}"
    for state in ("backup", "build", "migrate", "start", "switch", "confirm")
    for prefix in ("before_", "", "after_")
    if prefix or state == "backup"
]
# Sends a signal to a switch that has reached a state; in `switching`, only after traffic has moved. It runs on the
# host, because a state lasts about a second.
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
def both_slots_filled() -> None:
    """Deploy once more, so that both slots hold a release that can serve."""
    deploy(**changed_setting("by hand"))


@pytest.mark.usefixtures("both_slots_filled")
def test_an_unconfirmed_switch_is_reverted(hosts: list[PanelHost]) -> None:
    """It is reverted automatically, unless it is confirmed in time."""

    def revert_then_confirm(host: PanelHost) -> None:
        live = host.status()["live"]
        host.panelctl("switch", "inactive", "--unconfirmed", "--reason", "a try")
        assert host.status()["live"] == other_slot(live)
        assert 0 < host.status()["operation"]["confirm_within"] <= SECONDS["confirm"]
        last = assert_finished(host, "reverted", kind="switch", within=SECONDS["confirm"] + SECONDS["settle"] + SLACK)
        assert "not confirmed within" in last["reason"]
        assert host.status()["live"] == live
        host.panelctl("switch", "inactive", "--unconfirmed", "--force", "--reason", "for good")
        host.panelctl("confirm")
        assert_finished(host, "confirmed", kind="switch")
        assert host.status()["live"] == other_slot(live)

    with visited(hosts):
        on_all(hosts, revert_then_confirm)
    for host in hosts:
        assert_no_failed_unit(host)


@pytest.mark.usefixtures("both_slots_filled")
@pytest.mark.parametrize("signal", ["INT", "KILL"])
@pytest.mark.parametrize("state", ["started", "switching"])
def test_an_interrupted_switch_is_undone(state: str, signal: str, hosts: list[PanelHost]) -> None:
    """After Ctrl-C or SIGKILL, no lock is left, and traffic is in the slot where it was."""

    def interrupt(host: PanelHost) -> None:
        live = host.status()["live"]
        done = host.run("python3", "-c", INTERRUPT, state, signal, check=False)
        assert done.stdout.strip() == {"INT": "1", "KILL": "-9"}[signal], f"{done.stdout}{done.stderr}"
        result = "reverted" if state == "switching" else "abandoned"
        assert_finished(host, result, kind="switch", within=SECONDS["settle"] + 3 * SLACK)
        assert host.status()["live"] == live

    with visited(hosts):
        on_all(hosts, interrupt)
    for host in hosts:
        assert_no_failed_unit(host)


def test_maintenance_serves_a_page_and_allows_deploys(hosts: list[PanelHost]) -> None:
    """Visitors get the maintenance page with a Retry-After; health endpoints answer, and a deploy works."""
    on_all(hosts, lambda host: host.panelctl("maintenance", "on"))
    try:
        for host in hosts:
            page = host.get("/version")
            assert page["status"] == 503
            assert int(page["headers"]["retry-after"]) > 0
            assert "no-store" in page["headers"]["cache-control"]
            assert "<html" in page["body"]
            assert "nginx" not in page["body"]
            assert host.get("/health/ready")["status"] == 200
        deploy(**changed_setting("maintenance"))
        for host in hosts:
            assert host.get("/")["status"] == 503
            assert host.status()["maintenance"]
    finally:
        on_all(hosts, lambda host: host.panelctl("maintenance", "off"))
    for host in hosts:
        assert_finished(host, "confirmed")
        assert_no_failed_unit(host)


def test_hooks_run_in_order_and_a_failing_one_ends_the_deploy(hosts: list[PanelHost], tmp_path: Path) -> None:
    """A hook that fails before the switch ends the deploy before traffic moves; then the hook `failed` runs."""
    before = on_all(hosts, PanelHost.status)
    diary = tmp_path / "diary"
    diary.touch()
    for name in [*HOOKS, "failed"]:
        note = f"""---
- name: Record the hook
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
    deploy(panel_hooks=hooks, **changed_setting("hooks"))
    for host in hosts:
        assert_finished(host, "confirmed")
        assert re.findall(rf"^{host.name} (\w+)$", diary.read_text(), re.MULTILINE) == HOOKS
    now = on_all(hosts, PanelHost.status)
    assert all(now[host]["live"] == other_slot(before[host]["live"]) for host in hosts)
    diary.write_text("")
    hooks["before_switch"] = str(SCENARIO / "hooks/fail.yml")
    with visited(hosts):
        tried = run_playbook("deploy", panel_hooks=hooks, **changed_setting("other hooks"))
    assert not tried.ok
    assert "this hook refuses" in tried.output
    for host in hosts:
        last = assert_finished(host, "failed")
        assert "this hook refuses" in last["reason"]
        assert host.status()["live"] == now[host]["live"]
        # All up to the failing one, which records nothing, and then `failed`.
        expected = [*HOOKS[: HOOKS.index("before_switch")], "failed"]
        assert re.findall(rf"^{host.name} (\w+)$", diary.read_text(), re.MULTILINE) == expected
        assert_no_failed_unit(host)


def test_a_reboot_loses_nothing(hosts: list[PanelHost]) -> None:
    """The slot that the live link names starts; the other one stays stopped."""
    before = on_all(hosts, PanelHost.status)
    on_all(hosts, lambda host: docker("restart", host.name))

    def booted(host: PanelHost) -> None:
        wait_until(lambda: host.status()["healthy"], 60.0, f"{host.name} serves")
        now = host.status()
        assert (now["live"], now["release"]) == (before[host]["live"], before[host]["release"])
        assert host.main_pid(other_slot(now["live"])) == "0"
        assert host.get("/version")["headers"]["x-release"] == now["release"]

    on_all(hosts, booted)
