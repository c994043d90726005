# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs real gunicorn processes for the tests of the runtime."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import requests

APPS = Path(__file__).parent / "apps"
PROJECT = Path(__file__).parents[3] / "roles/app/files/aapanel_runtime"
Result = TypeVar("Result")


def eventually(condition: Callable[[], Result], seconds: float = 20) -> Result:
    """Call *condition* until its result is true, and return it; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"still false after {seconds} s"
        time.sleep(0.05)
    return result


def clean_environ() -> dict[str, str]:
    """Return an environment without the developer's own settings."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": f"{PROJECT / 'src'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ENVIRONMENT": "development",
    }


class Server:
    """A gunicorn that serves an application of ``apps/`` with the configuration of the runtime."""

    def __init__(self, folder: Path, **variables: str) -> None:
        with closing(socket.socket()) as finder:
            finder.bind(("127.0.0.1", 0))
            self.port = finder.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.socket = str(folder / "s.sock")
        self.log = folder / "log"
        self.environ = {
            **clean_environ(),
            "PORT": str(self.port),
            "AAPANEL_SOCKET": self.socket,
            "AAPANEL_HOME": str(APPS),
            "AAPANEL_APP": "sample_app:app",
            "AAPANEL_WORKERS": "2",
            "AAPANEL_RELEASE": "r-1",
            "AAPANEL_SLOT": "blue",
            "AAPANEL_METRICS_DIR": str(folder / "metrics"),
            **variables,
        }
        self.metrics_folder = Path(self.environ["AAPANEL_METRICS_DIR"] or "/nonexistent")
        command = [sys.executable, "-m", "gunicorn", "--config", "python:aapanel_runtime.gunicorn_config"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=subprocess.STDOUT)

    def wait_until_up(self) -> Server:
        eventually(self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        # Wait for both workers, because the first one answers all requests until the second has started.
        return (
            self.metrics_folder.is_dir()
            and len(list(self.metrics_folder.glob("gauge_livesum_w*.db"))) >= int(self.environ["AAPANEL_WORKERS"])
            and self.get("/health/ready") is not None
        )

    def get(self, path: str, **options: object) -> requests.Response | None:
        try:
            return requests.get(self.url + path, timeout=10, **options)
        except requests.ConnectionError:
            return None

    def metric(self, name: str) -> float:
        """Return the value of a sample by its full name with labels, 0 if it is missing."""
        text = requests.get(f"{self.url}/health/metrics", timeout=10).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()
