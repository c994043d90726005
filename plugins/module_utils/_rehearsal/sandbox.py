# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Run a release on restored data, which has the paths of the live data. The live data is out of reach."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from .._host import durable
from .._traffic.errors import TrafficError, UnhealthyError
from .._traffic.observe import SLOTS
from .._traffic.services import journal, need, run
from .._traffic.settings import Settings
from .databases import Server

_HOSTS = Path("/etc/hosts")


class Sandbox(Protocol):
    """A release on restored data, for one start."""

    folder: Path  # with its socket, `sock`

    def unsafe_reason(self) -> str:
        """Return why a start would not be safe on this host; empty if it is safe."""

    def start(self, overrides: Mapping[str, str], servers: Sequence[Server]) -> None:
        """Start the release.

        :param overrides: settings that differ from those of the slot.
        :param servers: servers that it may connect to.
        :raises UnhealthyError: it does not start; with the end of its log.
        :raises TrafficError: a requirement is missing.
        :raises OSError: a file cannot be written, or the process cannot be confined.
        """

    def running(self) -> bool:
        """Whether the release still runs."""

    def stop(self) -> None:
        """Stop the release, and remove its files."""

    def logs(self) -> str:
        """Return the end of its log."""


def write_env(folder: Path, settings: Mapping[str, str]) -> Path:
    """Write a settings file for systemd and shells; the values are escaped already."""
    file = folder / "env"
    durable.write(file, "".join(f'{name}="{value}"\n' for name, value in settings.items()))
    return file


class UnitSandbox:
    """A unit of the role systemd: restored data by mounts, and no access to other machines."""

    def __init__(self, settings: Settings, slot: str) -> None:
        self.folder = settings.rehearsal_dir
        self._unit = _name(slot)

    def unsafe_reason(self) -> str:
        """Return an empty text: a unit can always be used."""
        return ""

    def start(self, overrides: Mapping[str, str], servers: Sequence[Server]) -> None:
        """Start the app's unit with the given settings and access to the given database servers only."""
        if not self.folder.is_dir():
            raise TrafficError(f"{self.folder} is missing; create it with `systemd-tmpfiles --create` or site.yml")
        # Leftovers of a killed drill.
        run(["systemctl", "stop", *map(_name, SLOTS)])
        found = {server.host: _addresses(server.host) for server in servers}
        # The unit has no DNS; the addresses may change between drills.
        names = [f"{address} {host}\n" for host, known in found.items() for address in known if address != host]
        durable.write(self.folder / "hosts", _HOSTS.read_text(encoding="utf-8") + "".join(names), 0o644)
        write_env(self.folder, overrides)
        allowed = ["localhost", *(address for known in found.values() for address in known)]
        # The empty value resets the addresses of the last drill.
        need(["systemctl", "set-property", "--runtime", self._unit, *(f"IPAddressAllow={a}" for a in ("", *allowed))])
        run(["systemctl", "reset-failed", self._unit])
        if run(["systemctl", "restart", self._unit]).returncode:
            raise UnhealthyError(f"the panel did not start on the restored data. End of its log:\n{self.logs()}")

    def running(self) -> bool:
        """Return whether the unit is active."""
        return run(["systemctl", "is-active", "--quiet", self._unit]).returncode == 0

    def stop(self) -> None:
        """Stop the unit, and remove its settings."""
        need(["systemctl", "stop", self._unit])
        for name in ("env", "hosts"):
            (self.folder / name).unlink(missing_ok=True)

    def logs(self) -> str:
        """Return the last lines that the unit has logged."""
        return journal(self._unit)


def _name(slot: str) -> str:
    return f"aapanel-drill-app@{slot}.service"


def _addresses(host: str) -> list[str]:
    """Return the addresses of a host; an empty list for a unix socket.

    :raises TrafficError: the host has no address.
    """
    if host.startswith("/"):
        return []
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TrafficError(f"the database server {host} has no address: {error.strerror}") from error
    # Without the scope of a link-local address.
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_other, address in found))
