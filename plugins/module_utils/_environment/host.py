# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read files and state of a machine, without raising."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# Larger than any file that is read here; limits the read of a pipe or an endless pseudo file.
_READ_LIMIT = 1 << 20
_PING_TIMEOUT_SECONDS = 1.0


class DetectionError(Exception):
    """Invalid override; the message names it, its value and the valid values."""


def docker_engine_answers(path: str) -> bool:
    """Return whether a Docker-compatible engine answers ``GET /_ping`` on a Unix socket within a second.

    Source: Docker Engine API, "Ping". Never raises: returns False for a missing, foreign or forbidden socket.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_PING_TIMEOUT_SECONDS)
            client.connect(path)
            client.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in client.recv(64)
    except (OSError, ValueError):
        return False


class Host:
    """Read-only view of a machine: its files and the environment of this process.

    No method raises: missing and unreadable files are both "unknown", because detection must work without root on any
    machine.

    :param root: root of the file tree.
    :param env: environment; that of this process by default.
    :param engine_answers: checks the socket of a container engine.
    """

    def __init__(
        self,
        root: str | Path = "/",
        env: Mapping[str, str] | None = None,
        engine_answers: Callable[[str], bool] = docker_engine_answers,
    ) -> None:
        self.root = Path(root)
        self.env: Mapping[str, str] = os.environ if env is None else env
        self._engine_answers = engine_answers

    def path(self, path: str) -> Path:
        """Return an absolute path of the machine as a path below the root of this view."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str | None:
        """Return the stripped text of a file, or None if it is missing, empty or unreadable."""
        try:
            with self.path(path).open("rb") as stream:
                text = stream.read(_READ_LIMIT).decode("utf-8", "replace").strip()
        except (OSError, ValueError):
            return None
        return text or None

    def lines(self, path: str) -> Iterator[str]:
        """Yield the lines of a file of any size, without line ends; nothing if it is missing or unreadable."""
        try:
            with self.path(path).open(encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    yield line.rstrip("\n")
        except (OSError, ValueError):
            return

    def age(self, path: str) -> float | None:
        """Return the seconds since a file or folder was last modified, or None if it is missing."""
        try:
            return time.time() - self.path(path).stat().st_mtime
        except OSError:
            return None

    def first(self, *paths: str) -> str | None:
        """Return the first path that exists, or None."""
        return next((path for path in paths if self._stat(path, Path.exists)), None)

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder; empty if it is missing or unreadable."""
        try:
            return sorted(entry.name for entry in self.path(path).iterdir())
        except OSError:
            return []

    def link(self, path: str) -> str | None:
        """Return the target of a symbolic link, or None."""
        try:
            return str(self.path(path).readlink())
        except OSError:
            return None

    def is_dir(self, path: str) -> bool:
        """Return whether a path is a folder."""
        return self._stat(path, Path.is_dir)

    def status(self, field: str) -> str | None:
        """Return a field of ``/proc/self/status`` (proc_pid_status(5)), or None."""
        for line in (self.read("/proc/self/status") or "").splitlines():
            name, _colon, value = line.partition(":")
            if name == field:
                return value.strip()
        return None

    def engine_answers(self, path: str) -> bool:
        """Return whether a container engine answers on a Unix socket."""
        return self._engine_answers(str(self.path(path)))

    def _stat(self, path: str, test: Callable[[Path], bool]) -> bool:
        # pathlib raises if a parent folder cannot be searched.
        try:
            return test(self.path(path))
        except OSError:
            return False
