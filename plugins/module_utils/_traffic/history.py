# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The history of operations: one JSON line for each deploy, switch and rollback, and metrics computed from them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._host import durable

Record = Mapping[str, Any]

CONFIRMED = "confirmed"  # the target is live
FAILED = "failed"  # the target never received traffic
REVERTED = "reverted"  # the target received traffic, and was reverted
ABANDONED = "abandoned"  # the owner died before the target received traffic
RESULTS = (CONFIRMED, FAILED, REVERTED, ABANDONED)
_NEEDED = {"generation", "kind", "source", "target", "durations", "result", "reason", "ended", "ended_at"}


class History:
    """An append-only file. A line that a crash cut short is skipped, and never joined with the next one."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, record: Record) -> None:
        """Append a record durably."""
        line = json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n"
        descriptor = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            # Input from a terminal may be invalid Unicode; its bytes become JSON escapes.
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
            # Not splitlines(), which also splits at U+2028.
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
    """Return the bad releases, each with the reason; the last operation of a release decides."""
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

    These are the four DORA metrics: deployment frequency, lead time, failure rate, time to restore service.
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
    """Render the metrics for the textfile collector of Prometheus' node_exporter."""
    figures = kpis(records)
    lines = [
        "# HELP aapanel_deploys_total Deploys by result.",
        "# TYPE aapanel_deploys_total counter",
        *(f'aapanel_deploys_total{{result="{result}"}} {figures[f"deploys_{result}"]:g}' for result in RESULTS),
        "# HELP aapanel_rollbacks_total Rollbacks, by operators and by the host.",
        "# TYPE aapanel_rollbacks_total counter",
        f"aapanel_rollbacks_total {figures['rollbacks']:g}",
    ]
    helps = {
        "success_rate": "Share of deploys that were confirmed.",
        "lead_seconds_last": "Duration of the last deploy, from the lock to the confirmation.",
        "lead_seconds_mean": "Mean duration of deploys.",
        "switch_seconds_last": "Duration of the last switch.",
        "switch_seconds_mean": "Mean duration of switches.",
        "restore_seconds_last": "Duration of the last service restoration.",
        "restore_seconds_mean": "Mean duration of service restorations.",
    }
    for name, text in helps.items():
        if name in figures:
            metric = f"aapanel_deploy_{name}"
            lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge", f"{metric} {figures[name]:.6g}"]
    return "\n".join(lines) + "\n"
