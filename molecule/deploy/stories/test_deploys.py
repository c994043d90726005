# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploys and rollbacks that succeed: no request fails, and every report agrees."""

from __future__ import annotations

import json
import re

import pytest
from kit.hosts import wait_until
from kit.playbooks import run_playbook
from kit.programs import Program
from prometheus_client.parser import text_string_to_metric_families

from driver import (
    CLIENT,
    DOMAIN,
    SECONDS,
    SLACK,
    TOKEN,
    PanelHost,
    assert_finished,
    assert_no_failed_unit,
    boot_time,
    changed_setting,
    copy_release,
    deploy,
    on_all,
    other_slot,
    slots,
    visited,
)

# Clients of kinds that pause, because both hosts, two loads and Ansible share two cores. The benchmark has heavy load.
TRAFFIC = {"post": 1, "upload": 1, "stream": 2, "websocket": 4}


class Load(Program):
    """Traffic of every kind on a host."""

    def __init__(self, host: PanelHost) -> None:
        """Start the load, and wait until all WebSockets are open."""
        numbers = [word for kind, number in TRAFFIC.items() for word in (f"--{kind}", str(number))]
        self.began = boot_time()
        command = [
            "docker",
            "exec",
            "--interactive",
            "--env",
            "PANEL_API_TOKEN",
            CLIENT.name,
            "python3",
            "/root/load.py",
        ]
        arguments = ["--url", f"http://{host.name}", "--host-header", DOMAIN, *numbers]
        super().__init__([*command, *arguments], {"PANEL_API_TOKEN": TOKEN})
        wait_until(lambda: self.lines and self.lines[-1]["websockets"] == TRAFFIC["websocket"], 20.0, "WebSockets")


@pytest.mark.always
def test_a_deploy_under_load_fails_no_request(hosts: list[PanelHost]) -> None:
    """No request fails. A WebSocket is closed when the drain period is over, with code 1012."""
    before = on_all(hosts, PanelHost.status)
    loads = on_all(hosts, Load)
    with visited(hosts):
        deploy(panel_source=str(copy_release("2.0.0")))
    for host in hosts:
        last = assert_finished(host, "confirmed")
        old = before[host]["live"]
        assert last["source"] == {"slot": old, "release": before[host]["release"]}
        assert last["target"]["release"].startswith("2.0.0-")
        # The previous slot still serves its open connections.
        assert host.status()["slots"][old]["healthy"]

    def drained(host: PanelHost) -> None:
        last, old = host.history()[-1], before[host]["live"]
        wait_until(
            lambda: host.main_pid(old) == "0", SECONDS["drain"] + 4 * SLACK, f"{host.name}: the previous slot stops"
        )
        stopped = boot_time() - last["ended_at"]["seconds"]
        assert stopped >= SECONDS["drain"], f"{host.name}: {old} stopped after {stopped:.1f} s"

    on_all(hosts, drained)
    summaries = on_all(hosts, lambda host: loads[host].finish())
    for host, summary in summaries.items():
        print(host.name, json.dumps(summary))  # noqa: T201 (pytest shows it if the story fails)
        websockets = summary["websockets"]
        assert summary["failed"] == 0
        assert summary["requests"] > 200
        assert (websockets["refused"], websockets["mismatched"]) == (0, 0)
        assert len(summary["releases"]) == 2, "the load saw both releases"
        # Half of the WebSockets live as long as the load: they are closed after the drain period, not before.
        assert websockets["cut"] == len(websockets["why"]) == TRAFFIC["websocket"] / 2, websockets
        for why in websockets["why"]:
            elapsed = float(why.partition(" ")[0])
            since = loads[host].began + elapsed + SLACK - host.history()[-1]["ended_at"]["seconds"]
            assert "closed by the server with code 1012" in why
            assert since >= SECONDS["drain"], why
        assert_no_failed_unit(host)


def test_check_mode_and_a_second_run_change_nothing(hosts: list[PanelHost]) -> None:
    """Check mode shows the old and the new release; the same deploy again does nothing."""
    before = on_all(hosts, PanelHost.status)
    journals = on_all(hosts, PanelHost.history)
    source = str(copy_release("look"))
    seen = run_playbook("deploy", "--check", "--diff", panel_source=source)
    assert seen.ok, seen.output[-4000:]
    for host in hosts:
        idle = other_slot(before[host]["live"])
        assert f"-live: {before[host]['live']}: {before[host]['release']}" in seen.output
        assert re.search(rf"^\+live: {idle}: look-\w+$", seen.output, re.MULTILINE)
        assert host.status()["release"] == before[host]["release"]
        assert slots(host.status()) == slots(before[host])
        assert host.history() == journals[host]
        assert "look" not in host.run("ls", "/opt/aapanel/releases").stdout
    deploy(panel_source=source)
    for host in hosts:
        assert_finished(host, "confirmed")
    pids = {host: host.main_pid(host.status()["live"]) for host in hosts}
    journals = on_all(hosts, PanelHost.history)
    again = deploy(panel_source=source)
    for host in hosts:
        assert again.changed(host) == 0, again.output
        assert host.main_pid(host.status()["live"]) == pids[host]
        assert host.history() == journals[host]
        assert_no_failed_unit(host)


