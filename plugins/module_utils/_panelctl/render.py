# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The text that panelctl prints without `--json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .._traffic.operation_lock import Operation

_REASON = 60  # characters of a reason to show in a table


def status(found: Mapping[str, Any]) -> str:
    """Return the text of `panelctl status`."""
    if found["live"] is None:
        lines = ["nothing is live: deploy first"]
    else:
        verdict = "healthy" if found["healthy"] else f"UNHEALTHY: {found['problem'] or 'the slot does not answer'}"
        lines = [f"{found['live']} is live with {found['release']}: {verdict}"]
    if found["since_switch"] is not None:
        lines.append(f"last switch: {_span(found['since_switch'])} ago")
    if found["maintenance"]:
        lines.append("maintenance is on: visitors get the maintenance page (`panelctl maintenance off` ends it)")
    rows = [("SLOT", "RELEASE", "STATE", "HEALTH", "UP", "CONNECTIONS")]
    for name, slot in found["slots"].items():
        state = "live" if slot["live"] else "started" if slot["listening"] else "stopped"
        health = "healthy" if slot["healthy"] else "no" if slot["listening"] else "-"
        up = "-" if slot["uptime"] is None else _span(slot["uptime"])
        rows.append((name, slot["release"] or "-", state, health, up, str(slot["connections"])))
    lines += ["", *_table(rows)]
    if operation := found["operation"]:
        lines += [
            "",
            f"in progress: {operation['kind']} {operation['generation']} by {operation['owner']}: {operation['state']}",
        ]
        if operation["stale"]:
            lines.append("  its owner died; it will be settled within seconds, or by `panelctl settle`")
        if operation["confirm_within"] is not None:
            lines.append(f"  will be reverted in {operation['confirm_within']:g} s without `panelctl confirm`")
    for release, why in found["bad_releases"].items():
        lines += ["", f"bad: {release}: {why}"]
    if found["history"]:
        lines += ["", history(found["history"])]
    if rate := found["kpis"].get("success_rate"):
        lines += [
            "",
            f"{found['kpis']['deploys']:g} deploys, {rate:.0%} confirmed; {found['kpis']['rollbacks']:g} rollbacks",
        ]
    return "\n".join(lines)


def history(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the history as a table."""
    if not records:
        return "no operation yet"
    rows = [("WHEN", "WHAT", "FROM", "TO", "RESULT", "TOOK", "BY")]
    for record in records:
        source, target = record["source"], record["target"]
        took = _span(sum(record["durations"].values()))
        result = f"{record['result']} ({_short(record['reason'])})" if record["reason"] else record["result"]
        rows.append(
            (
                record["ended"],
                record["kind"],
                _slot_release(source),
                _slot_release(target),
                result,
                took,
                record["who"],
            ),
        )
    return "\n".join(_table(rows))


def plain(operation: Operation) -> dict[str, Any]:
    """Return an operation as plain data, without its fencing token."""
    data = dataclasses.asdict(operation)
    del data["token"]
    return data


def _slot_release(data: Mapping[str, Any]) -> str:
    return f"{data['slot'] or '-'}:{data['release']}" if data["release"] else data["slot"] or "-"


def _short(text: str) -> str:
    first = text.splitlines()[0]
    return first if len(first) <= _REASON else first[: _REASON - 1] + "…"


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
