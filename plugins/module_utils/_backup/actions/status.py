# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The status of all backups: whether they exist, are recent, are verified, and are proven to restore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..archive import names
from ..archive.manifest import Summary
from ..sources.source import Source
from ..storage.store import State, Store
from . import drill, restore
from .drill import RecoveryObjectives
from .runs import LastRuns

_CLOCK = "the clock is wrong now, or was wrong then"


@dataclass(frozen=True)
class Status:
    """The status of all backups of a host.

    :param sources: the newest backup of each source, and its age in seconds.
    :param problems: what needs attention; empty if all is well.
    """

    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    backups: int = 0
    size: int = 0
    runs: dict[str, Any] = field(default_factory=dict)
    drill: dict[str, Any] | None = None
    problems: list[str] = field(default_factory=list)


def collect(
    store: Store, sources: Sequence[Source], objectives: RecoveryObjectives, runs: Mapping[str, LastRuns]
) -> Status:
    """Return the status. Nothing is changed, and no archive is read.

    :param runs: the last runs by kind.
    :raises BackupError: the catalog or the drill reports cannot be read.
    """
    now = datetime.now(timezone.utc)
    found = store.backups()
    good = [backup.summary for backup in found if backup.state is State.GOOD and backup.summary]
    problems = [f"{b.name}: {b.problem}" for b in found if b.state not in (State.GOOD, State.OLD)]
    problems += [
        f"{path}: a folder was in the place of a backup file, and was renamed: look at it, and remove it"
        for path in store.quarantined()
    ]
    newest = {source.name: _newest(source, good, now) for source in sources}
    for source in sources:
        age, age_max = newest[source.name]["age"], objectives.rpo_max if source.is_database else objectives.files_max
        if age is None:
            problems += [] if source.optional else [f"{source.name}: never backed up"]
        elif names.is_in_future(age):
            problems.append(f"{source.name}: {newest[source.name]['newest']} is from the future: {_CLOCK}")
        elif age >= age_max:
            problems.append(f"{source.name}: the newest backup is {age} s old, but must be younger than {age_max} s")
    reports = drill.read_reports(store)
    if reports and reports[-1].problem:
        problems.append(f"the last drill failed: {reports[-1].problem}")
    # Without a drill, the oldest good backup tells how long a drill has been possible.
    proven = reports[-1].began if reports else good[0].began if good else names.timestamp(now)
    if (unproven := _age(proven, now)) > objectives.drill_max:
        problems.append(f"no drill has run for {unproven} s: run `panelctl backup drill`")
    if reports and names.is_in_future(unproven):
        problems.append(f"the last drill is from the future: {_CLOCK}")
    if restore.is_interrupted(store):
        problems.append("a restore was interrupted: run `panelctl backup settle`")
    problems += [
        f"{folder} is left over from a restore and could not be removed: remove it"
        for folder in restore.leftovers(store)
    ]
    last_good_drill = runs.get("drill", LastRuns()).last_success
    problems += [
        f"the last `{kind}` failed: {run.problem}"
        for kind, run in runs.items()
        # A drill proves as much as a restore in place, which nobody repeats only to clear this problem.
        if run.problem and not (kind == "restore" and last_good_drill > run.last_failure)
    ]
    return Status(
        newest,
        len(good),
        sum(summary.size for summary in good),
        {kind: asdict(run) for kind, run in runs.items()},
        {**asdict(reports[-1]), "result": reports[-1].result} if reports else None,
        problems,
    )


def _newest(source: Source, good: Sequence[Summary], now: datetime) -> dict[str, Any]:
    # Snapshots do not count, because neither a restore nor a drill chooses them.
    backups = [summary for summary in good if summary.set != names.BEFORE_RESTORE]
    having = [summary for summary in backups if any(source.name == record.name for record in summary.sources)]
    if not having:
        return {"newest": None, "age": None, "partial": False}
    newest = having[-1]
    return {"newest": newest.name, "age": _age(newest.began, now), "partial": newest.partial}


def _age(began: str, now: datetime) -> int:
    return int((now - names.parse_timestamp(began)).total_seconds())
