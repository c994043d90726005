# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The live release once more beside itself, on data that a drill has restored; nobody but the drill can reach it."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from .._traffic import probe
from .._traffic.errors import TrafficError, UnhealthyError
from .._traffic.observe import live_slot, read_settings, read_slot
from .._traffic.settings import Settings
from . import databases
from .databases import Databases
from .sandbox import Stage, Unit

_POLL = 0.25  # seconds between two looks


def rehearse(settings: Settings, restored: Mapping[str, str]) -> str:
    """Start the live release on restored data, ask for its health, and stop it again.

    :param restored: for each database of the server the one that was restored.
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
    try:
        named = databases.find(present)
    except TrafficError as error:
        return str(error)
    if reason := stage.why_not() or _shared(present, named, settings.shared_dir):
        return reason
    given = overrides(present, restored, stage.folder, _free_port())
    # Who ends a drill, a unit that is stopped say, ends what it has started.
    before = signal.signal(signal.SIGTERM, _end)
    try:
        stage.start(given, named.servers)
        _wait_healthy(settings, live, stage)
    except OSError as error:
        raise TrafficError(f"cannot start the panel on what was restored: {error}") from error
    finally:
        stage.stop()
        signal.signal(signal.SIGTERM, before)
    return ""


def overrides(present: Mapping[str, str], restored: Mapping[str, str], folder: Path, port: int) -> dict[str, str]:
    """Return the settings that are others than those of the slot.

    :param present: the settings of the slot.
    :param restored: see `rehearse`.
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
    return given | databases.replaced(present, restored)


def _stage(settings: Settings, slot: str) -> Stage:
    if settings.service == "systemd":
        return Unit(settings, slot)
    # Here, because it wants memory that can be written and executed, which a hardened unit is denied.
    from .process_sandbox import Process  # noqa: PLC0415

    return Process(settings, slot)


def _shared(present: Mapping[str, str], named: Databases, shared: Path) -> str:
    """Say what both panels would use; empty where there is nothing."""
    for file in named.files:
        if file.exists() and not file.resolve().is_relative_to(shared.resolve()):
            return f"its database, {file}, is outside of {shared}, so that it would be the present one"
    if found := databases.others(present):
        return f"{', '.join(found)} in its settings would lead it to what the panel uses"
    return ""


def _wait_healthy(settings: Settings, slot: str, stage: Stage) -> None:
    wanted = read_slot(settings.slot_dir(slot), settings.slot_env(slot)).release
    deadline = time.monotonic() + settings.healthy_timeout
    while True:
        answer = probe.get(probe.unix(stage.folder / "sock"), settings.domain, probe.READY)
        if answer.ok and answer.release == wanted:
            return
        ended = not stage.running()
        if ended or time.monotonic() >= deadline:
            what = "ended by itself" if ended else f"was not healthy within {settings.healthy_timeout:g} s"
            raise UnhealthyError(
                f"on what was restored the panel {what}. Last answer of {probe.READY}: {answer}\n"
                f"Its last lines:\n{stage.logs()}"
            )
        time.sleep(_POLL)


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
