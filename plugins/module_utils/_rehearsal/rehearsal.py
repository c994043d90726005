# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""A rehearsal: a second start of the live release, on data that a drill restored. Only the drill can reach it."""

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
from .sandbox import Sandbox, UnitSandbox

_POLL = 0.25  # seconds between two health checks


def rehearse(settings: Settings, restored: Mapping[str, str]) -> str:
    """Start the live release on restored data, check its health, and stop it.

    :param restored: the restored database for each live database.
    :returns: why the rehearsal was skipped; empty if the release was healthy.
    :raises UnhealthyError: it does not become healthy; with the end of its log.
    """
    live = live_slot(settings.base_dir)
    if live is None:
        return "nothing is live yet"
    if not settings.restored_dir.is_dir():
        raise TrafficError(f"{settings.restored_dir} is missing: run `panelctl backup drill`, which calls this command")
    sandbox = _sandbox(settings, live)
    slot_settings = read_settings(settings.slot_env(live))
    try:
        found = databases.find(slot_settings)
    except TrafficError as error:
        return str(error)
    if reason := sandbox.unsafe_reason() or _shared(slot_settings, found, settings.shared_dir):
        return reason
    changed = overrides(slot_settings, restored, sandbox.folder, _free_port())
    # When the drill is terminated, for example by systemd, the release is stopped too.
    before = signal.signal(signal.SIGTERM, _end)
    try:
        sandbox.start(changed, found.servers)
        _wait_healthy(settings, live, sandbox)
    except OSError as error:
        raise TrafficError(f"cannot start the panel on the restored data: {error}") from error
    finally:
        sandbox.stop()
        signal.signal(signal.SIGTERM, before)
    return ""


def overrides(settings: Mapping[str, str], restored: Mapping[str, str], folder: Path, port: int) -> dict[str, str]:
    """Return the settings that differ from those of the slot.

    :param settings: the settings of the slot.
    :param restored: see `rehearse`.
    :param folder: directory of the socket.
    :raises TrafficError: the release would use a live database.
    """
    changed = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "AAPANEL_SOCKET": str(folder / "sock"),
        "AAPANEL_METRICS_DIR": str(folder / "metrics"),
        "AAPANEL_WORKERS": "1",
        # Jobs that wait in Redis are for the live slot, and would run twice.
        "REDIS_URL": "",
    }
    return changed | databases.replace(settings, restored)


def _sandbox(settings: Settings, slot: str) -> Sandbox:
    if settings.service == "systemd":
        return UnitSandbox(settings, slot)
    # Imported here, because ctypes needs memory that is writable and executable, which hardened units are denied.
    from .process_sandbox import ProcessSandbox  # noqa: PLC0415

    return ProcessSandbox(settings, slot)


def _shared(settings: Mapping[str, str], found: Databases, shared: Path) -> str:
    """Return what the live slot and the rehearsal would share; empty if nothing."""
    for file in found.files:
        if file.exists() and not file.resolve().is_relative_to(shared.resolve()):
            return f"its database {file} is outside of {shared}, so it would be the live database"
    if servers := databases.other_servers(settings):
        return f"{', '.join(servers)} in its settings would connect it to servers of the live slot"
    return ""


def _wait_healthy(settings: Settings, slot: str, sandbox: Sandbox) -> None:
    expected = read_slot(settings.slot_dir(slot), settings.slot_env(slot)).release
    deadline = time.monotonic() + settings.healthy_timeout
    while True:
        answer = probe.get(probe.unix(sandbox.folder / "sock"), settings.domain, probe.READY)
        if answer.ok and answer.release == expected:
            return
        ended = not sandbox.running()
        if ended or time.monotonic() >= deadline:
            problem = "exited" if ended else f"was not healthy within {settings.healthy_timeout:g} s"
            raise UnhealthyError(
                f"on the restored data the panel {problem}. Last answer of {probe.READY}: {answer}\n"
                f"End of its log:\n{sandbox.logs()}"
            )
        time.sleep(_POLL)


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
