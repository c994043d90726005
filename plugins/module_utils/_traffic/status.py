# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The status of the panel, for `panelctl status` and monitoring."""

from __future__ import annotations

from typing import Any

from . import history
from .engine import Engine
from .operation_lock import Operation
from .probe import Answer


def describe(engine: Engine, operations: int = 5) -> dict[str, Any]:
    """Return the observed and the recorded state as plain data.

    :param operations: how many of the last operations to include.
    """
    traffic = engine.observe()
    records = engine.history.read()
    edge = engine.edge()
    slots: dict[str, Any] = {}
    for name, slot in traffic.slots.items():
        # Counted before the health check, which opens a connection too.
        connections = engine.machine.connections(name) if slot.listening else 0
        ready = engine.machine.ready(name) if slot.listening else Answer(0, text="the slot does not listen")
        up = engine.machine.uptime(name) if slot.listening else None
        slots[name] = {
            "release": slot.release,
            "uptime": None if up is None else round(up, 1),
            "live": name == traffic.live,
            "listening": slot.listening,
            "healthy": ready.ok,
            "health": str(ready),
            "connections": connections,
        }
    since = engine.since_switch()
    problem = engine.edge_problem()
    return {
        "live": traffic.live,
        "release": traffic.slots[traffic.live].release if traffic.live else None,
        "healthy": bool(traffic.live and slots[traffic.live]["healthy"] and not problem),
        "problem": problem,
        "edge": {"status": edge.status, "release": edge.release, "slot": edge.slot},
        "slots": slots,
        "since_switch": None if since == float("inf") else round(since, 1),
        "operation": _operation(engine, engine.operation_lock.current()),
        "maintenance": engine.settings.maintenance_file.exists(),
        "bad_releases": history.bad_releases(records),
        "history": records[-operations:] if operations else [],
        "kpis": history.kpis(records),
    }


def _operation(engine: Engine, operation: Operation | None) -> dict[str, Any] | None:
    if operation is None:
        return None
    remaining = None
    if operation.state == "verified" and operation.confirm_until is not None:
        remaining = round(max(operation.confirm_until - engine.machine.now(), 0.0), 1)
    return {
        "kind": operation.kind,
        "generation": operation.generation,
        "owner": operation.owner.name,
        "state": operation.state,
        "began": operation.began,
        "source": operation.source.release,
        "target": operation.target.release,
        "stale": engine.stale(operation),
        "confirm_within": remaining,
    }
