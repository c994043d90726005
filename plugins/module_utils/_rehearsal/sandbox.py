# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Where a release runs on restored data: it finds that in the place of the present, which it cannot reach."""

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


class Stage(Protocol):
    """A place for one start."""

    folder: Path  # with its socket, `sock`

    def why_not(self) -> str:
        """Say why it would not be safe to start it here; empty where it is."""

    def start(self, given: Mapping[str, str], servers: Sequence[Server]) -> None:
        """Start it.

        :param given: settings that are others than those of the slot.
        :param servers: what it may reach nevertheless.
        :raises UnhealthyError: it does not start; with its last lines.
        :raises TrafficError: something that it needs is not there.
        :raises OSError: a file of it cannot be written, or it cannot be confined.
        """

    def running(self) -> bool:
        """Whether it has not ended."""

    def stop(self) -> None:
        """Stop it, and leave nothing of it."""

    def logs(self) -> str:
        """The last lines that it said."""


def write_env(folder: Path, given: Mapping[str, str]) -> Path:
    """Write settings down as systemd and shells read them; escapes are in them already."""
    file = folder / "env"
    durable.write(file, "".join(f'{name}="{value}"\n' for name, value in given.items()))
    return file


class Unit:
    """The unit that the role systemd brings: another data folder by mounts, and no way to other machines."""

    def __init__(self, settings: Settings, slot: str) -> None:
        self.folder = settings.rehearsal_dir
        self._unit = _name(slot)

    def why_not(self) -> str:
        return ""

    def start(self, given: Mapping[str, str], servers: Sequence[Server]) -> None:
        if not self.folder.is_dir():
            raise TrafficError(
                f"{self.folder} is not there; `systemd-tmpfiles --create` makes it, and so does site.yml"
            )
        # Of a drill that was killed.
        run(["systemctl", "stop", *map(_name, SLOTS)])
        found = {server.host: _addresses(server.host) for server in servers}
        # It cannot ask for names; these may change from drill to drill.
        names = [f"{address} {host}\n" for host, known in found.items() for address in known if address != host]
        durable.write(self.folder / "hosts", _HOSTS.read_text(encoding="utf-8") + "".join(names), 0o644)
        write_env(self.folder, given)
        allowed = ["localhost", *(address for known in found.values() for address in known)]
        # The empty one forgets those of the last drill.
        need(["systemctl", "set-property", "--runtime", self._unit, *(f"IPAddressAllow={a}" for a in ("", *allowed))])
        run(["systemctl", "reset-failed", self._unit])
        if run(["systemctl", "restart", self._unit]).returncode:
            raise UnhealthyError(f"the panel did not start on it. Its last lines:\n{self.logs()}")

    def running(self) -> bool:
        return run(["systemctl", "is-active", "--quiet", self._unit]).returncode == 0

    def stop(self) -> None:
        need(["systemctl", "stop", self._unit])
        for name in ("env", "hosts"):
            (self.folder / name).unlink(missing_ok=True)

    def logs(self) -> str:
        return journal(self._unit)


def _name(slot: str) -> str:
    return f"aapanel-drill-app@{slot}.service"


def _addresses(host: str) -> list[str]:
    """Return the addresses of a host; none for a unix socket."""
    if host.startswith("/"):
        return []
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TrafficError(f"{host}, where the panel has its database, has no address: {error.strerror}") from error
    # Without the scope of a link-local one.
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))
