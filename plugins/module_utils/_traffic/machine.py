# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What the state machine asks of the host, and the real host that does it."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from . import probe
from .errors import TrafficError, UnhealthyError
from .observe import count_connections, read_slot
from .probe import Answer
from .services import Supervisor, Systemd
from .settings import Settings

_WEBHOOK_TIMEOUT = 5.0  # seconds
_BACKUP_WAIT = 300  # seconds that another backup, which is at work, may take
_PARTIAL = 3  # panelctl's exit status: made, but something is missing, and the backup says what
_LINES = 20  # of what panelctl said that a message shows


class Machine(Protocol):
    """Everything outside of this package: processes, clocks, services and answers."""

    def now(self) -> float:
        """Seconds since boot, suspended time included; no clock that somebody sets changes it."""

    def utc_timestamp(self) -> str:
        """The time of day, ISO 8601 in UTC, for people."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def boot_id(self) -> str:
        """What tells this boot of the machine, or of the container, from the one before; random(4)."""

    def process(self) -> tuple[int, int]:
        """Pid and start time of this process."""

    def alive(self, pid: int, started: int) -> bool:
        """Whether just that process still runs, and not another one with its pid."""

    def building(self) -> bool:
        """Whether a release is being built."""

    def start(self, slot: str) -> None:
        """Start a slot anew. Raises UnhealthyError with its last lines if it dies at once."""

    def start_in_background(self, slot: str) -> None:
        """Start a slot at boot, without waiting for it."""

    def stop(self, slot: str) -> None:
        """Let a slot finish its requests, and stop it."""

    def backup(self, name: str) -> None:
        """Back a set of sources up. Raises UnhealthyError with what panelctl said."""

    def migrate(self, slot: str) -> None:
        """Migrate the database with the slot's release. Raises UnhealthyError with what the migration said."""

    def running(self, slot: str) -> bool:
        """Whether the slot's service is up, healthy or not."""

    def uptime(self, slot: str) -> float | None:
        """Seconds for which the slot's service has been up; None where it is not."""

    def crashed(self, slot: str) -> bool:
        """Whether the slot's service gave up, or dies again and again."""

    def logs(self, slot: str) -> str:
        """The last lines that the slot said."""

    def watch(self, on: bool) -> None:
        """Look every few seconds for an operation whose owner died, or stop looking."""

    def retire(self, slot: str, wanted: bool) -> None:
        """Have a colour that was left watched, drained and stopped; or no longer."""

    def ready(self, slot: str) -> Answer:
        """Ask the slot itself for its health."""

    def websocket(self, slot: str, path: str) -> Answer:
        """Ask the slot itself for a WebSocket."""

    def edge(self, path: str) -> Answer:
        """Ask through nginx, as a visitor."""

    def connections(self, slot: str) -> int:
        """Count the clients that the slot serves at this moment."""

    def notify(self, record: Mapping[str, Any]) -> None:
        """Tell the webhook, if there is one. Never raises: whoever listens must not decide about a deploy."""


class Host:
    """The real one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._services: Systemd | Supervisor = (
            Systemd(settings) if settings.service == "systemd" else Supervisor(settings)
        )
        self.start = self._services.start
        self.start_in_background = self._services.start_in_background
        self.stop = self._services.stop
        self.migrate = self._services.migrate
        self.running = self._services.running
        self.crashed = self._services.crashed
        self.logs = self._services.logs
        self.watch = self._services.watch
        self.retire = self._services.retire

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def utc_timestamp(self) -> str:
        return datetime.now(timezone.utc).isoformat(timespec="seconds")

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def boot_id(self) -> str:
        # The kernel's is not enough: a container that is started anew has the one of the machine under it.
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{kernel}.{start_time(1)}"

    def process(self) -> tuple[int, int]:
        return os.getpid(), start_time(os.getpid()) or 0

    def alive(self, pid: int, started: int) -> bool:
        return start_time(pid) == started

    def building(self) -> bool:
        """The module `release` holds this lock for as long as it builds, and its commands hold it with it."""
        try:
            descriptor = os.open(self._settings.base_dir / ".build.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def backup(self, name: str) -> None:
        program = self._settings.base_dir / "bin/panelctl"
        command = [str(program), "backup", "create", name, "--wait", str(_BACKUP_WAIT)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode not in (0, _PARTIAL):
            words = "\n".join((done.stdout + done.stderr).splitlines()[-_LINES:])
            raise UnhealthyError(f"the backup before the migration failed, so nothing is migrated:\n{words}")

    def uptime(self, slot: str) -> float | None:
        started = start_time(self._services.pid(slot))
        return None if started is None else self.now() - started / os.sysconf("SC_CLK_TCK")

    def ready(self, slot: str) -> Answer:
        return probe.get(self._connect(slot), self._settings.domain, probe.READY)

    def websocket(self, slot: str, path: str) -> Answer:
        return probe.websocket(self._connect(slot), self._settings.domain, path)

    def edge(self, path: str) -> Answer:
        settings = self._settings
        return probe.through_edge(settings.domain, settings.http_port, settings.https_port, path)

    def connections(self, slot: str) -> int:
        return count_connections(self._settings.slot_socket(slot))

    def notify(self, record: Mapping[str, Any]) -> None:
        if not self._settings.webhook:
            return
        body = json.dumps({"text": summary(record), **record}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "panelctl"}
        # The journal has it; an alert about a webhook that is down has to come from elsewhere.
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            url = self._settings.webhook_file.read_text(encoding="utf-8").strip()
            if url.startswith(("http://", "https://")):
                request = urllib.request.Request(url, body, headers)  # noqa: S310 (its scheme was looked at above)
                urllib.request.urlopen(request, timeout=_WEBHOOK_TIMEOUT).close()  # noqa: S310

    def _connect(self, slot: str) -> probe.Connect:
        settings = self._settings
        if settings.two_colours:
            return probe.unix(settings.slot_socket(slot))
        address = read_slot(settings.slot_dir(slot), settings.slot_env(slot)).address
        if address is None:
            raise TrafficError(f"{settings.slot_env(slot)} has no HOST and PORT; run site.yml to write it anew")
        return probe.tcp(*address)


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc_pid_stat(5), field 22); None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name, in parentheses, and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def summary(record: Mapping[str, Any]) -> str:
    """One line for a person."""
    target = record["target"]
    text = f"{record['kind']} of {target.get('release')} to {target.get('slot')}: {record['result']}"
    return f"{text} ({record['reason']})" if record.get("reason") else text
