# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run commands on a scenario's hosts, and wait for conditions there."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")
INTERVAL = 0.2  # seconds between two checks of a condition


@dataclass(frozen=True)
class Host:
    """A host of a scenario."""

    name: str

    def command_line(self, *command: str) -> list[str]:
        """Return the command line that runs a command on the host as root."""
        return ssh(self.name, *command)

    def run(self, *command: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command on the host.

        :raises AssertionError: `check` is set and the command failed; has its output.
        """
        done = subprocess.run(self.command_line(*command), check=False, capture_output=True, text=True, input=stdin)
        assert not check or not done.returncode, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done

    def run_expecting(self, status: int, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the host that must end with this exit status.

        :raises AssertionError: the exit status is another one; has the output.
        """
        done = self.run(*command, check=False)
        output = done.stdout + done.stderr
        assert done.returncode == status, f"{self.name}: {command}: exit status {done.returncode}\n{output}"
        return done

    def unit(self, unit: str, name: str) -> str:
        """Return a property of a systemd unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def ssh(host: str, *command: str, user: str = "root") -> list[str]:
    """Return the command line that runs a command on a host, through a connection that stays open.

    That costs a tenth of `docker exec`, which matters where a story runs several commands a second.
    """
    config = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ssh_config"
    line = command if user == "root" else ("runuser", "-u", user, "--", *command)
    return ["ssh", "-F", str(config), host, shlex.join(line)]


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a docker command.

    :raises AssertionError: it failed; has its output.
    """
    result = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    assert not result.returncode, f"docker {' '.join(arguments)}: {result.stdout}{result.stderr}"
    return result


def wait_until(question: Callable[[], Answer], seconds: float, what: str) -> Answer:
    """Call a function until it returns something true, and return that.

    The wait is recorded for the table of `scripts/stages`.

    :raises AssertionError: nothing true was returned in time; names the last result.
    """
    began, deadline = time.time(), time.monotonic() + seconds
    try:
        while not (answer := question()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s; last result: {answer!r}"
            time.sleep(INTERVAL)
        return answer
    finally:
        _record(what, began)


def _record(what: str, began: float) -> None:
    file = os.environ.get("AAPANEL_TIMINGS")
    if file:
        line = {"playbook": "", "task": what, "action": "wait", "start": began, "seconds": time.time() - began}
        # A line is one write, because stories may wait in several threads.
        with Path(file).open("a", encoding="utf-8") as output:
            output.write(json.dumps(line) + "\n")
