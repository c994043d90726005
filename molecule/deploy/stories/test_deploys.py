# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploys and rollbacks that go well: nobody notices, and everybody is told."""

from __future__ import annotations

import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from driver import (
    CLIENT,
    DOMAIN,
    SECONDS,
    SLACK,
    TOKEN,
    Client,
    Host,
    boot_time,
    copy_release,
    deploy,
    everywhere,
    play,
    setting,
    settled,
    slots,
    sound,
    visited,
    wait_until,
)

# Kinds that pause: both hosts, two loads and Ansible share two cores. The benchmark is for hard work.
TRAFFIC = {"post": 1, "upload": 1, "stream": 2, "websocket": 4}


class Load(Client):
    """Every kind of traffic on a host."""

    def __init__(self, host: Host) -> None:
        """Begin, and wait until all WebSockets are open."""
        numbers = [word for kind, number in TRAFFIC.items() for word in (f"--{kind}", str(number))]
        self.began = boot_time()
        super().__init__(
            "/root/load.py", "--url", f"http://{host.name}", "--host-header", DOMAIN, *numbers, PANEL_API_TOKEN=TOKEN
        )
        wait_until(lambda: self.lines and self.lines[-1]["websockets"] == TRAFFIC["websocket"], 20.0, "WebSockets")


@pytest.mark.always
def test_a_second_deploy_under_load(hosts: list[Host]) -> None:
    """No request fails, no WebSocket is cut before its time, and then with a word of why."""
    before = everywhere(hosts, Host.status)
    loads = everywhere(hosts, Load)
    with visited(hosts):
        deploy(panel_source=str(copy_release("2.0.0")))
    for host in hosts:
        last = settled(host, "confirmed")
        old = before[host]["live"]
        assert last["source"] == {"slot": old, "release": before[host]["release"]}
        assert last["target"]["release"].startswith("2.0.0-")
        # Warm: it serves those that came before.
        assert host.status()["slots"][old]["healthy"]

    def over(host: Host) -> None:
        last, old = host.history()[-1], before[host]["live"]
        wait_until(
            lambda: host.main_pid(old) == "0", SECONDS["drain"] + 4 * SLACK, f"{host.name}: the old colour stops"
        )
        stopped = boot_time() - last["ended_at"]["seconds"]
        assert stopped >= SECONDS["drain"], f"{host.name}: {old} stopped after {stopped:.1f} s"

    everywhere(hosts, over)
    summaries = everywhere(hosts, lambda host: loads[host].finish())
    for host, summary in summaries.items():
        print(host.name, json.dumps(summary))  # noqa: T201 (pytest shows it where the story fails)
        websockets = summary["websockets"]
        assert summary["failed"] == 0
        assert summary["requests"] > 200
        assert (websockets["refused"], websockets["mismatched"]) == (0, 0)
        assert len(summary["releases"]) == 2, "the load saw both releases"
        # Those that live as long as the load: told to come again, after the time that they were promised.
        assert websockets["cut"] == len(websockets["why"]) == TRAFFIC["websocket"] / 2, websockets
        for why in websockets["why"]:
            elapsed = float(why.partition(" ")[0])
            since = loads[host].began + elapsed + SLACK - host.history()[-1]["ended_at"]["seconds"]
            assert "closed by the server with code 1012" in why
            assert since >= SECONDS["drain"], why
        sound(host)


def test_look_first_and_again(hosts: list[Host]) -> None:
    """Check mode says from what to what and does nothing; the same deploy again does nothing."""
    before = everywhere(hosts, Host.status)
    journals = everywhere(hosts, Host.history)
    source = str(copy_release("look"))
    seen = play("deploy", "--check", "--diff", panel_source=source)
    assert seen.ok, seen.output[-4000:]
    for host in hosts:
        idle = {"blue": "green", "green": "blue"}[before[host]["live"]]
        assert f"-live: {before[host]['live']}: {before[host]['release']}" in seen.output
        assert re.search(rf"^\+live: {idle}: look-\w+$", seen.output, re.MULTILINE)
        assert host.status()["release"] == before[host]["release"]
        assert slots(host.status()) == slots(before[host])
        assert host.history() == journals[host]
        assert "look" not in host.run("ls", "/opt/aapanel/releases").stdout
    deploy(panel_source=source)
    for host in hosts:
        settled(host, "confirmed")
    pids = {host: host.main_pid(host.status()["live"]) for host in hosts}
    journals = everywhere(hosts, Host.history)
    again = deploy(panel_source=source)
    for host in hosts:
        assert again.changed(host) == 0, again.output
        assert host.main_pid(host.status()["live"]) == pids[host]
        assert host.history() == journals[host]
        sound(host)


