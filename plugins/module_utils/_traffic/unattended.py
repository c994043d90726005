# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What the host does by itself: at boot, and with a colour that was left."""

from __future__ import annotations

import contextlib

from .._host import durable
from .engine import RETIRE, STRIKES, Engine
from .errors import TrafficError
from .observe import SLOTS, live_slot
from .operation_lock import Owner
from .switch import SwitchRequest, switch

_OWNER = Owner("the host")
_POLL = 1.0  # seconds between two looks


def boot(engine: Engine) -> str | None:
    """Before nginx, after a reboot: settle what died, and mend what lived on tmpfs.

    :returns: the colour to start, which is the one that the link names; None before the first deploy, and where the
        panel was stopped: a restore that died then may have exchanged one half of its data.
    """
    settings = engine.settings
    # Whatever is wrong with the books (a full disk, say), the panel has to start; the next command settles.
    with contextlib.suppress(OSError, TrafficError):
        engine.settle(waiting=False)
    with contextlib.suppress(OSError):
        for slot in SLOTS if settings.two_colours else ():
            if (folder := settings.slot_dir(slot)).is_dir():
                durable.replace_link(folder / "sock", str(settings.slot_socket(slot)))
    return None if settings.stopped_file.exists() else live_slot(settings.base_dir)


def retire(engine: Engine, slot: str) -> str:
    """Watch over the safety period, then drain a colour that was left, and stop it.

    While the old colour is warm, a live one that turns bad costs one rename: three bad looks in a row, and the old one
    is healthy, give traffic back.

    :returns: how it ended, in words.
    """
    machine, settings = engine.machine, engine.settings
    # The switch that left it is writing its line, from which the time counts.
    while (operation := engine.operation_lock.current()) is not None and operation.state == "confirmed":
        with contextlib.suppress(TrafficError):
            engine.settle()
        machine.sleep(_POLL / 4)
    strikes = 0
    while engine.since_switch() < settings.safety_seconds:
        if _is_live(engine, slot):
            return "it is live again"
        problem = engine.edge_problem()
        # An nginx that does not answer at all is no fault of a release.
        strikes = strikes + 1 if problem and engine.edge().status else 0
        if strikes >= STRIKES and machine.ready(slot).ok:
            strikes = 0
            # Whatever is in the way, this colour still has to be watched, drained and stopped.
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
