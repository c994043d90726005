# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Switches and rollbacks without a deploy: make the release live that a slot already holds."""

from __future__ import annotations

from dataclasses import dataclass

from . import history
from .engine import UNCONFIRMED, Engine
from .errors import RefusedError, UnhealthyError
from .observe import SLOTS, Traffic, live_slot
from .operation_lock import Operation, Owner, SlotRelease

TARGETS = (*SLOTS, "inactive", "previous")


@dataclass(frozen=True)
class SwitchRequest:
    """A request to switch.

    :ivar kind: ``switch``, or ``rollback``, which marks the release that it leaves as bad.
    :ivar target: ``blue``, ``green``, ``inactive`` or ``previous``.
    :ivar reason: for the history.
    :ivar force: switch even to a release that is marked bad.
    :ivar confirm: False leaves the switch unconfirmed; it is reverted after `confirm_seconds`.
    :ivar retiring: the slot whose retirement makes this request, and so must not be cancelled.
    """

    kind: str = "switch"
    target: str = "inactive"
    reason: str = ""
    force: bool = False
    confirm: bool = True
    retiring: str = ""


def plan(engine: Engine, request: SwitchRequest) -> tuple[SlotRelease, SlotRelease] | None:
    """Return source and target of a switch without doing it; None if the target is already live.

    :raises RefusedError: the target slot cannot be started, or its release is marked bad.
    """
    traffic = engine.observe()
    slot = _resolve(request.target, traffic)
    if slot == traffic.live:
        return None
    _refuse(engine, slot, traffic, force=request.force)
    source = SlotRelease(traffic.live, traffic.slots[traffic.live].release) if traffic.live else SlotRelease()
    return source, SlotRelease(slot, traffic.slots[slot].release)


def switch(engine: Engine, request: SwitchRequest, owner: Owner, *, wait: float = 10.0) -> Operation | None:
    """Switch to another slot; return None if it is already live.

    :param wait: seconds to wait for another operation.
    :raises BusyError: another operation is in progress.
    :raises RefusedError: see `plan`.
    :raises UnhealthyError: the target is unhealthy, directly or through nginx; the live slot is the same as before.
    """
    machine = engine.machine
    if request.kind == "rollback" and (pending := _take_pending(engine, force=request.force)):
        # A rollback reverts the switch that still waits for its confirmation.
        engine.revert(pending, request.reason or f"rolled back by {owner.name}")
        if live_slot(engine.settings.base_dir) != pending.source.slot:
            raise UnhealthyError(f"slot {pending.source.slot} does not start; traffic stays with {pending.target.slot}")
        return pending
    operation = engine.begin(request.kind, owner, wait=wait)
    with engine.abort_on_error(operation):
        planned = plan(engine, request)
        if planned is None:
            engine.end(operation)
            return None
        source, target = planned
        operation = engine.operation_lock.update(operation, reason=request.reason, source=source, target=target)
        slot = str(target.slot)
        if slot != request.retiring:
            machine.retire(slot, on=False)
        if not machine.running(slot):
            machine.start(slot)
        operation = engine.record_step(operation, "started")
        engine.wait_healthy(target, 1 if request.kind == "rollback" else engine.settings.healthy_passes)
        operation = engine.record_step(operation, "healthy")
    operation = engine.switch(operation)
    return engine.confirm(operation) if request.confirm else operation


def confirm(engine: Engine) -> Operation:
    """Confirm the switch that waits for its confirmation.

    :raises RefusedError: no switch waits.
    """
    with engine.operation_lock.exclusive():
        pending = engine.operation_lock.current()
        if pending is None or pending.state != "verified":
            raise RefusedError("no switch waits for its confirmation; see `panelctl status`")
        pending = engine.operation_lock.take_over(pending)
    return engine.confirm(pending)


def _take_pending(engine: Engine, *, force: bool) -> Operation | None:
    """Take over an unconfirmed switch, if there is one.

    :param force: even if it is a rollback; reverting that returns to the release that it marked bad.
    """
    with engine.operation_lock.exclusive():
        pending = engine.operation_lock.current()
        if pending is None or pending.state not in UNCONFIRMED or pending.source.slot is None:
            return None
        return engine.operation_lock.take_over(pending) if force or pending.kind != "rollback" else None


def _resolve(target: str, traffic: Traffic) -> str:
    if target not in TARGETS:
        raise RefusedError(f"unknown target {target!r}; valid targets: {', '.join(TARGETS)}")
    return target if target in SLOTS else traffic.idle


def _refuse(engine: Engine, slot: str, traffic: Traffic, *, force: bool) -> None:
    if not engine.settings.two_colours:
        raise RefusedError("this host has one slot, so it cannot switch; deploy the release that you want")
    target = traffic.slots[slot]
    if target.release is None:
        raise RefusedError(f"slot {slot} never had a release; deploy one first")
    if not target.startable:
        raise RefusedError(
            f"slot {slot} holds release {target.release}, but the settings of {target.settings_release}: its deploy "
            "was interrupted. Deploy the release that you want."
        )
    if not (engine.settings.base_dir / "releases" / target.release / "release.json").is_file():
        raise RefusedError(f"release {target.release} of slot {slot} was removed; deploy it again")
    records = engine.history.read()
    bad = history.bad_releases(records).get(target.release)
    if bad and not force:
        raise RefusedError(
            f"release {target.release} in slot {slot} is marked bad ({bad}). Use --force to switch anyway."
        )
    tried = [record for record in records if record["target"].get("release") == target.release]
    if tried and not force and not any("healthy" in record["durations"] for record in tried):
        # Its deploy was interrupted. The database may not be migrated, which the health check need not notice.
        raise RefusedError(
            f"release {target.release} in slot {slot} was never healthy: its deploy ended as {tried[-1]['result']} "
            f"({tried[-1]['reason']}). Deploy it again, or use --force to switch anyway."
        )