def test_back_and_forth(hosts: list[Host]) -> None:
    """Back by one rename while the old colour is warm, and by a start of it when it is not; never to a bad one."""
    deploy(**setting("good"))
    good = everywhere(hosts, Host.status)
    deploy(panel_source=str(copy_release("3.0.0")))
    bad = {host: host.status()["release"] for host in hosts}
    with visited(hosts):
        back = play("rollback", reason="the login is broken")
    assert back.ok, back.output
    assert back.seconds < 10
    for host in hosts:
        last = settled(host, "confirmed", kind="rollback")
        assert last["reason"] == "the login is broken"
        assert last["target"] == {"slot": good[host]["live"], "release": good[host]["release"]}
        assert "the login is broken" in host.status()["bad_releases"][bad[host]]
        assert bad[host] in host.panelctl("rollback", status=4)
        answer = host.run("panelctl", "rollback", "--json", check=False)
        assert (answer.returncode, json.loads(answer.stdout)["result"]) == (4, "refused")
        settled(host, "confirmed", kind="rollback")
    refused = play("rollback")
    assert not refused.ok
    assert "marked bad" in refused.output
    forced = play("rollback", force=True)
    assert forced.ok, forced.output
    for host in hosts:
        settled(host, "confirmed", kind="rollback")
        assert host.status()["release"] == bad[host]

    def cold(host: Host) -> None:
        old = good[host]["live"]
        wait_until(lambda: host.main_pid(old) == "0", SECONDS["safety"] + SLACK, f"{host.name}: the old colour stops")
        # To what was left as bad by the rollback of the rollback.
        host.panelctl("rollback", "--force", "--reason", "cold")

    with visited(hosts):
        everywhere(hosts, cold)
    for host in hosts:
        assert settled(host, "confirmed", kind="rollback")["reason"] == "cold"
        assert host.status()["release"] == good[host]["release"]
        sound(host)


@pytest.mark.always
def test_everybody_is_told(hosts: list[Host]) -> None:
    """The webhook, the figures, the table and the journal tell the same."""
    deploy(**setting("told"))
    everywhere(hosts, lambda host: host.panelctl("rollback", "--reason", "told", "--force"))
    everywhere(hosts, lambda host: settled(host, "confirmed", kind="rollback"))
    for host in hosts:
        records = host.history()

        def told(records: list[dict[str, object]] = records) -> bool:
            lines = Host(CLIENT).run("cat", "/root/told.jsonl").stdout.splitlines()
            posts = [json.loads(line) for line in lines]
            assert all((post["path"], post["type"]) == ("/told", "application/json") for post in posts)
            bodies = [json.loads(post["body"]) for post in posts]
            without = [{key: value for key, value in body.items() if key != "text"} for body in bodies]
            return records[-1] in without and records[-2] in without and all(body["text"] for body in bodies)

        wait_until(told, SLACK, f"{host.name}: the webhook")
        text = host.run("cat", "/var/lib/prometheus/node-exporter/aapanel_deploy.prom").stdout
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        deploys = [record for record in records if record["kind"] == "deploy"]
        for result in ("confirmed", "failed", "reverted", "abandoned"):
            shown = [s.value for s in samples if s.name == "aapanel_deploys_total" and s.labels == {"result": result}]
            assert shown == [sum(record["result"] == result for record in deploys)]
        shown = [sample.value for sample in samples if sample.name == "aapanel_rollbacks_total"]
        assert shown == [sum(record["kind"] == "rollback" for record in records)]
        assert [len(host.panelctl("history", "-n", "3").splitlines())] == [4]
    table = play("status")
    assert table.ok, table.output
    for host in hosts:
        found = host.status()
        assert f"{found['live']} is live with {found['release']}: healthy" in table.output
        assert re.search(rf"{found['live']} .*{found['release']} .*live .*healthy .*\d s", table.output)
        assert "WHEN" in table.output
        sound(host)


@pytest.mark.always
def test_panelctl_explains_itself(hosts: list[Host]) -> None:
    """Help of each command, exit statuses, completion."""
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
    # As another user: a word of what to do, and no traceback.
    refused = host.run("runuser", "-u", "nobody", "--", "/usr/local/sbin/panelctl", "status", check=False)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    source = ". /usr/share/bash-completion/completions/panelctl"
    ask = f'{source}; COMP_CWORD=%d; COMP_WORDS=(panelctl %s); _panelctl; echo "${{COMPREPLY[@]}}"'
    assert host.run("bash", "-c", ask % (1, "stat")).stdout.split() == ["status"]
    assert "--unconfirmed" in host.run("bash", "-c", ask % (2, "switch --u")).stdout
    assert "inactive" in host.run("bash", "-c", ask % (2, "switch i")).stdout
