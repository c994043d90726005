# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives a story: playbooks run here, panelctl runs on the hosts, visitors and load run in a third container."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.machine import start_time
from kit.hosts import ssh, wait_until

ROOT = Path(__file__).resolve().parents[3]
SCENARIO = ROOT / "molecule/deploy"
# Molecule's folder for this scenario: inventory, secrets, releases.
SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
RELEASES, PLAYS = SCRATCH / "releases", SCRATCH / "plays"
CLIENT, DOMAIN = "deploy-client", "panel.test"
SECONDS = {
    "safety": 8,
    "drain": 20,
    "confirm": 15,
    "lease": 12,
    "settle": 3,
}  # as in molecule.yml and in deploys that are killed
SLACK = 8.0  # seconds that two busy cores may take longer
TOKEN = (SCRATCH / "token").read_text(encoding="utf-8").strip()

Answer = TypeVar("Answer")
_ASK = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=10)
connection.request("GET", sys.argv[3], headers={"Host": sys.argv[2]})
answer = connection.getresponse()
headers = {name.lower(): value for name, value in answer.getheaders()}
print(json.dumps({"status": answer.status, "headers": headers, "body": answer.read().decode("utf-8", "replace")}))
"""


def boot_time() -> float:
    """Seconds since boot, which all containers share."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def everywhere(hosts: Sequence[Host], what: Callable[[Host], Answer]) -> dict[Host, Answer]:
    """Do something with all hosts at once."""
    with ThreadPoolExecutor(len(hosts)) as threads:
        return dict(zip(hosts, threads.map(what, hosts), strict=True))


# --- hosts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """One that serves the panel."""

    name: str

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command there, as root."""
        result = subprocess.run(ssh(self.name, *command), check=False, capture_output=True, text=True)
        assert not check or not result.returncode, f"{self.name}: {command}: {result.stdout}{result.stderr}"
        return result

    def panelctl(self, *arguments: str, status: int = 0) -> str:
        """Run panelctl, which must end with this status; returns what it printed."""
        result = self.run("panelctl", *arguments, check=False)
        said = result.stdout + result.stderr
        assert result.returncode == status, f"{self.name}: panelctl {arguments}: {result.returncode}\n{said}"
        return said

    def status(self) -> dict[str, Any]:
        """What panelctl observes."""
        found: dict[str, Any] = json.loads(self.run("panelctl", "status", "--json", "--history=0", check=False).stdout)
        return found

    def history(self) -> list[dict[str, Any]]:
        """The whole journal."""
        found: list[dict[str, Any]] = json.loads(self.panelctl("history", "--json", "--lines=0"))
        return found

    def operation(self) -> dict[str, Any]:
        """The operation at work, as it is written down; empty where there is none."""
        text = self.run("cat", "/var/lib/aapanel/traffic/operation.json", check=False).stdout
        found: dict[str, Any] = json.loads(text or "{}")
        return found

    def unit(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def main_pid(self, slot: str) -> str:
        """The arbiter of a slot; 0 where it does not run."""
        return self.unit(f"aapanel@{slot}", "MainPID")

    def ask(self, path: str) -> dict[str, Any]:
        """Ask through nginx from the client: status, headers by their names in lower case, body."""
        found: dict[str, Any] = json.loads(Host(CLIENT).run("python3", "-c", _ASK, self.name, DOMAIN, path).stdout)
        return found

    def failed_units(self) -> list[str]:
        """The units that systemd calls failed."""
        return self.run("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout.split("\n")[:-1]


def settled(host: Host, result: str, *, kind: str = "deploy", within: float = SLACK) -> dict[str, Any]:
    """What has to be true at the end of each story, whatever went wrong in it; returns the journal's last line.

    Nobody is at work, the live slot is healthy, visitors get the release that it holds, and the journal says so.
    """
    wait_until(lambda: not host.operation(), within, f"{host.name}: the end of {host.operation()}")
    found = host.status()
    assert found["healthy"], f"{host.name}: {found}"
    assert found["operation"] is None
    answer = host.ask("/version")
    served = answer["status"], answer["headers"].get("x-release"), answer["headers"].get("x-slot")
    assert served == (200, found["release"], found["live"]), f"{host.name}: {served}"
    last = host.history()[-1]
    assert (last["kind"], last["result"]) == (kind, result), f"{host.name}: {last}"
    place = last["target" if result == "confirmed" else "source"]
    assert place == {"slot": found["live"], "release": found["release"]}, f"{host.name}: {last} {found}"
    return last


def slots(status: dict[str, Any]) -> dict[str, Any]:
    """What the slots hold, and which is live; whether the other one runs is a matter of time."""
    return {name: (slot["release"], slot["live"]) for name, slot in status["slots"].items()}


def sound(host: Host) -> None:
    """No unit has failed."""
    state = host.run("systemctl", "is-system-running", check=False).stdout.strip()
    assert state == "running", f"{host.name} is {state}: {host.failed_units()}"


# --- playbooks --------------------------------------------------------------------------------------------------------


class Play:
    """A playbook that runs. Output goes to a file, so that nobody has to read it meanwhile."""

    _numbers = itertools.count(1)
    _running: ClassVar[list[Play]] = []

    def __init__(self, playbook: str, *arguments: str, **variables: object) -> None:
        """Start it; `variables` win over the inventory's."""
        PLAYS.mkdir(exist_ok=True)
        self._log = PLAYS / f"{next(self._numbers):03}-{playbook}.log"
        command = [
            "ansible-playbook",
            str(ROOT / f"playbooks/{playbook}.yml"),
            "--inventory",
            str(SCRATCH / "inventory"),
        ]
        command += ["--extra-vars", json.dumps(variables), *arguments]
        env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(SCRATCH / "ansible.cfg"),
            "MOLECULE_FILE": str(SCRATCH / "molecule.yml"),
        }
        self._began = time.monotonic()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**env, "ANSIBLE_NOCOLOR": "1"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.seconds = 0.0
        self._running.append(self)

    @classmethod
    def kill_all(cls) -> None:
        """Leave none behind, whatever a story came to."""
        while cls._running:
            cls._running.pop().kill()

    def ended(self) -> bool:
        """Whether it ended, by itself or by `kill`."""
        return self._process.poll() is not None

    def finish(self, timeout: float = 400.0) -> Play:
        """Wait for its end."""
        self._process.wait(timeout)
        self.seconds = time.monotonic() - self._began
        return self

    def kill(self) -> None:
        """SIGKILL to the run and all processes that it started here; what it started on hosts goes on there."""
        if self.ended():
            return
        # Stopped first, from the top: nobody is left to start another one, or to clean up.
        processes = [self._process.pid]
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            processes += _children(pid)
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10)

    @property
    def output(self) -> str:
        """What it said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self._process.returncode == 0

    def changed(self, host: Host) -> int:
        """How many tasks changed the host."""
        return self._recap(host, "changed")

    def failed(self, host: Host) -> int:
        """How many tasks failed on the host."""
        return self._recap(host, "failed")

    def _recap(self, host: Host, name: str) -> int:
        found = re.search(rf"^{host.name}\s+: .*\b{name}=(\d+)", self.output, re.MULTILINE)
        assert found, f"no recap of {host.name}:\n{self.output[-3000:]}"
        return int(found[1])


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return [child for child in found if start_time(child) is not None]


def play(playbook: str, *arguments: str, **variables: object) -> Play:
    """Run a playbook on both hosts to its end, good or bad."""
    return Play(playbook, *arguments, **variables).finish()


def deploy(**variables: object) -> Play:
    """Run deploy.yml on both hosts, which has to end well."""
    done = play("deploy", **variables)
    assert done.ok, done.output[-6000:]
    return done


def setting(value: str) -> dict[str, str]:
    """Variables of a deploy that changes a setting and builds nothing; each time another one."""
    return {"app_settings": f"{{{{ panel_settings | combine({{'STORY': '{value} {secrets.token_hex(4)}'}}) }}}}"}


def copy_release(name: str, faults: dict[str, Any] | None = None) -> Path:
    """Make the source of another release, with faults if it shall be broken; see the example panel's README."""
    place = RELEASES / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(RELEASES / "first", place)
    (place / "VERSION").write_text(f"{name}\n")
    # A story that is told again has another release to tell of.
    (place / "STAMP").write_text(secrets.token_hex())
    if faults is not None:
        (place / "FAULTS").write_text(json.dumps(faults))
    return place


