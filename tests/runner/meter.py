# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the CPU usage of containers and of the machine."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

INTERVAL = 3.0  # seconds


class HostMeter:
    """Sums the CPU time of test hosts by scenario, as reported by their container engine.

    Polls every few seconds, because the engine loses the count of a host that is removed or restarted.
    """

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, socket: str) -> None:
        """Start to poll the engine at this address (as in DOCKER_HOST)."""
        self._thread = threading.Thread(target=self._watch, args=(socket,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def seconds(self, scenario: str) -> float | str:
        """Return the CPU seconds of a scenario's hosts so far; `-` if unknown."""
        return self._used.get(scenario, "-")

    def _watch(self, socket: str) -> None:
        while not self._stop.wait(INTERVAL):
            # The engine may be busy or stopped, or a host may have stopped and have no figures (KeyError). At most one
            # interval is missed.
            with contextlib.suppress(DockerException, RequestException, KeyError):
                self._look(socket)

    def _look(self, socket: str) -> None:
        with contextlib.closing(docker.APIClient(base_url=socket, timeout=10)) as client:
            for container in client.containers():
                self._add(client, container["Id"], container["Names"][0].strip("/"))

    def _add(self, client: docker.APIClient, identity: str, name: str) -> None:
        now = client.stats(identity, stream=False, one_shot=True)["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        if not now:
            return  # with cgroup v1, some engines have no figures for hosts with systemd
        scenario, before = name.partition("-")[0], self._last.get(identity, 0.0)
        # A smaller count means that the host was restarted and counts from 0.
        self._used[scenario] = self._used.get(scenario, 0.0) + (now - before if now >= before else now)
        self._last[identity] = now


def machine_busy() -> tuple[float, float]:
    """Return the busy and the total CPU seconds of all processors since boot (proc(5))."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    ticks = [int(field) for field in fields]
    idle = ticks[3] + ticks[4]
    per_second = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / per_second, sum(ticks) / per_second