def test_a_rollback_works_warm_and_cold_but_not_to_a_bad_release(hosts: list[PanelHost]) -> None:
    """While the previous slot is started, a rollback is one rename; later it starts the slot first."""
    deploy(**changed_setting("good"))
    good = on_all(hosts, PanelHost.status)
    deploy(panel_source=str(copy_release("3.0.0")))
    bad = {host: host.status()["release"] for host in hosts}
    with visited(hosts):
        back = run_playbook("rollback", panel_rollback_reason="the login is broken")
    assert back.ok, back.output
    assert back.seconds < 10
    for host in hosts:
        last = assert_finished(host, "confirmed", kind="rollback")
        assert last["reason"] == "the login is broken"
        assert last["target"] == {"slot": good[host]["live"], "release": good[host]["release"]}
        assert "the login is broken" in host.status()["bad_releases"][bad[host]]
        assert bad[host] in host.panelctl("rollback", status=4)
        assert json.loads(host.run_expecting(4, "panelctl", "rollback", "--json").stdout)["result"] == "refused"
        assert_finished(host, "confirmed", kind="rollback")
    refused = run_playbook("rollback")
    assert not refused.ok
    assert "marked bad" in refused.output
    forced = run_playbook("rollback", panel_rollback_force=True)
    assert forced.ok, forced.output
    for host in hosts:
        assert_finished(host, "confirmed", kind="rollback")
        assert host.status()["release"] == bad[host]

    def cold(host: PanelHost) -> None:
        old = good[host]["live"]
        wait_until(
            lambda: host.main_pid(old) == "0", SECONDS["safety"] + SLACK, f"{host.name}: the previous slot stops"
        )
        # The forced rollback marked this release bad.
        host.panelctl("rollback", "--force", "--reason", "cold")

    with visited(hosts):
        on_all(hosts, cold)
    for host in hosts:
        assert assert_finished(host, "confirmed", kind="rollback")["reason"] == "cold"
        assert host.status()["release"] == good[host]["release"]
        assert_no_failed_unit(host)


@pytest.mark.always
def test_webhook_metrics_table_and_history_agree(hosts: list[PanelHost]) -> None:
    """After a deploy and a rollback, all of them have the same records."""
    deploy(**changed_setting("reports"))
    on_all(hosts, lambda host: host.panelctl("rollback", "--reason", "reports", "--force"))
    on_all(hosts, lambda host: assert_finished(host, "confirmed", kind="rollback"))
    for host in hosts:
        records = host.history()

        def received(records: list[dict[str, object]] = records) -> bool:
            lines = CLIENT.run("cat", "/root/received.jsonl").stdout.splitlines()
            posts = [json.loads(line) for line in lines]
            assert all((post["path"], post["type"]) == ("/webhook", "application/json") for post in posts)
            bodies = [json.loads(post["body"]) for post in posts]
            without = [{key: value for key, value in body.items() if key != "text"} for body in bodies]
            return records[-1] in without and records[-2] in without and all(body["text"] for body in bodies)

        wait_until(received, SLACK, f"{host.name}: the webhook")
        text = host.run("cat", "/var/lib/prometheus/node-exporter/aapanel_deploy.prom").stdout
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        deploys = [record for record in records if record["kind"] == "deploy"]
        for result in ("confirmed", "failed", "reverted", "abandoned"):
            shown = [s.value for s in samples if s.name == "aapanel_deploys_total" and s.labels == {"result": result}]
            assert shown == [sum(record["result"] == result for record in deploys)]
        shown = [sample.value for sample in samples if sample.name == "aapanel_rollbacks_total"]
        assert shown == [sum(record["kind"] == "rollback" for record in records)]
        assert [len(host.panelctl("history", "-n", "3").splitlines())] == [4]
    table = run_playbook("status")
    assert table.ok, table.output
    for host in hosts:
        found = host.status()
        assert f"{found['live']} is live with {found['release']}: healthy" in table.output
        assert re.search(rf"{found['live']} .*{found['release']} .*live .*healthy .*\d s", table.output)
        assert "WHEN" in table.output
        assert_no_failed_unit(host)


@pytest.mark.always
def test_panelctl_has_help_exit_statuses_and_completion(hosts: list[PanelHost]) -> None:
    """Each command has help; wrong use has the documented exit status; bash completes commands and options."""
    host = hosts[0]
    helped = host.panelctl("--help")
    commands = re.findall(r"^    (\w+)(?= |$)", helped, re.MULTILINE)
    assert {"status", "switch", "rollback", "confirm", "history", "maintenance", "completion"} <= set(commands)
    for command in commands:
        assert "usage: panelctl" in host.panelctl(command, "--help")
    host.panelctl("no-such-command", status=2)
    host.panelctl("switch", "red", status=2)
    assert "no switch waits" in host.panelctl("confirm", status=4)
    live = host.status()["live"]
    assert f"{live} is live already" in host.panelctl("switch", live)
    # Another user gets an error, not a traceback.
    refused = host.run("runuser", "-u", "nobody", "--", "/usr/local/sbin/panelctl", "status", check=False)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    source = ". /usr/share/bash-completion/completions/panelctl"
    ask = f'{source}; COMP_CWORD=%d; COMP_WORDS=(panelctl %s); _panelctl; echo "${{COMPREPLY[@]}}"'
    assert host.run("bash", "-c", ask % (1, "stat")).stdout.split() == ["status"]
    assert "--unconfirmed" in host.run("bash", "-c", ask % (2, "switch --u")).stdout
    assert "inactive" in host.run("bash", "-c", ask % (2, "switch i")).stdout
