# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""One JSON line for each deploy, switch and rollback, and the figures that follow from them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._host import durable

Record = Mapping[str, Any]

CONFIRMED = "confirmed"  # the target serves
FAILED = "failed"  # it never got traffic
REVERTED = "reverted"  # it got traffic, and traffic went back
ABANDONED = "abandoned"  # its owner died before it got traffic
RESULTS = (CONFIRMED, FAILED, REVERTED, ABANDONED)
_NEEDED = {"generation", "kind", "source", "target", "durations", "result", "reason", "ended", "ended_at"}


class History:
    """An append-only file. A line that a crash tore is skipped, and never joined with the next one."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, record: Record) -> None:
        """Add a record, durably."""
        line = json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n"
        descriptor = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            # What a terminal gave may be no Unicode; its bytes become JSON's own escapes.
            data = line.encode(errors="backslashreplace")
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            durable.sync(self.file.parent)

    def read(self) -> list[Record]:
        """Return all records, oldest first."""
        try:
            # Not splitlines(), which parts lines at U+2028, too.
            lines = self.file.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return []
        return [record for record in map(_parse, lines) if record is not None]


def _parse(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.keys() >= _NEEDED else None


def bad_releases(records: Iterable[Record]) -> dict[str, str]:
    """Return the releases that should not come back, each with why: the last word on each of them counts."""
    bad: dict[str, str] = {}
    for record in records:
        target, source = record["target"].get("release"), record["source"].get("release")
        if record["result"] == CONFIRMED:
            bad.pop(target, None)
            if record["kind"] == "rollback" and source != target:
                bad[source] = f"rolled back at {record['ended']}: {record['reason']}"
        elif record["result"] in (FAILED, REVERTED) and target and target != source:
            bad[target] = f"{record['result']} at {record['ended']}: {record['reason']}"
    return bad


def kpis(records: Sequence[Record]) -> dict[str, float]:
    """Return counts, the success rate (0 to 1) and the mean and last durations in seconds.

    The four are those of DORA's research: how often, how long, how many fail, how long until service is restored.
    """
    deploys = [record for record in records if record["kind"] == "deploy"]
    good = [record for record in deploys if record["result"] == CONFIRMED]
    switches = [record["durations"]["switched"] for record in records if "switched" in record["durations"]]
    restores = [record["restore_seconds"] for record in records if record.get("restore_seconds") is not None]
    figures: dict[str, float] = {f"deploys_{result}": 0 for result in RESULTS}
    for record in deploys:
        figures[f"deploys_{record['result']}"] += 1
    figures["deploys"] = len(deploys)
    figures["rollbacks"] = sum(record["kind"] == "rollback" for record in records)
    if deploys:
        figures["success_rate"] = len(good) / len(deploys)
    for name, values in (
        ("lead", [sum(r["durations"].values()) for r in good]),
        ("switch", switches),
        ("restore", restores),
    ):
        if values:
            figures[f"{name}_seconds_mean"] = sum(values) / len(values)
            figures[f"{name}_seconds_last"] = values[-1]
    return figures


def textfile(records: Sequence[Record]) -> str:
    """Render the figures for the textfile collector of Prometheus' node_exporter."""
    figures = kpis(records)
    lines = [
        "# HELP aapanel_deploys_total Deploys by how they ended.",
        "# TYPE aapanel_deploys_total counter",
        *(f'aapanel_deploys_total{{result="{result}"}} {figures[f"deploys_{result}"]:g}' for result in RESULTS),
        "# HELP aapanel_rollbacks_total Rollbacks, by people and by the host itself.",
        "# TYPE aapanel_rollbacks_total counter",
        f"aapanel_rollbacks_total {figures['rollbacks']:g}",
    ]
    helps = {
        "success_rate": "Share of deploys that were confirmed.",
        "lead_seconds_last": "Seconds from the lock to the confirmation of the last deploy.",
        "lead_seconds_mean": "The same, mean of all.",
        "switch_seconds_last": "Seconds that the last switch took.",
        "switch_seconds_mean": "The same, mean of all.",
        "restore_seconds_last": "Seconds from trouble to service, the last time.",
        "restore_seconds_mean": "The same, mean of all.",
    }
    for name, text in helps.items():
        if name in figures:
            metric = f"aapanel_deploy_{name}"
            lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge", f"{metric} {figures[name]:.6g}"]
    return "\n".join(lines) + "\n"
