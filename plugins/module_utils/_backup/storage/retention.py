# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Retention: which backups are kept (grandfather-father-son), by signed time and number, never by a file's own time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..archive import names
from ..archive.manifest import Summary
from ..errors import BackupError
from . import catalog

_NEWEST_MAX_AGE = timedelta(days=45)  # an older newest backup means a wrong clock rather than no backups for so long


@dataclass(frozen=True)
class Policy:
    """How many backups are kept: the newest of so many hours, days, weeks and months, and so many newest of all."""

    hourly: int = 48
    daily: int = 14
    weekly: int = 8
    monthly: int = 12
    newest: int = 6


@dataclass(frozen=True)
class Candidate:
    """A backup with an authentic manifest.

    :param began: start of its snapshot, in UTC, as its manifest says.
    :param adopted: whether another machine made it, by another clock.
    :param broken: whether its archive is known to be broken. It is removed at its time, but does not count towards the
        policy, so that no good backup is removed because of it.
    """

    name: str
    seq: int
    began: datetime
    set: str = names.FULL
    adopted: bool = False
    broken: bool = False

    @classmethod
    def of(cls, summary: Summary, *, adopted: bool = False, broken: bool = False) -> Candidate:
        """Return the candidate for a backup."""
        return cls(summary.name, summary.seq, names.parse_timestamp(summary.began), summary.set, adopted, broken)

    @property
    def sort_key(self) -> tuple[bool, str, int]:
        """Sort key of the backup, oldest first."""
        return catalog.sort_key(names.timestamp(self.began), self.seq, adopted=self.adopted)


@dataclass(frozen=True)
class Decision:
    """The backups to keep, each with the reasons, and those to remove, oldest first."""

    keep: dict[str, list[str]] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)


_BUCKETS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda began: (began.year, began.month, began.day, began.hour),
    "daily": lambda began: (began.year, began.month, began.day),
    "weekly": lambda began: tuple(began.isocalendar()[:2]),
    "monthly": lambda began: (began.year, began.month),
}


def decide(
    candidates: Sequence[Candidate], policies: Mapping[str, Policy], now: datetime, pins: Collection[str] = ()
) -> Decision:
    """Decide which backups to keep; change nothing.

    :param candidates: all backups with an authentic manifest; others are never removed.
    :param policies: by set; backups of a set without one are kept.
    :param pins: names of the backups that are kept at any age.
    :raises BackupError: a clock was wrong, so that ages mean nothing; or a policy would keep no backup.
    """
    newest_first = sorted(candidates, key=lambda backup: backup.sort_key, reverse=True)
    _check_clock(newest_first, now)
    keep: dict[str, list[str]] = {}
    for name in {backup.set for backup in candidates}:
        of_set = [backup for backup in newest_first if backup.set == name]
        if name in policies:
            _apply(policies[name], name, of_set, keep)
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


def _apply(policy: Policy, name: str, newest_first: Sequence[Candidate], keep: dict[str, list[str]]) -> None:
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
    # Adopted backups have the times of another machine's clock, which compare with nothing here.
    for newer, older in itertools.pairwise([backup for backup in newest_first if not backup.adopted]):
        if newer.began < older.began - names.CLOCK_TOLERANCE:
            raise BackupError(
                f"nothing was pruned: the clock went back between {older.name} and {newer.name}, so their ages mean "
                "nothing. Run `panelctl backup remove` on the one that was made with a wrong clock."
            )
    if newest_first and newest_first[0].began > now + names.CLOCK_TOLERANCE:
        raise BackupError(
            f"nothing was pruned: {newest_first[0].name} is from the future, so the clock is wrong now or was wrong "
            "then. Correct the clock; or create another backup and `panelctl backup remove` this one."
        )
    if newest_first and (age := now - newest_first[0].began) > _NEWEST_MAX_AGE:
        raise BackupError(
            f"nothing was pruned: the newest backup, {newest_first[0].name}, is {age.days} days old, so the clock is "
            "wrong or backups have failed for long. Correct the clock, or create a backup first."
        )
