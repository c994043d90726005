# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.
# pylint: disable=ansible-bad-function  # panelctl runs this too, without AnsibleModule

"""The interface between the state machine and the host, and its implementation."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from .._host import exit_codes
from . import probe
from .errors import TrafficError, UnhealthyError
from .observe import count_connections, read_slot
from .probe import Answer
from .services import Supervisor, Systemd
from .settings import Settings

_WEBHOOK_TIMEOUT = 5.0  # seconds
_BACKUP_WAIT = 300  # seconds to wait for another backup
_LINES = 20  # lines of the output of panelctl to show in a message


class Machine(Protocol):
    """Everything outside of this package: processes, clocks, services and requests."""

    def now(self) -> float:
        """Return the seconds since boot, including suspend; independent of the system clock."""

    def utc_timestamp(self) -> str:
        """Return the current time in UTC, in ISO 8601."""

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""

    def boot_id(self) -> str:
        """Return an ID of this boot of the machine or container; random(4)."""

    def process(self) -> tuple[int, int]:
        """Return the pid and the start time of this process."""

    def alive(self, pid: int, started: int) -> bool:
        """Whether this very process still runs, rather than another one with its pid."""

    def building(self) -> bool:
        """Whether a build is running."""

    def start(self, slot: str) -> None:
        """Start or restart a slot.

        :raises UnhealthyError: it dies at once; with the end of its log.
        """

    def start_in_background(self, slot: str) -> None:
        """Start a slot at boot without waiting for it."""

    def stop(self, slot: str) -> None:
        """Let a slot finish its requests, then stop it."""

    def backup(self, name: str) -> None:
        """Create a backup of a backup set.

        :raises UnhealthyError: it failed; with the output of panelctl.
        """

    def migrate(self, slot: str) -> None:
        """Migrate the database with the slot's release.

        :raises UnhealthyError: it failed; with the output of the migration.
        """

    def running(self, slot: str) -> bool:
        """Whether the slot's service runs, healthy or not."""

    def uptime(self, slot: str) -> float | None:
        """Return the seconds since the slot's service started; None if it does not run."""

    def crashed(self, slot: str) -> bool:
        """Whether the slot's service failed or is in a crash loop."""

    def logs(self, slot: str) -> str:
        """Return the end of the slot's log."""

    def watch(self, on: bool) -> None:
        """Start or stop the timer that settles an operation whose owner died."""

    def retire(self, slot: str, on: bool) -> None:
        """Start or cancel the retirement of a slot; see `unattended.retire`."""

    def ready(self, slot: str) -> Answer:
        """Request the readiness of a slot directly."""

    def websocket(self, slot: str, path: str) -> Answer:
        """Open a WebSocket to a slot directly."""

    def edge(self, path: str) -> Answer:
        """Request a page through nginx, as a visitor."""

    def connections(self, slot: str) -> int:
        """Count the open connections of a slot."""

    def notify(self, record: Mapping[str, Any]) -> None:
        """Notify the webhook, if there is one. Never raises: a broken webhook must not fail a deploy."""


class Host:
    """The real host."""

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
        """Return the seconds since boot, including suspend."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def utc_timestamp(self) -> str:
        """Return the current time in UTC, in ISO 8601."""
        return datetime.now(timezone.utc).isoformat(timespec="seconds")

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        time.sleep(seconds)

    def boot_id(self) -> str:
        """Return an ID of this boot of the machine or container."""
        # The kernel's ID is not enough: a restarted container keeps the ID of its machine.
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{kernel}.{start_time(1)}"

    def process(self) -> tuple[int, int]:
        """Return the ID and the start time of this process."""
        return os.getpid(), start_time(os.getpid()) or 0

    def alive(self, pid: int, started: int) -> bool:
        """Return whether a process with this ID and start time exists."""
        return start_time(pid) == started

    def building(self) -> bool:
        """Whether the module `release`, or a command that it started, holds the build lock."""
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
        """Create a backup before a migration."""
        program = self._settings.base_dir / "bin/panelctl"
        command = [str(program), "backup", "create", name, "--wait", str(_BACKUP_WAIT)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode not in (exit_codes.SUCCESS, exit_codes.UNHEALTHY):
            output = "\n".join((done.stdout + done.stderr).splitlines()[-_LINES:])
            raise UnhealthyError(f"the backup before the migration failed, so nothing is migrated:\n{output}")

    def uptime(self, slot: str) -> float | None:
        """Return the seconds since the slot's process started; None if it does not run."""
        started = start_time(self._services.pid(slot))
        return None if started is None else self.now() - started / os.sysconf("SC_CLK_TCK")

    def ready(self, slot: str) -> Answer:
        """Request the slot's readiness on its own socket."""
        return probe.get(self._connect(slot), self._settings.domain, probe.READY)

    def websocket(self, slot: str, path: str) -> Answer:
        """Open a WebSocket on the slot's own socket."""
        return probe.websocket(self._connect(slot), self._settings.domain, path)

    def edge(self, path: str) -> Answer:
        """Request a path through nginx."""
        settings = self._settings
        return probe.through_edge(settings.domain, settings.http_port, settings.https_port, path)

    def connections(self, slot: str) -> int:
        """Return the number of open connections of the slot."""
        return count_connections(self._settings.slot_socket(slot))

    def notify(self, record: Mapping[str, Any]) -> None:
        """Send a finished operation to the webhook, if one is set; ignores failures."""
        if not self._settings.webhook:
            return
        # Only a webhook needs it, and it is slow to import.
        import urllib.request  # noqa: PLC0415

        body = json.dumps({"text": summary(record), **record}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "panelctl"}
        # The history has the record; monitor the webhook itself with another tool.
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            url = self._settings.webhook_file.read_text(encoding="utf-8").strip()
            if url.startswith(("http://", "https://")):
                request = urllib.request.Request(url, body, headers)  # noqa: S310 (the scheme is checked above)
                urllib.request.build_opener().open(request, timeout=_WEBHOOK_TIMEOUT).close()

    def _connect(self, slot: str) -> probe.Connect:
        settings = self._settings
        if settings.two_colours:
            return probe.unix(settings.slot_socket(slot))
        address = read_slot(settings.slot_dir(slot), settings.slot_env(slot)).address
        if address is None:
            raise TrafficError(f"{settings.slot_env(slot)} has no HOST and PORT; run site.yml to recreate it")
        return probe.tcp(*address)


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (proc_pid_stat(5), field 22); None without a process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses, and may contain any character.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def summary(record: Mapping[str, Any]) -> str:
    """Return one line for the webhook's `text`."""
    target = record["target"]
    text = f"{record['kind']} of {target.get('release')} to {target.get('slot')}: {record['result']}"
    return f"{text} ({record['reason']})" if record.get("reason") else text
