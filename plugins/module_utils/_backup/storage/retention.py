# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Which backups stay: grandfather, father and son, by the signed time and number, never by a file's own time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..archive import names
from ..archive.manifest import Summary
from ..errors import BackupError
from . import catalog

_APART = timedelta(days=45)  # longer than that nobody goes without a backup, if the clock is right


@dataclass(frozen=True)
class Policy:
    """How many stay: of so many hours, days, weeks and months the newest one each, and so many newest in any case."""

    hourly: int = 48
    daily: int = 14
    weekly: int = 8
    monthly: int = 12
    newest: int = 6


@dataclass(frozen=True)
class Candidate:
    """A backup whose manifest is good.

    :param began: when its snapshot began, in UTC, as its manifest says.
    :param adopted: whether another machine made it, by another clock.
    :param broken: whether its archive is known to be; it goes when it would, and no good one goes because it is there.
    """

    name: str
    seq: int
    began: datetime
    set: str = names.FULL
    adopted: bool = False
    broken: bool = False

    @classmethod
    def of(cls, summary: Summary, *, adopted: bool = False, broken: bool = False) -> Candidate:
        """Return what counts of a backup here."""
        return cls(summary.name, summary.seq, names.parse_timestamp(summary.began), summary.set, adopted, broken)

    @property
    def sort_key(self) -> tuple[bool, str, int]:
        """What sorts backups, oldest first."""
        return catalog.sort_key(names.timestamp(self.began), self.seq, adopted=self.adopted)


@dataclass(frozen=True)
class Decision:
    """What stays, each with why, and what goes, oldest first."""

    keep: dict[str, list[str]] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)


_BUCKETS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda began: (began.year, began.month, began.day, began.hour),
    "daily": lambda began: (began.year, began.month, began.day),
    "weekly": lambda began: tuple(began.isocalendar()[:2]),
    "monthly": lambda began: (began.year, began.month),
}


def decide(
    made: Sequence[Candidate], policies: Mapping[str, Policy], now: datetime, pins: Collection[str] = ()
) -> Decision:
    """Decide, without touching anything.

    :param made: the backups whose manifests are good; what is not is nobody's to remove here.
    :param policies: by set; backups of a set that has none stay.
    :param pins: names of those that stay, whatever their age.
    :raises BackupError: a clock has jumped, so that ages say nothing, or a policy would keep none.
    """
    newest_first = sorted(made, key=lambda backup: backup.sort_key, reverse=True)
    _check_clock(newest_first, now)
    keep: dict[str, list[str]] = {}
    for name in {backup.set for backup in made}:
        of_set = [backup for backup in newest_first if backup.set == name]
        if name in policies:
            _keep(of_set, name, policies[name], keep)
        else:
            keep |= {backup.name: [f"there is no set {name} any more"] for backup in of_set}
    for backup in newest_first:
        if backup.name in pins:
            keep.setdefault(backup.name, []).append("pinned")
    oldest_first = newest_first[::-1]
    return Decision(
        {backup.name: keep[backup.name] for backup in oldest_first if backup.name in keep},
        [backup.name for backup in oldest_first if backup.name not in keep],
    )


def _keep(newest_first: Sequence[Candidate], name: str, policy: Policy, keep: dict[str, list[str]]) -> None:
    if policy.newest < 1:
        raise BackupError(
            f"set {name}: `newest` must be at least 1, or a day without a backup would remove the last one"
        )
    good = 0
    for backup in newest_first:
        if good < policy.newest:
            keep.setdefault(backup.name, []).append("newest")
            good += not backup.broken
    for rule, bucket in _BUCKETS.items():
        seen: set[tuple[int, ...]] = set()
        for backup in newest_first:
            if len(seen) < getattr(policy, rule) and bucket(backup.began) not in seen:
                keep.setdefault(backup.name, []).append(rule)
                if not backup.broken:
                    seen.add(bucket(backup.began))


def _check_clock(newest_first: Sequence[Candidate], now: datetime) -> None:
    # What another machine's clock said is nothing to compare with.
    for newer, older in itertools.pairwise([backup for backup in newest_first if not backup.adopted]):
        if newer.began < older.began - names.CLOCK_TOLERANCE:
            raise BackupError(
                f"the clock has gone back between {older.name} and {newer.name}, so their ages say nothing: nothing is "
                "pruned. Look at both, and `panelctl backup remove` the one that was made with a wrong clock."
            )
    if newest_first and newest_first[0].began > now + names.CLOCK_TOLERANCE:
        raise BackupError(
            f"{newest_first[0].name} is from the future: the clock is wrong now, or it was then. Nothing is pruned. "
            "Mend the clock, or make another one and `panelctl backup remove` this one."
        )
    if newest_first and (age := now - newest_first[0].began) > _APART:
        raise BackupError(
            f"the newest backup, {newest_first[0].name}, is {age.days} days old: the clock is wrong, or backups have "
            "failed for long. Nothing is pruned; make one first."
        )
