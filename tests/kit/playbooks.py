# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the collection's playbooks on a scenario's hosts."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from kit.hosts import Host

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 900.0  # seconds that a playbook may take on a busy machine


class Playbook:
    """A run of a playbook. Its output goes to a file in `plays`, beside Molecule's inventory."""

    _numbers = itertools.count(1)
    _running: ClassVar[list[Playbook]] = []

    def __init__(self, name: str, *arguments: str, **variables: object) -> None:
        """Start the playbook; `variables` take precedence over the inventory's."""
        scratch = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
        logs = scratch / "plays"
        logs.mkdir(exist_ok=True)
        # Stories may run in several processes of pytest-xdist.
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        self._log = logs / f"{worker}{'-' if worker else ''}{next(self._numbers):03}-{name}.log"
        command = ["ansible-playbook", str(ROOT / f"playbooks/{name}.yml"), "--inventory", str(scratch / "inventory")]
        command += ["--extra-vars", json.dumps(variables), *arguments]
        env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(scratch / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "MOLECULE_FILE": str(scratch / "molecule.yml"),
        }
        self._began = time.monotonic()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.seconds = 0.0
        self._running.append(self)

    @classmethod
    def kill_all(cls) -> None:
        """Kill all runs that this process started."""
        while cls._running:
            cls._running.pop().kill()

    def ended(self) -> bool:
        """Tell whether the run has ended or was killed."""
        return self._process.poll() is not None

    def finish(self, timeout: float = TIMEOUT) -> Playbook:
        """Wait until the run ends."""
        self._process.wait(timeout)
        self.seconds = time.monotonic() - self._began
        return self

    def kill(self) -> None:
        """Send SIGKILL to the run and to all its processes on the controller; its processes on hosts go on."""
        if self.ended():
            return
        # Stopped first, from the top, so that none can start another process or clean up.
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
        """The output so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def text(self) -> str:
        """The output so far on one line: each run of white space is one blank, because Ansible wraps messages."""
        return " ".join(self.output.split())

    @property
    def ok(self) -> bool:
        """Whether the run succeeded."""
        return self._process.returncode == 0

    def changed(self, host: Host) -> int:
        """Return how many tasks changed the host."""
        return self._recap(host, "changed")

    def failed(self, host: Host) -> int:
        """Return how many tasks failed on the host."""
        return self._recap(host, "failed")

    def _recap(self, host: Host, name: str) -> int:
        found = re.search(rf"^{host.name}\s+: .*\b{name}=(\d+)", self.output, re.MULTILINE)
        assert found, f"no recap of {host.name}:\n{self.output[-3000:]}"
        return int(found[1])


def run_playbook(name: str, *arguments: str, **variables: object) -> Playbook:
    """Run a playbook until it ends, whether it succeeds or fails."""
    return Playbook(name, *arguments, **variables).finish()


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # After the program's name: the state, and the parent's PID (proc_pid_stat(5)).
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(parent) == pid and state not in "ZX":
                    found.append(int(entry.name))
    return found
