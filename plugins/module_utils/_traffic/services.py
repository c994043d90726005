# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.
# pylint: disable=ansible-bad-function  # panelctl runs this too, without AnsibleModule

"""The services of the slots: systemd units, or one program under supervisord."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import TrafficError, UnhealthyError
from .settings import Settings

_LINES = 60  # lines of a log to show in a message
_POLL = 0.1  # seconds
_CRASHES = 2  # automatic restarts by systemd that count as a crash loop


class Systemd:
    """The slots as units of the role systemd."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._began: dict[str, float] = {}  # when this process started a slot, Unix time

    def start(self, slot: str) -> None:
        """Restart the slot's unit, even after a crash loop."""
        self._began[slot] = time.time()
        # A unit that died too often does not start until its failures are reset.
        run(["systemctl", "reset-failed", _unit(slot)])
        result = run(["systemctl", "restart", _unit(slot)])
        if result.returncode:
            raise UnhealthyError(f"slot {slot} did not start. End of its log:\n{self.logs(slot)}")

    def start_in_background(self, slot: str) -> None:
        """Start the slot's unit without waiting for it."""
        # Waiting would deadlock: the other units start after the unit that runs this.
        need(["systemctl", "--no-block", "start", _unit(slot)])

    def stop(self, slot: str) -> None:
        """Stop the slot's unit."""
        need(["systemctl", "stop", _unit(slot)])

    def migrate(self, slot: str) -> None:
        """Run the migrations of the slot's release in their unit."""
        unit = f"aapanel-migrate@{slot}.service"
        run(["systemctl", "reset-failed", unit])
        if run(["systemctl", "start", unit]).returncode:
            raise UnhealthyError(f"the migration failed. End of its log:\n{journal(unit)}")

    def running(self, slot: str) -> bool:
        """Return whether the slot's unit is active or starting."""
        return self._show(slot, "ActiveState") in ("active", "activating", "reloading")

    def pid(self, slot: str) -> int:
        """Return the slot's main process ID; 0 if there is none."""
        return int(self._show(slot, "MainPID") or 0)

    def crashed(self, slot: str) -> bool:
        """Return whether the slot's unit has failed or is in a crash loop."""
        return self._show(slot, "ActiveState") == "failed" or int(self._show(slot, "NRestarts") or 0) >= _CRASHES

    def logs(self, slot: str) -> str:
        """Return the last lines that the slot has logged."""
        return journal(_unit(slot), self._began.get(slot))

    def watch(self, on: bool) -> None:
        """Start or stop the timer that checks pending operations."""
        need(["systemctl", "start" if on else "stop", "aapanel-settle.timer"])

    def retire(self, slot: str, on: bool) -> None:
        """Start or stop the unit that retires the slot, without waiting for it."""
        # Without waiting: the unit runs for the whole safety period.
        need(["systemctl", "--no-block", "restart" if on else "stop", f"aapanel-retire@{slot}.service"])

    def _show(self, slot: str, name: str) -> str:
        return need(["systemctl", "show", "--value", f"--property={name}", _unit(slot)]).strip()


