# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Meters what containers and the whole machine use of the processors."""

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
    """Sums the processor time of test hosts by scenario, as their container engine counts it.

    Looks every few seconds, because a host that is removed or restarted takes its count with it.
    """

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, socket: str) -> None:
        """Begin to look at the engine at this address (as in DOCKER_HOST)."""
        self._thread = threading.Thread(target=self._watch, args=(socket,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def seconds(self, scenario: str) -> float | str:
        """Return the seconds of a processor that the hosts of a scenario have used so far; `-` where nobody knows."""
        return self._used.get(scenario, "-")

    def _watch(self, socket: str) -> None:
        while not self._stop.wait(INTERVAL):
            # The engine may be busy or gone, or a host may have stopped: then it has no figures (KeyError).
            # What is missed is at most one interval.
            with contextlib.suppress(DockerException, RequestException, KeyError):
                self._look(socket)

    def _look(self, socket: str) -> None:
        with contextlib.closing(docker.APIClient(base_url=socket, timeout=10)) as client:
            for container in client.containers():
                self._add(client, container["Id"], container["Names"][0].strip("/"))

    def _add(self, client: docker.APIClient, identity: str, name: str) -> None:
        now = client.stats(identity, stream=False, one_shot=True)["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        if not now:
            return  # with cgroups of version 1, some engines have no figures of a host that runs systemd
        scenario, before = name.partition("-")[0], self._last.get(identity, 0.0)
        # Less than before: it was restarted, and counts from 0.
        self._used[scenario] = self._used.get(scenario, 0.0) + (now - before if now >= before else now)
        self._last[identity] = now


def machine_busy() -> tuple[float, float]:
    """Return the seconds that all processors together were busy, and were there, since the machine booted (proc(5))."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    ticks = [int(field) for field in fields]
    idle = ticks[3] + ticks[4]
    per_second = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / per_second, sum(ticks) / per_second
