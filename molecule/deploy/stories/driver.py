# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers of the deploy stories: panelctl on the hosts, deploys from the controller, visitors in a third container."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kit.hosts import Host, wait_until
from kit.playbooks import ROOT, Playbook, run_playbook
from kit.programs import Visitor, visitor_command

SCENARIO = ROOT / "molecule/deploy"
# Molecule's folder for this scenario: inventory, secrets, releases.
SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
RELEASES = SCRATCH / "releases"
CLIENT, DOMAIN = Host("deploy-client"), "panel.test"
SECONDS = {
    "safety": 8,
    "drain": 20,
    "confirm": 15,
    "lease": 12,
    "settle": 3,
}  # as in molecule.yml, and in the deploys that are killed
SLACK = 8.0  # seconds by which two busy cores may be late
TOKEN = (SCRATCH / "token").read_text(encoding="utf-8").strip()

Answer = TypeVar("Answer")
_GET = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=10)
connection.request("GET", sys.argv[3], headers={"Host": sys.argv[2]})
answer = connection.getresponse()
headers = {name.lower(): value for name, value in answer.getheaders()}
print(json.dumps({"status": answer.status, "headers": headers, "body": answer.read().decode("utf-8", "replace")}))
"""


def boot_time() -> float:
    """Return the seconds since boot; all containers share this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# --- hosts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PanelHost(Host):
    """A host that serves the panel."""

    def panelctl(self, *arguments: str, status: int = 0) -> str:
        """Run panelctl, which must end with this exit status, and return its output."""
        done = self.run_expecting(status, "panelctl", *arguments)
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """Return what `panelctl status` reports."""
        found: dict[str, Any] = json.loads(self.run("panelctl", "status", "--json", "--history=0", check=False).stdout)
        return found

    def history(self) -> list[dict[str, Any]]:
        """Return all records of the history."""
        found: list[dict[str, Any]] = json.loads(self.panelctl("history", "--json", "--lines=0"))
        return found

    def operation(self) -> dict[str, Any]:
        """Return the current operation from its file; empty if none runs."""
        text = self.run("cat", "/var/lib/aapanel/traffic/operation.json", check=False).stdout
        found: dict[str, Any] = json.loads(text or "{}")
        return found

    def main_pid(self, slot: str) -> str:
        """Return the PID of a slot's gunicorn arbiter; 0 if it does not run."""
        return self.unit(f"aapanel@{slot}", "MainPID")

    def get(self, path: str) -> dict[str, Any]:
        """Request a page through nginx from the client, and return status, headers (lower-case names) and body."""
        found: dict[str, Any] = json.loads(CLIENT.run("python3", "-c", _GET, self.name, DOMAIN, path).stdout)
        return found

    def failed_units(self) -> list[str]:
        """Return the systemd units that have failed."""
        return self.run("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout.split("\n")[:-1]


def on_all(hosts: Sequence[PanelHost], function: Callable[[PanelHost], Answer]) -> dict[PanelHost, Answer]:
    """Call a function for all hosts at once, and return the results by host."""
    with ThreadPoolExecutor(len(hosts)) as threads:
        return dict(zip(hosts, threads.map(function, hosts), strict=True))


def other_slot(slot: str) -> str:
    """Return the name of the other slot."""
    return {"blue": "green", "green": "blue"}[slot]


def slots(status: dict[str, Any]) -> dict[str, Any]:
    """Return the release of each slot, and which slot is live. Whether the idle slot runs depends on the time."""
    return {name: (slot["release"], slot["live"]) for name, slot in status["slots"].items()}


def assert_finished(host: PanelHost, result: str, *, kind: str = "deploy", within: float = SLACK) -> dict[str, Any]:
    """Check what must be true after each operation, whether it succeeded or not; return its record of the history.

    No operation runs, the live slot is healthy, visitors get its release, and the history agrees.
    """
    wait_until(lambda: not host.operation(), within, f"{host.name}: the end of {host.operation()}")
    found = host.status()
    assert found["healthy"], f"{host.name}: {found}"
    assert found["operation"] is None
    answer = host.get("/version")
    served = answer["status"], answer["headers"].get("x-release"), answer["headers"].get("x-slot")
    assert served == (200, found["release"], found["live"]), f"{host.name}: {served}"
    last = host.history()[-1]
    assert (last["kind"], last["result"]) == (kind, result), f"{host.name}: {last}"
    place = last["target" if result == "confirmed" else "source"]
    assert place == {"slot": found["live"], "release": found["release"]}, f"{host.name}: {last} {found}"
    return last


def assert_no_failed_unit(host: PanelHost) -> None:
    """Check that systemd calls the host `running`: no unit has failed."""
    state = host.run("systemctl", "is-system-running", check=False).stdout.strip()
    assert state == "running", f"{host.name} is {state}: {host.failed_units()}"


# --- deploys ----------------------------------------------------------------------------------------------------------


def deploy(**variables: object) -> Playbook:
    """Run deploy.yml on both hosts; it must succeed."""
    done = run_playbook("deploy", **variables)
    assert done.ok, done.output[-6000:]
    return done


def changed_setting(value: str) -> dict[str, str]:
    """Return variables of a deploy that changes a setting, a different one in each call, and builds no release."""
    return {"app_settings": f"{{{{ panel_settings | combine({{'STORY': '{value} {secrets.token_hex(4)}'}}) }}}}"}


def copy_release(name: str, faults: dict[str, Any] | None = None) -> Path:
    """Create the source of another release; `faults` break it in the ways that the example panel's README lists."""
    place = RELEASES / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(RELEASES / "first", place)
    (place / "VERSION").write_text(f"{name}\n")
    # A repeated story needs a release that was not deployed before.
    (place / "STAMP").write_text(secrets.token_hex())
    if faults is not None:
        (place / "FAULTS").write_text(json.dumps(faults))
    return place


class HeldDeploy:
    """A deploy that a hook holds on all hosts until `resume`."""

    def __init__(self, folder: Path, hook: str, **variables: object) -> None:
        """Start the deploy."""
        self._folder = folder
        folder.mkdir()
        hooks = {hook: str(SCENARIO / "hooks/hold.yml")}
        self.playbook = Playbook("deploy", panel_hooks=hooks, hold_dir=str(folder), **variables)

    def wait_until_held(self, hosts: Sequence[PanelHost]) -> None:
        """Wait until all hosts have come to the hook."""

        def all_held() -> bool:
            assert not self.playbook.ended(), self.playbook.output[-4000:]
            return all((self._folder / host.name).exists() for host in hosts)

        wait_until(all_held, 300.0, "the hook that holds the deploy")

    def resume(self) -> None:
        """Let the deploy go on."""
        (self._folder / "go").touch()


# --- visitors ---------------------------------------------------------------------------------------------------------


def start_visitor(host: PanelHost) -> Visitor:
    """Start a visitor of the host in the client's container."""
    command = visitor_command(f"http://{host.name}", DOMAIN, "/version")
    return Visitor(["docker", "exec", "--interactive", CLIENT.name, *command])


@contextlib.contextmanager
def visited(hosts: Sequence[PanelHost]) -> Iterator[None]:
    """Visit all hosts in the meantime; no visit may fail."""
    visitors = on_all(hosts, start_visitor)
    try:
        yield
    finally:
        summaries = {host: visitor.finish() for host, visitor in visitors.items()}
    for host, visitor in visitors.items():
        assert summaries[host]["visits"] > 20, visitor.lines
        assert summaries[host]["failed"] == 0, f"{host.name}: {visitor.lines}"
