# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Switches without a deploy, by a person or by the host itself: what a slot holds already becomes live."""

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
    """What is wanted.

    :ivar kind: ``switch``, or ``rollback``, which marks the release that it leaves as bad.
    :ivar target: ``blue``, ``green``, ``inactive`` or ``previous``.
    :ivar reason: for the journal.
    :ivar force: even to a release that is marked bad.
    :ivar confirm: False leaves the switch waiting for a confirmation, for `confirm_seconds`.
    :ivar retiring: the slot whose retirement is the caller itself.
    """

    kind: str = "switch"
    target: str = "inactive"
    reason: str = ""
    force: bool = False
    confirm: bool = True
    retiring: str = ""


def plan(engine: Engine, wanted: SwitchRequest) -> tuple[SlotRelease, SlotRelease] | None:
    """Say from where to where, without doing it; None where that is live already.

    :raises RefusedError: the slot holds nothing that could serve, or a release marked bad.
    """
    traffic = engine.observe()
    slot = _resolve(wanted.target, traffic)
    if slot == traffic.live:
        return None
    _refuse(engine, slot, traffic, force=wanted.force)
    source = SlotRelease(traffic.live, traffic.slots[traffic.live].release) if traffic.live else SlotRelease()
    return source, SlotRelease(slot, traffic.slots[slot].release)


def switch(engine: Engine, wanted: SwitchRequest, owner: Owner, *, wait: float = 10.0) -> Operation | None:
    """Switch; None where the target is live already.

    :param wait: seconds to wait for somebody else's operation.
    :raises BusyError: somebody else is at work, and alive.
    :raises RefusedError: see `plan`.
    :raises UnhealthyError: the target is not healthy, or not so through nginx; traffic is where it was.
    """
    machine = engine.machine
    if wanted.kind == "rollback" and (pending := _take_pending(engine, force=wanted.force)):
        # Whoever rolls back now wants to be rid of the switch that waits for its confirmation.
        engine.revert(pending, wanted.reason or f"rolled back by {owner.name}")
        if live_slot(engine.settings.base_dir) != pending.source.slot:
            raise UnhealthyError(f"slot {pending.source.slot} does not start; traffic stays with {pending.target.slot}")
        return pending
    operation = engine.begin(wanted.kind, owner, wait=wait)
    with engine.abort_on_error(operation):
        planned = plan(engine, wanted)
        if planned is None:
            engine.end(operation)
            return None
        source, target = planned
        operation = engine.operation_lock.update(operation, reason=wanted.reason, source=source, target=target)
        slot = str(target.slot)
        if slot != wanted.retiring:
            machine.retire(slot, wanted=False)
        if not machine.running(slot):
            machine.start(slot)
        operation = engine.done(operation, "started")
        engine.wait_healthy(target, 1 if wanted.kind == "rollback" else engine.settings.healthy_passes)
        operation = engine.done(operation, "healthy")
    operation = engine.switch(operation)
    return engine.confirm(operation) if wanted.confirm else operation


def confirm(engine: Engine) -> Operation:
    """Keep a switch that waits for its confirmation.

    :raises RefusedError: none does.
    """
    with engine.operation_lock.locked():
        pending = engine.operation_lock.current()
        if pending is None or pending.state != "verified":
            raise RefusedError("no switch waits for its confirmation; see `panelctl status`")
        pending = engine.operation_lock.take_over(pending)
    return engine.confirm(pending)


def _take_pending(engine: Engine, *, force: bool) -> Operation | None:
    """Take over a switch that nobody confirmed. To take back a rollback is to go to what was left as bad: by force."""
    with engine.operation_lock.locked():
        pending = engine.operation_lock.current()
        if pending is None or pending.state not in UNCONFIRMED or pending.source.slot is None:
            return None
        return engine.operation_lock.take_over(pending) if force or pending.kind != "rollback" else None


def _resolve(target: str, traffic: Traffic) -> str:
    if target not in TARGETS:
        raise RefusedError(f"the target is {target!r}: say {', '.join(TARGETS)}")
    return target if target in SLOTS else traffic.idle


def _refuse(engine: Engine, slot: str, traffic: Traffic, *, force: bool) -> None:
    if not engine.settings.two_colours:
        raise RefusedError("this host has one slot: there is nothing to switch to; deploy the release that you want")
    there = traffic.slots[slot]
    if there.release is None:
        raise RefusedError(f"slot {slot} never had a release: there is nothing to switch to")
    if not there.whole:
        raise RefusedError(
            f"slot {slot} holds release {there.release}, but the settings of {there.settings_release}: a deploy died "
            "there. Deploy the release that you want."
        )
    if not (engine.settings.base_dir / "releases" / there.release / "release.json").is_file():
        raise RefusedError(f"release {there.release} of slot {slot} is gone: deploy it again")
    records = engine.history.read()
    bad = history.bad_releases(records).get(there.release)
    if bad and not force:
        raise RefusedError(f"release {there.release} in slot {slot} is marked bad ({bad}). Insist with --force.")
    tried = [record for record in records if record["target"].get("release") == there.release]
    if tried and not force and not any("healthy" in record["durations"] for record in tried):
        # Its deploy died on the way; its database may not be migrated, which its health need not show.
        raise RefusedError(
            f"release {there.release} in slot {slot} was never healthy: its deploy ended as {tried[-1]['result']} "
            f"({tried[-1]['reason']}). Deploy it again, or insist with --force."
        )