class Hold:
    """A deploy that is held in a hook, on all hosts."""

    def __init__(self, folder: Path, hook: str, **variables: object) -> None:
        """Start it."""
        self._folder = folder
        folder.mkdir()
        hooks = {hook: str(SCENARIO / "hooks/hold.yml")}
        self.play = Play("deploy", panel_hooks=hooks, hold_dir=str(folder), **variables)

    def reached(self, hosts: Sequence[Host]) -> None:
        """Wait until it is held everywhere."""

        def everywhere_or_over() -> bool:
            assert not self.play.ended(), self.play.output[-4000:]
            return all((self._folder / host.name).exists() for host in hosts)

        wait_until(everywhere_or_over, 300.0, "the hook that holds the deploy")

    def release(self) -> None:
        """Let it go on."""
        (self._folder / "go").touch()


# --- visitors ---------------------------------------------------------------------------------------------------------


class Client:
    """A program in the client's container that prints JSON lines until its input closes."""

    def __init__(self, *command: str, **env: str) -> None:
        """Start it, with variables in its environment."""
        names = [word for name in env for word in ("--env", name)]
        self._process = subprocess.Popen(
            ["docker", "exec", "--interactive", *names, CLIENT, "python3", *command],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def finish(self) -> dict[str, Any]:
        """Let it come to its end; returns its last line."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._reader.join(30)
            self._process.wait(5)
        return self.lines[-1]


class Visitor(Client):
    """Asks a host for a page twenty times a second, and writes down when the answer becomes another one."""

    def __init__(self, host: Host, path: str = "/version") -> None:
        """Begin, and wait for the first answer."""
        super().__init__("/root/visitor.py", "--url", f"http://{host.name}", "--host-header", DOMAIN, "--path", path)
        wait_until(lambda: self.lines, 10.0, f"the first answer of {host.name}")

    @property
    def last(self) -> dict[str, Any]:
        """The present answer."""
        return self.lines[-1]

    def outage(self) -> float:
        """Seconds from the first bad answer to the last good one after it."""
        answers = [line for line in self.lines if "at" in line]
        first = next(line["at"] for line in answers if not 0 < line["status"] < 500)
        assert answers[-1]["status"] == 200, answers
        return float(answers[-1]["at"] - first)


@contextlib.contextmanager
def visited(hosts: Sequence[Host]) -> Iterator[dict[Host, Visitor]]:
    """Have a light load on all hosts meanwhile, of which nothing may fail."""
    visitors = everywhere(hosts, Visitor)
    try:
        yield visitors
    finally:
        summaries = {host.name: visitor.finish() for host, visitor in visitors.items()}
    for host, visitor in visitors.items():
        assert summaries[host.name]["visits"] > 20, visitor.lines
        assert summaries[host.name]["failed"] == 0, f"{host.name}: {visitor.lines}"
