# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Stop and start the panel, for a restore of its data; meanwhile visitors get the maintenance page."""

from __future__ import annotations

from .._host import durable
from .engine import RETIRE, Engine
from .observe import SLOTS, live_slot
from .operation_lock import Owner, SlotRelease

#: Content of a maintenance file that `stop` created. `start` removes no other maintenance file.
_STOPPED = b"stopped\n"


def stop(engine: Engine, owner: Owner, *, wait: float = 0.0) -> bool:
    """Stop all slots.

    :param wait: seconds to wait for another operation.
    :returns: False before the first deploy.
    :raises BusyError: another operation is in progress.
    """
    machine, file = engine.machine, engine.settings.maintenance_file
    operation = engine.begin(RETIRE, owner, wait=wait)
    try:
        durable.make(engine.settings.state_dir)
        durable.write(engine.settings.stopped_file, "")
        if not file.exists():
            file.write_bytes(_STOPPED)
        for slot in SLOTS if engine.settings.two_colours else ("blue",):
            machine.retire(slot, on=False)
            if machine.running(slot):
                machine.stop(slot)
        return live_slot(engine.settings.base_dir) is not None
    finally:
        engine.end(operation)


def start(engine: Engine, owner: Owner, *, wait: float = 0.0) -> str | None:
    """Start the live slot, and wait until it is healthy.

    :param wait: seconds to wait for another operation.
    :returns: the live slot; None before the first deploy.
    :raises BusyError: another operation is in progress.
    :raises UnhealthyError: it does not become healthy; visitors still get the maintenance page.
    """
    machine, settings = engine.machine, engine.settings
    operation = engine.begin(RETIRE, owner, wait=wait)
    try:
        live = live_slot(settings.base_dir)
        if live is not None:
            if not machine.running(live):
                machine.start(live)
            engine.wait_healthy(SlotRelease(live, engine.observe().slots[live].release), settings.healthy_passes)
        settings.stopped_file.unlink(missing_ok=True)
        if settings.maintenance_file.exists() and settings.maintenance_file.read_bytes() == _STOPPED:
            settings.maintenance_file.unlink()
        return live
    finally:
        engine.end(operation)
