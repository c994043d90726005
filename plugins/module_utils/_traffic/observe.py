# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Observe on the host which slot is live and what both slots hold. Nothing here is remembered."""

from __future__ import annotations

import hashlib
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from .errors import TrafficError

SLOTS = ("blue", "green")
_CONNECT_TIMEOUT = 2.0  # seconds; a local listener accepts at once or its backlog is full
_FINGERPRINT = re.compile(r"^# fingerprint: ([0-9a-f]{64})$", re.MULTILINE)
_VARIABLE = re.compile(r'^([A-Za-z_][A-Za-z0-9_]*)="(.*)"$', re.MULTILINE)
_CONNECTED = "03"  # state of a connected socket in /proc/net/unix


@dataclass(frozen=True)
class Slot:
    """One slot, as found on the host.

    :param release: the target of its release link.
    :param settings_release: the release in its settings file. It differs from `release` after a deploy that died
        between the two; the slot cannot be started then.
    :param address: host and port for probes.
    :param listening: whether it accepts connections.
    """

    release: str | None
    settings_release: str | None
    fingerprint: str | None
    address: tuple[str, int] | None
    listening: bool

    @property
    def startable(self) -> bool:
        """Whether the slot can be started: its link and its settings name the same release."""
        return self.release is not None and self.release == self.settings_release


@dataclass(frozen=True)
class Traffic:
    """Which slot is live, which slot is idle, and what both hold."""

    live: str | None
    idle: str
    slots: dict[str, Slot]
    service_digest: str | None


def observe(base_dir: Path, config_dir: Path, service_file: Path | None = None) -> Traffic:
    """Read the live link and both slots.

    :param service_file: the file that describes the service of the slots; its digest is returned.
    :raises TrafficError: the live link is not a link to a slot, or a settings file is unreadable.
    """
    live = live_slot(base_dir)
    service = _read(service_file) if service_file is not None else ""
    return Traffic(
        live=live,
        idle=other_slot(live or "green"),
        slots={name: read_slot(base_dir / "slots" / name, config_dir / f"{name}.env") for name in SLOTS},
        service_digest=hashlib.sha256(service.encode()).hexdigest() if service else None,
    )


def other_slot(slot: str) -> str:
    """Return the name of the other slot."""
    return "green" if slot == "blue" else "blue"


def live_slot(base_dir: Path) -> str | None:
    """Return the slot that the live link names; None where there is no link yet.

    :raises TrafficError: it is not a link to a slot.
    """
    link = base_dir / "live"
    try:
        target = link.readlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TrafficError(f"{link} is not a symlink ({error.strerror}); move it away, then run again") from error
    if target.parent.name != "slots" or target.name not in SLOTS:
        raise TrafficError(f"{link} points at {target}, which is not a slot; point it at slots/blue or slots/green")
    return target.name


def read_slot(folder: Path, settings_file: Path) -> Slot:
    """Read one slot.

    :raises TrafficError: its settings file is unreadable.
    """
    try:
        release = (folder / "release").readlink().name
    except OSError:
        release = None
    text = _read(settings_file)
    fingerprint = _FINGERPRINT.search(text)
    settings = _variables(text)
    port = settings.get("PORT", "")
    address = (settings["HOST"], int(port)) if "HOST" in settings and port.isdecimal() else None
    return Slot(
        release=release,
        settings_release=settings.get("AAPANEL_RELEASE"),
        fingerprint=fingerprint[1] if fingerprint else None,
        address=address,
        listening=_accepts(folder / "sock", address),
    )


def read_settings(settings_file: Path) -> dict[str, str]:
    """Return the settings in a slot's file, escapes included.

    :raises TrafficError: the file is unreadable.
    """
    return _variables(_read(settings_file))


def count_connections(sock: Path, table: Path = Path("/proc/net/unix")) -> int:
    """Count the open connections of a listening unix socket.

    An accepted socket has the path of its listening socket, unix(7). nginx closes each connection after its request,
    so each one is a pending request, a stream or a WebSocket.
    """
    count = 0
    for line in _read(table).splitlines()[1:]:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = line.split(maxsplit=7)
        count += fields[7:] == [str(sock)] and fields[5] == _CONNECTED
    return count


def _variables(text: str) -> dict[str, str]:
    return dict(_VARIABLE.findall(text))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise TrafficError(f"cannot read {file}: {error.strerror}; run as its owner or as root") from error


def _accepts(sock: Path, tcp: tuple[str, int] | None) -> bool:
    """Whether the unix socket for nginx accepts connections, or the TCP address where there is no nginx."""
    if sock.is_symlink():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_CONNECT_TIMEOUT)
            try:
                client.connect(str(sock))
            except OSError:
                # Also raised for a path that is too long for a socket, which connect_ex() does not return as a number.
                return False
            return True
    if tcp is None:
        return False
    try:
        # Connecting to "any address" connects to this machine, ip(7).
        socket.create_connection(tcp, timeout=_CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True
