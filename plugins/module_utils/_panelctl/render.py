# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""What panelctl prints for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .._traffic.operation_lock import Operation

_REASON = 60  # characters of a reason that a table shows

_COMPLETION = """\
# Completion of panelctl for bash; `panelctl completion` prints it.
_panelctl() {
  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "%(commands)s" -- "$word"))
    return
  fi
  case $command in
%(cases)s
  esac
}
complete -F _panelctl panelctl
"""


def status(found: Mapping[str, Any]) -> str:
    """A page: what serves, both slots, what is pending, the last operations, the figures."""
    if found["live"] is None:
        lines = ["nothing is live: deploy first"]
    else:
        verdict = "healthy" if found["healthy"] else f"UNHEALTHY: {found['problem'] or 'the slot does not answer'}"
        lines = [f"{found['live']} is live with {found['release']}: {verdict}"]
    if found["since_switch"] is not None:
        lines.append(f"traffic moved {_span(found['since_switch'])} ago")
    if found["maintenance"]:
        lines.append("maintenance is on: visitors get its page (`panelctl maintenance off`)")
    rows = [("SLOT", "RELEASE", "STATE", "HEALTH", "UP", "CONNECTIONS")]
    for name, slot in found["slots"].items():
        state = "live" if slot["live"] else "warm" if slot["listening"] else "stopped"
        health = "healthy" if slot["healthy"] else "no" if slot["listening"] else "-"
        up = "-" if slot["uptime"] is None else _span(slot["uptime"])
        rows.append((name, slot["release"] or "-", state, health, up, str(slot["connections"])))
    lines += ["", *_table(rows)]
    if operation := found["operation"]:
        lines += [
            "",
            f"at work: {operation['kind']} {operation['generation']} by {operation['owner']}: {operation['state']}",
        ]
        if operation["stale"]:
            lines.append("  its owner is dead; it is settled within seconds, or by `panelctl settle`")
        if operation["confirm_within"] is not None:
            lines.append(f"  goes back in {operation['confirm_within']:g} s unless `panelctl confirm`")
    for release, why in found["bad_releases"].items():
        lines += ["", f"bad: {release}: {why}"]
    if found["history"]:
        lines += ["", history(found["history"]).rstrip()]
    if rate := found["kpis"].get("success_rate"):
        lines += [
            "",
            f"{found['kpis']['deploys']:g} deploys, {rate:.0%} confirmed; {found['kpis']['rollbacks']:g} rollbacks",
        ]
    return "\n".join(lines) + "\n"


def history(records: Sequence[Mapping[str, Any]]) -> str:
    """A table of the journal."""
    if not records:
        return "nothing was done yet\n"
    rows = [("WHEN", "WHAT", "FROM", "TO", "RESULT", "TOOK", "BY")]
    for record in records:
        source, target = record["source"], record["target"]
        took = _span(sum(record["durations"].values()))
        result = f"{record['result']} ({_short(record['reason'])})" if record["reason"] else record["result"]
        rows.append(
            (record["ended"], record["kind"], _place(source), _place(target), result, took, record["who"]),
        )
    return "\n".join(_table(rows)) + "\n"


def plain(operation: Operation) -> dict[str, Any]:
    """An operation as plain data, without the token that proves whose it is."""
    data = dataclasses.asdict(operation)
    del data["token"]
    return data


def completion(words: Mapping[str, Sequence[str]]) -> str:
    """The completion for bash."""
    cases = "\n".join(
        f'    {name}) COMPREPLY=($(compgen -W "{" ".join(listing)}" -- "$word")) ;;' for name, listing in words.items()
    )
    return _COMPLETION % {"commands": " ".join(words), "cases": cases}


def _place(place: Mapping[str, Any]) -> str:
    return f"{place['slot'] or '-'}:{place['release']}" if place["release"] else place["slot"] or "-"


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
