# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.
# pylint: disable=ansible-bad-function  # panelctl runs this too, without AnsibleModule

"""Run a release on restored data without systemd and without root: a copy of the app, confined by the kernel."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .._host import durable
from .._traffic.observe import read_settings
from .._traffic.services import tail, with_settings
from .._traffic.settings import Settings
from . import landlock
from .databases import Server
from .sandbox import write_env

_STOP_SECONDS = 10
_GUNICORN = ["-m", "gunicorn", "--config", "python:aapanel_runtime.gunicorn_config", "aapanel_runtime.wsgi:application"]


class ProcessSandbox:
    """A child process that dies with this process, for an unprivileged user who cannot mount."""

    def __init__(self, settings: Settings, slot: str) -> None:
        self.folder = settings.rehearsal_dir
        self._settings = settings
        self._release = settings.slot_dir(slot) / "release"
        self._env = settings.slot_env(slot)
        self._app = settings.restored_dir / "app"
        self._restored = settings.restored_dir / "files/data"
        self._process: subprocess.Popen[bytes] | None = None

    def unsafe_reason(self) -> str:
        """Return why the sandbox cannot be used; empty if it can."""
        try:
            landlock.version()
        except OSError as error:
            return f"it could reach the live data: this host has neither systemd nor Landlock ({error.strerror})"
        return ""

    def start(self, overrides: Mapping[str, str], servers: Sequence[Server]) -> None:
        """Start the app with the given settings, confined to copies of the data."""
        # Leftovers of a killed drill.
        shutil.rmtree(self.folder, ignore_errors=True)
        durable.make(self.folder)
        env = write_env(self.folder, self._moved(overrides))
        self._copy()
        confinement = self._confine([int(overrides["PORT"])], [server.port for server in servers])
        command = [str(self._release / "venv/bin/python"), *_GUNICORN]
        try:
            with (self.folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    with_settings(command, self._env, env),
                    cwd=self._app,
                    env={**os.environ, "TMPDIR": str(self.folder)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=confinement.enter,  # noqa: PLW1509 (there are no threads here)
                )
        finally:
            confinement.close()

    def running(self) -> bool:
        """Return whether the app runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop the app with its children, and remove its folder."""
        # The copy of the app is removed with the restored data.
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            # Also kill the processes that the app started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self) -> str:
        """Return the last lines of the app's log."""
        return tail(self.folder / "log")

    def _confine(self, listens: Sequence[int], connects: Sequence[int]) -> landlock.Confinement:
        # gunicorn keeps its heartbeat files in /dev/shm.
        writable = [self._restored, self._app, self.folder, Path("/dev/null"), Path("/dev/shm")]  # noqa: S108
        return landlock.Confinement(self._settings.shared_dir.resolve(), writable, listens, connects)

    def _copy(self) -> None:
        """Copy the app, with its links pointing to the restored data."""
        # Leftovers of an earlier rehearsal of the same data.
        shutil.rmtree(self._app, ignore_errors=True)
        shutil.copytree(self._release / "app", self._app, symlinks=True)
        for folder, folders, files in os.walk(self._app):
            for place in (Path(folder, name) for name in (*folders, *files)):
                if place.is_symlink() and (target := self._move(str(place.readlink()))) != str(place.readlink()):
                    place.unlink()
                    place.symlink_to(target)

    def _moved(self, overrides: Mapping[str, str]) -> dict[str, str]:
        """Return the overrides, and the settings with paths of the live data or the app, moved to the copies."""
        settings = read_settings(self._env)
        moved = {name: self._move(value) for name, value in settings.items()}
        return {name: value for name, value in moved.items() if value != settings[name]} | dict(overrides)

    def _move(self, text: str) -> str:
        """Replace the paths of the live data and of the app in a text by those of the copies."""
        for path, copy in ((self._settings.shared_dir, self._restored), (self._release / "app", self._app)):
            text = re.sub(rf"{re.escape(str(path))}(?=/|$)", str(copy).replace("\\", r"\\"), text)
        return text