class Supervisor:
    """One slot under the supervisord of an unprivileged user; a deploy restarts it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = settings.config_dir / "supervisord.conf"
        self._control = [str(settings.supervisor_bin_dir / "supervisorctl"), "-c", str(self._config)]

    def start(self, slot: str) -> None:
        """Restart the slot's program, and supervisord if it does not run."""
        if run([*self._control, "pid"]).returncode:
            need([str(self._settings.supervisor_bin_dir / "supervisord"), "-c", str(self._config)])
            return
        need([*self._control, "update"])
        # The process that stopped the slot may have been killed. A stopping program cannot be started yet.
        while "STOPPING" in self._status(slot):
            time.sleep(_POLL)
        if run([*self._control, "restart", f"aapanel-{slot}"]).returncode:
            raise UnhealthyError(f"slot {slot} did not start. End of its log:\n{self.logs(slot)}")

    def start_in_background(self, slot: str) -> None:
        """Start the slot."""
        self.start(slot)

    def stop(self, slot: str) -> None:
        """Stop the slot's program."""
        need([*self._control, "stop", f"aapanel-{slot}"])

    def migrate(self, slot: str) -> None:
        """Run the migrations of the slot's release."""
        release = self._settings.slot_dir(slot) / "release"
        command = with_settings(
            [str(release / "venv/bin/python"), "-m", "aapanel_runtime", "migrate"], self._settings.slot_env(slot)
        )
        result = subprocess.run(
            command, cwd=release / "app", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if result.returncode:
            lines = (result.stdout + result.stderr).splitlines()[-_LINES:]
            raise UnhealthyError("the migration failed. End of its log:\n" + "\n".join(lines))

    def running(self, slot: str) -> bool:
        """Return whether the slot's program runs or starts."""
        return any(word in self._status(slot) for word in ("RUNNING", "STARTING", "BACKOFF"))

    def pid(self, slot: str) -> int:
        """Return the slot's process ID; 0 if there is none."""
        pid = run([*self._control, "pid", f"aapanel-{slot}"]).stdout.strip()
        return int(pid) if pid.isdigit() else 0

    def crashed(self, slot: str) -> bool:
        """Return whether supervisord has given up on the slot's program."""
        return "FATAL" in self._status(slot)

    def logs(self, slot: str) -> str:
        """Return the last lines that the slot has logged."""
        return tail(self._settings.data_dir / "log" / f"aapanel-{slot}.log")

    def watch(self, on: bool) -> None:
        """Do nothing: there is no timer, the next command settles."""

    def retire(self, slot: str, on: bool) -> None:
        """Do nothing: the only slot is live."""

    def _status(self, slot: str) -> str:
        return run([*self._control, "status", f"aapanel-{slot}"]).stdout


def _unit(slot: str) -> str:
    return f"aapanel@{slot}.service"


def with_settings(command: Sequence[str], *files: Path) -> list[str]:
    """Return a command line that loads settings files as systemd would and then executes *command*.

    :param files: a later file overrides an earlier one.
    """
    script = "set -a; " + '. "$1"; shift; ' * len(files) + 'exec "$@"'
    return ["/bin/sh", "-c", script, "sh", *map(str, files), *command]


def tail(file: Path) -> str:
    """Return the end of a log, or why it is unreadable."""
    try:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES:])
    except OSError as error:
        return f"({file}: {error.strerror})"


def journal(unit: str, began: float | None = None) -> str:
    """Return the end of a unit's log since its last start.

    :param began: Unix time of that start, if this process started it.
    :raises TrafficError: there is no journal.
    """
    matches = [f"_SYSTEMD_UNIT={unit}", f"--lines={_LINES}"]
    if began is not None:
        # A unit in a crash loop has one invocation per start, and the last one has logged nothing yet. With --since,
        # --lines would select the first lines.
        matches = [f"_SYSTEMD_UNIT={unit}", f"--since=@{began:.6f}"]
    elif invocation := run(["systemctl", "show", "--value", "--property=InvocationID", unit]).stdout.strip():
        matches[0] = f"_SYSTEMD_INVOCATION_ID={invocation}"
    output = run(["journalctl", "--no-pager", "--output=cat", *matches]).stdout
    return "\n".join(output.splitlines()[-_LINES:])


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command and return its result, whatever its status.

    :raises TrafficError: the program is missing.
    """
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise TrafficError(f"cannot run {command[0]}: {error.strerror}") from error


def need(command: Sequence[str]) -> str:
    """Run a command that must succeed, and return its output.

    :raises TrafficError: it failed; with its output.
    """
    result = run(command)
    if result.returncode:
        output = (result.stderr or result.stdout).strip() or "no output"
        raise TrafficError(f"{shlex.join(command)} failed with status {result.returncode}: {output}")
    return result.stdout
