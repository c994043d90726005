# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands on hosts, and waits for conditions there."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")
INTERVAL = 0.2  # seconds between two questions


def ssh(host: str, *command: str, user: str = "root") -> list[str]:
    """Return the command line that runs a command on a host through the connection that Ansible has open already.

    That costs a tenth of `docker exec`, which matters where a story asks several times a second.
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
    """Ask until the answer is true, and return it. The wait is recorded for the table of `scripts/stages`.

    :raises AssertionError: it is not after so many seconds; names the last answer.
    """
    began, deadline = time.time(), time.monotonic() + seconds
    try:
        while not (answer := question()):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s; at last {answer!r}"
            time.sleep(INTERVAL)
        return answer
    finally:
        _record(what, began)


def _record(what: str, began: float) -> None:
    file = os.environ.get("AAPANEL_TIMINGS")
    if file:
        line = {"playbook": "", "task": what, "action": "wait", "start": began, "seconds": time.time() - began}
        # One write a line: stories may wait in several threads.
        with Path(file).open("a", encoding="utf-8") as output:
            output.write(json.dumps(line) + "\n")
