# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What a slot runs under: systemd, or supervisord where there is none."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import TrafficError, UnhealthyError
from .settings import Settings

_LINES = 60  # of a slot's log that a message shows
_POLL = 0.1  # seconds
_CRASHES = 2  # starts by systemd itself that make a crash loop


class Systemd:
    """The units that the role systemd brings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._began: dict[str, float] = {}  # when this process started a slot, in seconds of the clock

    def start(self, slot: str) -> None:
        self._began[slot] = time.time()
        # A unit that died too often refuses to start until its failures are forgotten.
        run(["systemctl", "reset-failed", _unit(slot)])
        result = run(["systemctl", "restart", _unit(slot)])
        if result.returncode:
            raise UnhealthyError(f"slot {slot} did not start. Its last lines:\n{self.logs(slot)}")

    def start_in_background(self, slot: str) -> None:
        # Waiting would be for ever: this unit itself is what holds the others back.
        need(["systemctl", "--no-block", "start", _unit(slot)])

    def stop(self, slot: str) -> None:
        need(["systemctl", "stop", _unit(slot)])

    def migrate(self, slot: str) -> None:
        unit = f"aapanel-migrate@{slot}.service"
        run(["systemctl", "reset-failed", unit])
        if run(["systemctl", "start", unit]).returncode:
            raise UnhealthyError(f"the migration failed. Its last lines:\n{journal(unit)}")

    def running(self, slot: str) -> bool:
        return self._show(slot, "ActiveState") in ("active", "activating", "reloading")

    def pid(self, slot: str) -> int:
        return int(self._show(slot, "MainPID") or 0)

    def crashed(self, slot: str) -> bool:
        return self._show(slot, "ActiveState") == "failed" or int(self._show(slot, "NRestarts") or 0) >= _CRASHES

    def logs(self, slot: str) -> str:
        return journal(_unit(slot), self._began.get(slot))

    def watch(self, on: bool) -> None:
        need(["systemctl", "start" if on else "stop", "aapanel-settle.timer"])

    def retire(self, slot: str, wanted: bool) -> None:
        # Not waited for: it sleeps through the safety period.
        need(["systemctl", "--no-block", "restart" if wanted else "stop", f"aapanel-retire@{slot}.service"])

    def _show(self, slot: str, name: str) -> str:
        return need(["systemctl", "show", "--value", f"--property={name}", _unit(slot)]).strip()


class Supervisor:
    """supervisord of an ordinary user, with one slot that is started anew in its place."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = settings.config_dir / "supervisord.conf"
        self._control = [str(settings.supervisor_bin_dir / "supervisorctl"), "-c", str(self._config)]

    def start(self, slot: str) -> None:
        if run([*self._control, "pid"]).returncode:
            need([str(self._settings.supervisor_bin_dir / "supervisord"), "-c", str(self._config)])
            return
        need([*self._control, "update"])
        # Whoever stopped it may have been killed meanwhile. What stops cannot be started, and supervisord ends it.
        while "STOPPING" in self._status(slot):
            time.sleep(_POLL)
        if run([*self._control, "restart", f"aapanel-{slot}"]).returncode:
            raise UnhealthyError(f"slot {slot} did not start. Its last lines:\n{self.logs(slot)}")

    def start_in_background(self, slot: str) -> None:
        self.start(slot)

    def stop(self, slot: str) -> None:
        need([*self._control, "stop", f"aapanel-{slot}"])

    def migrate(self, slot: str) -> None:
        release = self._settings.slot_dir(slot) / "release"
        command = with_settings(
            [str(release / "venv/bin/python"), "-m", "aapanel_runtime", "migrate"], self._settings.slot_env(slot)
        )
        result = subprocess.run(
            command, cwd=release / "app", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if result.returncode:
            lines = (result.stdout + result.stderr).splitlines()[-_LINES:]
            raise UnhealthyError("the migration failed. Its last lines:\n" + "\n".join(lines))

    def running(self, slot: str) -> bool:
        return any(word in self._status(slot) for word in ("RUNNING", "STARTING", "BACKOFF"))

    def pid(self, slot: str) -> int:
        said = run([*self._control, "pid", f"aapanel-{slot}"]).stdout.strip()
        return int(said) if said.isdigit() else 0

    def crashed(self, slot: str) -> bool:
        return "FATAL" in self._status(slot)

    def logs(self, slot: str) -> str:
        return tail(self._settings.data_dir / "log" / f"aapanel-{slot}.log")

    def watch(self, on: bool) -> None:
        """Nothing looks here; the next command settles what it finds."""

    def retire(self, slot: str, wanted: bool) -> None:
        """There is one slot, and it is the live one."""

    def _status(self, slot: str) -> str:
        return run([*self._control, "status", f"aapanel-{slot}"]).stdout


def _unit(slot: str) -> str:
    return f"aapanel@{slot}.service"


def with_settings(command: Sequence[str], *files: Path) -> list[str]:
    """Return a command line that reads settings files as systemd would, where the last one wins, and then is *command*.

    :param command: a program and its arguments.
    """
    script = "set -a; " + '. "$1"; shift; ' * len(files) + 'exec "$@"'
    return ["/bin/sh", "-c", script, "sh", *map(str, files), *command]


def tail(file: Path) -> str:
    """Return the last lines of a log, or why it cannot be read."""
    try:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES:])
    except OSError as error:
        return f"({file}: {error.strerror})"


def journal(unit: str, began: float | None = None) -> str:
    """Return the last lines that a unit said since it was started last.

    :param began: when that was, in seconds of the clock, where this process did it.
    :raises TrafficError: there is no journal.
    """
    # Of this start alone: what an earlier release said has its own place in the journal.
    matches = [f"_SYSTEMD_UNIT={unit}", f"--lines={_LINES}"]
    if began is not None:
        # One that dies again and again has an invocation for each life, and the last one has said nothing yet. Beside
        # --since, --lines would mean the first ones.
        matches = [f"_SYSTEMD_UNIT={unit}", f"--since=@{began:.6f}"]
    elif invocation := run(["systemctl", "show", "--value", "--property=InvocationID", unit]).stdout.strip():
        matches[0] = f"_SYSTEMD_INVOCATION_ID={invocation}"
    said = run(["journalctl", "--no-pager", "--output=cat", *matches]).stdout
    return "\n".join(said.splitlines()[-_LINES:])


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command, whatever its status.

    :raises TrafficError: there is no such program.
    """
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise TrafficError(f"cannot run {command[0]}: {error.strerror}") from error


def need(command: Sequence[str]) -> str:
    """Run a command that has to succeed, and return what it printed.

    :raises TrafficError: it failed; with what it said.
    """
    result = run(command)
    if result.returncode:
        said = (result.stderr or result.stdout).strip()
        raise TrafficError(f"{shlex.join(command)} failed with status {result.returncode}: {said or 'it said nothing'}")
    return result.stdout
