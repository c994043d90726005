# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Automatic work of the host: start the live slot at boot, and retire the previous slot after a switch."""

from __future__ import annotations

import contextlib

from .._host import durable
from .engine import RETIRE, STRIKES, Engine
from .errors import TrafficError
from .observe import SLOTS, live_slot
from .operation_lock import Owner
from .switch import SwitchRequest, switch

_OWNER = Owner("the host")
_POLL = 1.0  # seconds between two checks


def boot(engine: Engine) -> str | None:
    """Settle an interrupted operation, and recreate the links into tmpfs; runs before nginx starts.

    :returns: the live slot, to be started; None before the first deploy, and while the panel is stopped, because an
        interrupted restore may have replaced half of its data.
    """
    settings = engine.settings
    # The panel must start even if settling fails, with a full disk for example; the next command settles.
    with contextlib.suppress(OSError, TrafficError):
        engine.settle(at_boot=True)
    with contextlib.suppress(OSError):
        for slot in SLOTS if settings.two_colours else ():
            if (folder := settings.slot_dir(slot)).is_dir():
                durable.replace_link(folder / "sock", str(settings.slot_socket(slot)))
    return None if settings.stopped_file.exists() else live_slot(settings.base_dir)


def retire(engine: Engine, slot: str) -> str:
    """Check the live slot during the safety period, then drain and stop the previous slot.

    Three failed checks in a row roll back to the previous slot, if it is healthy: one rename, as it is still started.

    :param slot: the previous slot.
    :returns: the outcome, for the log.
    """
    machine, settings = engine.machine, engine.settings
    # The safety period counts from the history record of the switch, which may not be written yet.
    while (operation := engine.operation_lock.current()) is not None and operation.state == "confirmed":
        with contextlib.suppress(TrafficError):
            engine.settle()
        machine.sleep(_POLL / 4)
    strikes = 0
    while engine.since_switch() < settings.safety_seconds:
        if _is_live(engine, slot):
            return "it is live again"
        problem = engine.edge_problem()
        # If nginx does not answer at all, it is not the fault of the release.
        strikes = strikes + 1 if problem and engine.edge().status else 0
        if strikes >= STRIKES and machine.ready(slot).ok:
            strikes = 0
            # If the rollback fails, this slot still has to be drained and stopped.
            with contextlib.suppress(TrafficError):
                switch(
                    engine, SwitchRequest("rollback", slot, f"in the safety period: {problem}", retiring=slot), _OWNER
                )
                return f"rolled back to it: {problem}"
        machine.sleep(_POLL)
    while machine.connections(slot) and engine.since_switch() < settings.drain_seconds:
        if _is_live(engine, slot):
            return "it is live again"
        machine.sleep(_POLL)
    operation = engine.begin(RETIRE, _OWNER, wait=float("inf"))
    try:
        if _is_live(engine, slot):
            return "it is live again"
        machine.stop(slot)
    finally:
        engine.end(operation)
    return "drained and stopped"


def _is_live(engine: Engine, slot: str) -> bool:
    return live_slot(engine.settings.base_dir) == slot
