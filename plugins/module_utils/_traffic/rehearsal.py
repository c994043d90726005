# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The live release once more beside itself, on data that a drill has restored; nobody but the drill can reach it."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from . import probe
from .errors import TrafficError, UnhealthyError
from .observe import live_slot, look_at, read_settings
from .settings import Settings
from .stages import Server, Stage, Unit

_POLL = 0.25  # seconds between two looks
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


def rehearse(settings: Settings, databases: Mapping[str, str]) -> str:
    """Start the live release on restored data, ask for its health, and stop it again.

    :param databases: for each database of the server the one that was restored.
    :returns: why it was not asked, where this host cannot; empty where it is healthy.
    :raises UnhealthyError: it does not become healthy; with its last lines.
    """
    live = live_slot(settings.base_dir)
    if live is None:
        return "nothing is live yet"
    if not settings.restored_dir.is_dir():
        raise TrafficError(f"{settings.restored_dir} is not there: this is a part of `panelctl backup drill`")
    stage = _stage(settings, live)
    present = read_settings(settings.slot_env(live))
    if reason := stage.why_not() or _out_of_reach(present, settings.shared_dir):
        return reason
    given = overrides(present, databases, stage.folder, _free_port())
    try:
        stage.start(given, servers(present))
        _wait_healthy(settings, live, stage)
    except OSError as error:
        raise TrafficError(f"cannot start the panel on what was restored: {error}") from error
    finally:
        stage.stop()
    return ""


def overrides(present: Mapping[str, str], databases: Mapping[str, str], folder: Path, port: int) -> dict[str, str]:
    """Return the settings that are others than those of the slot.

    :param present: the settings of the slot.
    :raises TrafficError: its database would be the one that the panel uses.
    """
    given = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "AAPANEL_SOCKET": str(folder / "sock"),
        "AAPANEL_METRICS_DIR": str(folder / "metrics"),
        "AAPANEL_WORKERS": "1",
        # What waits there is for the panel that serves, and would be done twice.
        "REDIS_URL": "",
    }
    used = {name: present[name] for name in ("DATABASE_URL", "DB_NAME") if present.get(name)}
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


def servers(present: Mapping[str, str]) -> list[Server]:
    """Return where the panel asks its databases, by its settings; none for a database that is a file."""
    found = []
    if host := present.get("DB_HOST"):
        found.append(Server(host, int(present.get("DB_PORT") or _PORTS[present["DB_ENGINE"]])))
    url = urlsplit(present.get("DATABASE_URL", ""))
    if url.hostname:
        found.append(Server(url.hostname, url.port or _PORTS[url.scheme.partition("+")[0]]))
    return found


def _stage(settings: Settings, slot: str) -> Stage:
    if settings.service == "systemd":
        return Unit(settings, slot)
    # Here, because it wants memory that can be written and executed, which a hardened unit is denied.
    from .confined import Process  # noqa: PLC0415

    return Process(settings, slot)


def _out_of_reach(present: Mapping[str, str], shared: Path) -> str:
    url = present.get("DATABASE_URL", "")
    file = Path(url.removeprefix("sqlite:///").partition("?")[0])
    if url.startswith("sqlite:///") and file.exists() and not file.resolve().is_relative_to(shared.resolve()):
        return f"its database, {file}, is outside of {shared}, so that it would be the present one"
    return ""


def _wait_healthy(settings: Settings, slot: str, stage: Stage) -> None:
    wanted = look_at(settings.slot_dir(slot), settings.slot_env(slot)).release
    deadline = time.monotonic() + settings.healthy_timeout
    while True:
        answer = probe.get(probe.unix(stage.folder / "sock"), settings.domain, probe.READY)
        if answer.ok and answer.release == wanted:
            return
        if not stage.running() or time.monotonic() >= deadline:
            raise UnhealthyError(
                f"on what was restored the panel was not healthy within {settings.healthy_timeout:g} s. Last answer of "
                f"{probe.READY}: {answer}\nIts last lines:\n{stage.logs()}"
            )
        time.sleep(_POLL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
