# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The steps of a deploy, which a controller asks for one by one, with whatever it likes between them."""

from __future__ import annotations

from .._host import durable
from .engine import Engine, slot_of
from .errors import LostError, RefusedError
from .history import FAILED
from .operation_lock import Operation, Owner, SlotRelease

_POLL = 1.0  # seconds between two looks at open connections


class Deploy:
    """One deploy into the idle slot; *token* is what `lock` gave, and what proves that it is still ours."""

    def __init__(self, engine: Engine, token: str = "") -> None:
        self._engine = engine
        self.token = token

    def lock(self, owner: Owner, *, wait: float = 0.0, dead: str = "") -> Operation:
        """Begin; see `Engine.begin` for the parameters and what it raises."""
        engine = self._engine
        operation = engine.begin("deploy", owner, wait=wait, dead=dead, lease=engine.settings.lease_seconds)
        self.token = operation.token
        # Who gets an error gets no token, and could not end it.
        with engine.abort_on_error(operation):
            traffic = engine.observe()
            source = SlotRelease(traffic.live, traffic.slots[traffic.live].release) if traffic.live else SlotRelease()
            if not engine.settings.two_colours:
                # The one slot is started anew in its place: there is none to go back to.
                return engine.operation_lock.update(
                    operation, source=SlotRelease(None, source.release), target=SlotRelease("blue")
                )
            return engine.operation_lock.update(operation, source=source, target=SlotRelease(traffic.idle))

    def build(self) -> Operation:
        """Say that the backup is made and the build begins."""
        return self._engine.done(self._held("locked"), "backed_up", state="building")

    def prepare(self, release: str) -> Operation:
        """Empty the idle slot, and give it its release.

        Waits for connections that the slot still serves from before the last switch, `drain_seconds` at most.
        """
        engine, settings = self._engine, self._engine.settings
        operation = engine.done(self._held("building"), "built")
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
        return engine.done(operation, "prepared")

    def migrate(self) -> Operation:
        """Back up, where that is set up, and migrate the database with the new release, while the old one serves.

        :raises UnhealthyError: with what the backup or the migration said.
        """
        engine = self._engine
        operation = self._held("prepared")
        if engine.settings.backup_set and engine.settings.backup_file.exists():
            engine.machine.backup(engine.settings.backup_set)
            operation = engine.done(operation, "data_backed_up", state="prepared")
        engine.machine.migrate(slot_of(operation.target))
        return engine.done(operation, "migrated")

    def start(self) -> Operation:
        """Start the slot, and wait until it is healthy with just that release.

        :raises UnhealthyError: with what was wrong and the slot's last lines.
        """
        engine = self._engine
        operation = self._held("prepared", "migrated")
        engine.machine.start(slot_of(operation.target))
        operation = engine.done(operation, "started")
        engine.wait_healthy(operation.target, engine.settings.healthy_passes)
        return engine.done(operation, "healthy")

    def switch(self) -> Operation:
        """Make the slot live and look through nginx; see `Engine.switch`."""
        return self._engine.switch(self._held("healthy"))

    def confirm(self) -> Operation:
        """Keep the switch; see `Engine.confirm`."""
        return self._engine.confirm(self._held("verified"))

    def abort(self, reason: str) -> bool:
        """End a deploy that failed: traffic stays, or goes back. False where it has ended already."""
        try:
            operation = self._held()
        except LostError:
            return False
        self._engine.abort(operation, reason, FAILED)
        return True

    def _held(self, *states: str) -> Operation:
        """The operation, which is now this process' for as long as it lives.

        :param states: those that the step may follow; empty for any.
        :raises LostError: it is not ours any more.
        :raises RefusedError: it is in another state.
        """
        engine = self._engine
        # Under one lock: a step that its controller gave up may still be at work, and loses the operation here.
        with engine.operation_lock.locked():
            operation = engine.operation_lock.current()
            if operation is None or operation.token != self.token:
                raise LostError(
                    "this deploy was settled, because its time was over or its controller seemed dead; "
                    "`panelctl history` says how it ended. Start it again."
                )
            if states and operation.state not in states:
                raise RefusedError(f"{operation}: this step follows {' or '.join(states)}")
            pid, started = engine.machine.process()
            lease = engine.machine.now() + engine.settings.lease_seconds
            return engine.operation_lock.update(operation, pid=pid, pid_started=started, lease_until=lease)

    def _free(self, slot: str) -> None:
        machine = self._engine.machine
        machine.retire(slot, wanted=False)
        if not machine.running(slot):
            return
        while machine.connections(slot) and self._engine.since_switch() < self._engine.settings.drain_seconds:
            machine.sleep(_POLL)
        machine.stop(slot)
