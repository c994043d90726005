# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The live release once more beside itself, on data that a drill has restored; nobody but the drill can reach it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from .. import _durable
from . import probe
from .errors import TrafficError, UnhealthyError
from .observe import live_slot, look_at
from .services import Systemd
from .settings import Settings

_POLL = 0.25  # seconds between two looks
_LINE = re.compile(r'^([A-Z_]+)="(.*)"$', re.MULTILINE)


def rehearse(settings: Settings, databases: Mapping[str, str]) -> str:
    """Start the live release on restored data, ask for its health, and stop it again.

    :param databases: for each database of the server the one that was restored.
    :returns: why it was not asked, where this host cannot; empty where it is healthy.
    :raises UnhealthyError: it does not become healthy; with its last lines.
    """
    live = live_slot(settings.base_dir)
    if live is None:
        return "nothing is live yet"
    if settings.service != "systemd":
        return "without systemd it would write into what the panel uses"
    folder = settings.rehearsal_dir
    if not folder.is_dir():
        raise TrafficError(f"{folder} is not there; `systemd-tmpfiles --create` makes it, and so does site.yml")
    given = overrides(settings.slot_env(live).read_text(encoding="utf-8"), databases, folder, _free_port())
    _durable.write(folder / "env", "".join(f'{name}="{value}"\n' for name, value in given.items()))
    services = Systemd(settings)
    try:
        services.start_rehearsal(live)
        _wait_healthy(settings, live, services)
    finally:
        services.stop_rehearsal(live)
        (folder / "env").unlink(missing_ok=True)
    return ""


def overrides(env: str, databases: Mapping[str, str], folder: Path, port: int) -> dict[str, str]:
    """Return the settings that are others than those of the slot.

    :param env: the settings file of the slot.
    :raises TrafficError: its database would be the one that the panel uses.
    """
    settings = dict(_LINE.findall(env))
    given = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "AAPANEL_SOCKET": str(folder / "sock"),
        "AAPANEL_METRICS_DIR": str(folder / "metrics"),
        "AAPANEL_WORKERS": "1",
        # What waits there is for the panel that serves, and would be done twice.
        "REDIS_URL": "",
    }
    used = {name: settings[name] for name in ("DATABASE_URL", "DB_NAME") if settings.get(name)}
    for name, value in used.items():
        base, _, database = value.rpartition("/")
        if value.startswith("sqlite:"):
            continue
        if database not in databases:
            raise TrafficError(
                f"{name} in the settings of the panel names no database that was restored: it would be the present one"
            )
        given[name] = f"{base}/{databases[database]}" if base else databases[database]
    return given


def _wait_healthy(settings: Settings, slot: str, services: Systemd) -> None:
    wanted = look_at(settings.slot_dir(slot), settings.slot_env(slot)).release
    deadline = time.monotonic() + settings.healthy_timeout
    while True:
        answer = probe.get(probe.unix(settings.rehearsal_dir / "sock"), settings.domain, probe.READY)
        if answer.ok and answer.release == wanted:
            return
        if time.monotonic() >= deadline:
            raise UnhealthyError(
                f"on what was restored the panel was not healthy within {settings.healthy_timeout:g} s. Last answer of "
                f"{probe.READY}: {answer}\nIts last lines:\n{services.rehearsal_logs(slot)}"
            )
        time.sleep(_POLL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
