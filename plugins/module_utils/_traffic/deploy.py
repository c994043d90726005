# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The steps of a deploy; the controller calls them one by one, and may run other tasks between them."""

from __future__ import annotations

from .._host import durable
from .engine import Engine, slot_of
from .errors import LostError, RefusedError
from .history import FAILED
from .operation_lock import Operation, Owner, SlotRelease

_POLL = 1.0  # seconds between two counts of open connections


class Deploy:
    """One deploy into the idle slot.

    :param token: the fencing token that `lock` set; empty before.
    """

    def __init__(self, engine: Engine, token: str = "") -> None:
        self._engine = engine
        self.token = token

    def lock(self, owner: Owner, *, wait: float = 0.0, dead: str = "") -> Operation:
        """Begin the deploy; see `Engine.begin` for parameters and errors."""
        engine = self._engine
        operation = engine.begin("deploy", owner, wait=wait, dead=dead, lease=engine.settings.lease_seconds)
        self.token = operation.token
        # On an error the caller receives no token, so it could not end the operation.
        with engine.abort_on_error(operation):
            traffic = engine.observe()
            source = SlotRelease(traffic.live, traffic.slots[traffic.live].release) if traffic.live else SlotRelease()
            if not engine.settings.two_colours:
                # The only slot is restarted: there is no slot to revert to.
                return engine.operation_lock.update(
                    operation, source=SlotRelease(None, source.release), target=SlotRelease("blue")
                )
            return engine.operation_lock.update(operation, source=source, target=SlotRelease(traffic.idle))

    def build(self) -> Operation:
        """Record the end of the backup and the start of the build."""
        return self._engine.record_step(self._held("locked"), "backed_up", state="building")

    def prepare(self, release: str) -> Operation:
        """Empty the idle slot, and link it to the release.

        Waits at most `drain_seconds` for connections that the slot still has from before the last switch.
        """
        engine, settings = self._engine, self._engine.settings
        operation = engine.record_step(self._held("building"), "built")
        slot = slot_of(operation.target)
        if settings.two_colours:
            self._free(slot)
        operation = engine.operation_lock.update(operation, target=SlotRelease(slot, release))
        folder = settings.slot_dir(slot)
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        durable.replace_link(folder / "release", f"../../releases/{release}")
        if settings.two_colours:
            durable.replace_link(folder / "sock", str(settings.slot_socket(slot)))
        durable.sync(folder)
        return engine.record_step(operation, "prepared")

    def migrate(self) -> Operation:
        """Create a backup, if configured, and migrate the database with the new release.

        :raises UnhealthyError: the backup or the migration failed; with its output.
        """
        engine = self._engine
        operation = self._held("prepared")
        if engine.settings.backup_set and engine.settings.backup_file.exists():
            engine.machine.backup(engine.settings.backup_set)
            operation = engine.record_step(operation, "data_backed_up", state="prepared")
        engine.machine.migrate(slot_of(operation.target))
        return engine.record_step(operation, "migrated")

    def start(self) -> Operation:
        """Start the slot, and wait until it is healthy with the new release.

        :raises UnhealthyError: it does not become healthy; with the end of its log.
        """
        engine = self._engine
        operation = self._held("prepared", "migrated")
        engine.machine.start(slot_of(operation.target))
        operation = engine.record_step(operation, "started")
        engine.wait_healthy(operation.target, engine.settings.healthy_passes)
        return engine.record_step(operation, "healthy")

    def switch(self) -> Operation:
        """Make the slot live and verify it through nginx; see `Engine.switch`."""
        return self._engine.switch(self._held("healthy"))

    def confirm(self) -> Operation:
        """Confirm the switch; see `Engine.confirm`."""
        return self._engine.confirm(self._held("verified"))

    def abort(self, reason: str) -> bool:
        """End a failed deploy, and revert it if traffic was switched.

        :returns: False if the deploy had ended already.
        """
        try:
            operation = self._held()
        except LostError:
            return False
        self._engine.abort(operation, reason, FAILED)
        return True

    def _held(self, *states: str) -> Operation:
        """Make this process the holder of the operation, and return it.

        :param states: states that the step may follow; empty for any.
        :raises LostError: this deploy no longer holds the lock.
        :raises RefusedError: the operation is in another state.
        """
        engine = self._engine
        # Under one lock: an earlier step, abandoned by its controller, may still run, and loses the operation here.
        with engine.operation_lock.exclusive():
            operation = engine.operation_lock.current()
            if operation is None or operation.token != self.token:
                raise LostError(
                    "this deploy was settled, because its time was over or its controller seemed dead. "
                    "See `panelctl history`, then start it again."
                )
            if states and operation.state not in states:
                raise RefusedError(f"{operation}: this step follows {' or '.join(states)}")
            pid, started = engine.machine.process()
            lease = engine.machine.now() + engine.settings.lease_seconds
            return engine.operation_lock.update(operation, pid=pid, pid_started=started, lease_until=lease)

    def _free(self, slot: str) -> None:
        machine = self._engine.machine
        machine.retire(slot, on=False)
        if not machine.running(slot):
            return
        while machine.connections(slot) and self._engine.since_switch() < self._engine.settings.drain_seconds:
            machine.sleep(_POLL)
        machine.stop(slot)
