# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Which slot serves what: observed on the host, never remembered."""

from __future__ import annotations

import hashlib
import re
import socket
from dataclasses import dataclass
from pathlib import Path

SLOTS = ("blue", "green")
_CONNECT_TIMEOUT = 2.0  # seconds; a local listener accepts at once or its backlog is full
_FINGERPRINT = re.compile(r"^# fingerprint: ([0-9a-f]{64})$", re.MULTILINE)
_HOST = re.compile(r'^HOST="([^"]+)"$', re.MULTILINE)
_PORT = re.compile(r'^PORT="(\d+)"$', re.MULTILINE)


class TrafficError(Exception):
    """Anything the operator can act on; the module turns it into fail_json."""


@dataclass(frozen=True)
class Slot:
    """One colour: the release that it holds, what its settings were made of, and whether it accepts connections."""

    release: str | None
    fingerprint: str | None
    listening: bool


@dataclass(frozen=True)
class Traffic:
    """Which slot is live, which one is free for the next release, and what both hold."""

    live: str | None
    idle: str
    slots: dict[str, Slot]
    service_digest: str | None


def observe(base_dir: Path, config_dir: Path, service_file: Path | None = None) -> Traffic:
    """Look at the live link, at both slots and, if told where it is, at the file that describes their service.

    Raises:
        TrafficError: the live link is something else than a link to a slot, or a settings file cannot be read.
    """
    live = live_slot(base_dir)
    service = _read(service_file) if service_file is not None else ""
    return Traffic(
        live=live,
        idle="green" if live == "blue" else "blue",
        slots={name: _slot(base_dir / "slots" / name, config_dir / f"{name}.env") for name in SLOTS},
        service_digest=hashlib.sha256(service.encode()).hexdigest() if service else None,
    )


def live_slot(base_dir: Path) -> str | None:
    """Name the slot that the live link points at; None where there is no link yet.

    Raises:
        TrafficError: what stands there is not a link to a slot.
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


def _slot(folder: Path, settings_file: Path) -> Slot:
    try:
        release = (folder / "release").readlink().name
    except OSError:
        release = None
    settings = _read(settings_file)
    fingerprint = _FINGERPRINT.search(settings)
    host = _HOST.search(settings)
    port = _PORT.search(settings)
    return Slot(
        release=release,
        fingerprint=fingerprint[1] if fingerprint else None,
        listening=_accepts(folder / "sock", (host[1], int(port[1])) if host and port else None),
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise TrafficError(f"cannot read {file}: {error.strerror}; run as its owner or as root") from error


def _accepts(sock: Path, tcp: tuple[str, int] | None) -> bool:
    """Ask the unix socket that nginx would use; where the slot has none (no nginx), its TCP address."""
    if sock.is_symlink():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_CONNECT_TIMEOUT)
            return client.connect_ex(str(sock)) == 0
    if tcp is None:
        return False
    try:
        # To connect to "any address" is to connect to this machine, ip(7).
        socket.create_connection(tcp, timeout=_CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True
