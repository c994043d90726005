# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run programs in the background that report JSON lines, such as visitors of a panel."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.hosts import wait_until

VISITOR = (Path(__file__).parent / "visitor.py").read_text(encoding="utf-8")


class Program:
    """A program that prints JSON lines, and ends when its standard input closes."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start a command line; `env` is added to the environment."""
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
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
        """Close its standard input, wait until it ends, and return its last line."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._reader.join(30)
            self._process.wait(5)
        return self.lines[-1]


class Visitor(Program):
    """Visits pages many times a second, and reports each change of the answer (visitor.py)."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start a command line of `visitor_command`, and wait for the first answer."""
        super().__init__(command)
        wait_until(lambda: self.lines, 10.0, "the visitor's first answer")

    @property
    def last(self) -> dict[str, Any]:
        """The current answer."""
        return self.lines[-1]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The answers that a visitor takes for a failure."""
        return [line for line in self.lines if "at" in line and not 0 < line["status"] < 400]

    def outage(self) -> float:
        """Return the seconds from the first bad answer to the last change, which must be to a good one."""
        answers = [line for line in self.lines if "at" in line]
        assert answers[-1]["status"] == 200, answers
        return float(answers[-1]["at"] - self.failures[0]["at"])


def visitor_command(url: str, host_header: str, *paths: str, fresh: bool = False) -> list[str]:
    """Return the command that visits pages, to be run where the visitor is.

    :param fresh: never keep a connection.
    """
    command = ["python3", "-c", VISITOR, "--url", url, "--host-header", host_header]
    command += [word for path in paths for word in ("--path", path)]
    return [*command, "--fresh"] if fresh else command
