# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# More than any file read here holds; a pipe or a runaway pseudo file must not be read without end.
_READ_LIMIT = 1 << 20
_PING_TIMEOUT_SECONDS = 1.0


class DetectionError(Exception):
    """An override that cannot be obeyed; the message names it, its value and the allowed ones."""


def docker_engine_answers(path: str) -> bool:
    """Whether a Docker-compatible engine answers ``GET /_ping`` on the unix socket *path* within a second.

    Source: Docker Engine API, "Ping". Never raises: a missing, foreign or forbidden socket is "no".
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
    """Read-only view of one machine: its files below *root* and the environment of the asking process.

    Nothing here raises: what is missing and what may not be read are both "unknown", because detection
    has to give an answer as an ordinary user on a machine nobody prepared.
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
        """*path* (absolute, as the machine itself names it) below the root of this view."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str | None:
        """The stripped text of a file, or None when it is missing, empty or unreadable."""
        try:
            with self.path(path).open("rb") as stream:
                text = stream.read(_READ_LIMIT).decode("utf-8", "replace").strip()
        except (OSError, ValueError):
            return None
        return text or None

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a file of any length, without their ends; none when it is missing or unreadable."""
        try:
            with self.path(path).open(encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    yield line.rstrip("\n")
        except (OSError, ValueError):
            return

    def age(self, path: str) -> float | None:
        """Seconds since a file or folder was last written, or None when it is missing."""
        try:
            return time.time() - self.path(path).stat().st_mtime
        except OSError:
            return None

    def first(self, *paths: str) -> str | None:
        """The first of *paths* that exists, or None."""
        return next((path for path in paths if self._stat(path, Path.exists)), None)

    def names(self, path: str) -> list[str]:
        """The sorted names in a folder; empty when it is missing or unreadable."""
        try:
            return sorted(entry.name for entry in self.path(path).iterdir())
        except OSError:
            return []

    def link(self, path: str) -> str | None:
        """What a symbolic link points at, or None."""
        try:
            return str(self.path(path).readlink())
        except OSError:
            return None

    def is_dir(self, path: str) -> bool:
        """Whether *path* is a folder."""
        return self._stat(path, Path.is_dir)

    def status(self, field: str) -> str | None:
        """One field of ``/proc/self/status`` (see proc_pid_status(5)), or None."""
        for line in (self.read("/proc/self/status") or "").splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return value.strip()
        return None

    def engine_answers(self, path: str) -> bool:
        """Whether a container engine answers on the unix socket *path*."""
        return self._engine_answers(str(self.path(path)))

    def _stat(self, path: str, question: Callable[[Path], bool]) -> bool:
        # pathlib raises where a folder on the way may not be searched.
        try:
            return question(self.path(path))
        except OSError:
            return False
