# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Whether the backups are what they should be: there, young enough, verified, and proven to restore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..archive import names
from ..archive.manifest import Summary
from ..sources.source import Source
from ..storage.store import State, Store
from . import drill, restore, runs
from .drill import RecoveryObjectives

_CLOCK = "the clock is wrong now, or it was then"


@dataclass(frozen=True)
class Status:
    """What there is to know.

    :param sources: of each source, its newest backup and its age in seconds.
    :param problems: what somebody should look at.
    """

    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    backups: int = 0
    size: int = 0
    runs: dict[str, Any] = field(default_factory=dict)
    drill: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)


def collect(
    store: Store, origins: Sequence[Source], objectives: RecoveryObjectives, last: dict[str, runs.LastRuns]
) -> Status:
    """Look at all of it; changes nothing.

    :raises BackupError: the books cannot be read.
    """
    now = datetime.now(timezone.utc)
    found = store.backups()
    good = [backup.summary for backup in found if backup.state is State.GOOD and backup.summary]
    problems = [f"{b.name}: {b.problem}" for b in found if b.state not in (State.GOOD, State.OLD)]
    problems += [
        f"{path}: somebody put it in the place of a backup: look at it, and remove it" for path in store.quarantined()
    ]
    sources = {origin.name: _newest(origin, good, now) for origin in origins}
    for origin in origins:
        most = objectives.rpo_max if origin.is_database else objectives.files_max
        age = sources[origin.name]["age"]
        if age is None:
            problems += [] if origin.optional else [f"{origin.name}: it was never backed up"]
        elif names.is_in_future(age):
            problems.append(f"{origin.name}: {sources[origin.name]['newest']} is from the future: {_CLOCK}")
        elif age >= most:
            problems.append(f"{origin.name}: its newest backup is {age} s old, and should be younger than {most} s")
    reports = drill.read_reports(store)
    if reports and reports[-1].problem:
        problems.append(f"the last drill failed: {reports[-1].problem}")
    # Whatever there is to prove, and since when nobody has.
    proven = reports[-1].began if reports else good[0].began if good else names.timestamp(now)
    if (unproven := _age(proven, now)) > objectives.drill_max:
        problems.append(f"for {unproven} s no drill has proven that they restore")
    if reports and names.is_in_future(unproven):
        problems.append(f"the last drill is from the future: {_CLOCK}")
    if restore.is_interrupted(store):
        problems.append("a restore died, and what it left is not settled: `panelctl backup settle`")
    problems += [
        f"{folder} is left over of a restore, and could not be removed: remove it"
        for folder in restore.leftovers(store)
    ]
    proven_at = last.get("drill", runs.LastRuns()).last_success
    problems += [
        f"the last `{kind}` failed: {run.problem}"
        for kind, run in last.items()
        # Nobody restores in place for no other reason than to be rid of this.
        if run.problem and not (kind == "restore" and proven_at > run.last_failure)
    ]
    return Status(
        sources,
        len(good),
        sum(summary.size for summary in good),
        {kind: asdict(run) for kind, run in last.items()},
        {**asdict(reports[-1]), "result": reports[-1].result} if reports else None,
        problems,
    )


def _newest(origin: Source, good: Sequence[Summary], now: datetime) -> dict[str, Any]:
    # Neither a restore nor a drill takes what a restore has replaced.
    wanted = [summary for summary in good if summary.set != names.BEFORE_RESTORE]
    having = [summary for summary in wanted if any(origin.name == source.name for source in summary.sources)]
    if not having:
        return {"newest": None, "age": None, "partial": False}
    newest = having[-1]
    return {"newest": newest.name, "age": _age(newest.began, now), "partial": newest.partial}


def _age(began: str, now: datetime) -> int:
    return int((now - names.parse_timestamp(began)).total_seconds())
