# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service import settings
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.retention import (
    Candidate,
    Policy,
    decide,
)
from hypothesis import assume, given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
counts = st.integers(0, 6)
policies = st.builds(Policy, counts, counts, counts, counts, st.integers(1, 6))
gaps = st.lists(st.integers(1, 60 * 24 * 40), max_size=40)


def series(minutes):
    """Return backups at these intervals in minutes, newest first, up to NOW."""
    found, age = [], 0
    for number, gap in enumerate(minutes):
        seq = len(minutes) - number
        found.append(Candidate(f"b{seq:03}", seq, NOW - timedelta(minutes=age)))
        age += gap
    return found


@given(gaps, policies, st.sets(st.integers(1, 40)))
def test_which_backups_are_kept_and_removed(minutes, policy, pinned):
    made = series(minutes)
    pins = {f"b{seq:03}" for seq in pinned}
    found = decide(made, {"full": policy}, NOW, pins)
    names = [backup.name for backup in made]
    assert set(found.keep) | set(found.remove) == set(names)
    assert not set(found.keep) & set(found.remove)
    assert set(names[: policy.newest]) <= set(found.keep)
    assert pins & set(names) <= set(found.keep)
    most = policy.hourly + policy.daily + policy.weekly + policy.monthly + policy.newest + len(pins)
    assert len(found.keep) <= most
    assert found.remove == sorted(found.remove)


@given(gaps, policies, st.sets(st.integers(1, 40)))
def test_a_broken_backup_never_causes_the_removal_of_a_good_one(minutes, policy, broken):
    made = [replace(backup, broken=backup.seq in broken) for backup in series(minutes)]
    good = [backup for backup in made if not backup.broken]
    assume(not good or NOW - good[0].began < timedelta(days=45))
    found, without = decide(made, {"full": policy}, NOW), decide(good, {"full": policy}, NOW)
    assert {name: found.keep.get(name) for name in without.keep} == without.keep
    assert set(found.keep) & {backup.name for backup in good} == set(without.keep)


@given(gaps.filter(bool), policies)
def test_a_second_prune_removes_nothing(minutes, policy):
    made = series(minutes)
    first = decide(made, {"full": policy}, NOW)
    left = [backup for backup in made if backup.name in first.keep]
    assert decide(left, {"full": policy}, NOW).remove == []


def test_a_year_of_a_backup_every_twenty_minutes():
    made = series([20] * (3 * 24 * 365))
    found = decide(made, {"full": Policy()}, NOW)
    kept = sorted((backup for backup in made if backup.name in found.keep), key=lambda backup: backup.seq)
    rules = [rule for reasons in found.keep.values() for rule in reasons]
    assert [rules.count(rule) for rule in ("hourly", "daily", "weekly", "monthly", "newest")] == [48, 14, 8, 12, 6]
    assert NOW - kept[0].began > timedelta(days=300)


@pytest.mark.parametrize("offset", [timedelta(days=365), timedelta(days=-365), timedelta(hours=1)])
def test_a_clock_that_jumps_stops_the_prune(offset):
    made = series([20] * 100)
    with pytest.raises(BackupError, match=r"clock|days old"):
        decide(made, {"full": Policy(0, 0, 0, 0, 1)}, NOW + offset if offset.days else NOW - offset)
    newest = Candidate("b101", 101, NOW + offset)
    with pytest.raises(BackupError, match=r"clock|future|days old"):
        decide([newest, *made], {"full": Policy(0, 0, 0, 0, 1)}, NOW)


def test_a_backup_made_with_a_wrong_clock_stops_the_prune():
    made = series([20] * 10)
    wrong = [Candidate(b.name, b.seq, b.began - timedelta(days=365) if b.seq == 5 else b.began) for b in made]
    with pytest.raises(BackupError, match="went back"):
        decide(wrong, {"full": Policy(0, 0, 0, 0, 1)}, NOW)


def test_the_last_backup_is_always_kept():
    with pytest.raises(BackupError, match="newest"):
        decide(series([20]), {"full": Policy(newest=0)}, NOW)


def test_each_set_has_its_own_policy():
    daily = [replace(backup, began=backup.began - timedelta(hours=9)) for backup in series([24 * 60] * 10)]
    often = [
        replace(backup, name=f"o{backup.seq}", seq=100 + backup.seq, set="databases") for backup in series([20] * 9)
    ]
    gone = [Candidate("x", 0, NOW - timedelta(days=11), "gone")]
    found = decide([*gone, *daily, *often], {"full": Policy(0, 3, 0, 0, 1), "databases": Policy(2, 0, 0, 0, 1)}, NOW)
    assert list(found.keep) == ["x", "b008", "b009", "b010", "o8", "o9"]


def test_snapshots_of_restores_are_kept_for_some_weeks():
    daily = [replace(backup, set=names.BEFORE_RESTORE) for backup in series([24 * 60] * 60)]
    rules = {names.BEFORE_RESTORE: settings._BEFORE_RESTORE.retention}
    kept = [backup for backup in daily if backup.name in decide(daily, rules, NOW).keep]
    assert [backup.seq for backup in kept[:7]] == list(range(60, 53, -1))
    assert timedelta(days=21) <= NOW - kept[-1].began < timedelta(days=35)
    often = [replace(backup, set=names.BEFORE_RESTORE) for backup in series([1] * 9)]
    assert [backup.seq for backup in often if backup.name in decide(often, rules, NOW).keep] == [9, 8, 7]


def test_adopted_backups_count_as_older_than_own_ones_whatever_their_numbers():
    """When a machine replaces another one, the numbers of both begin with one, and their clocks differ."""
    old = [Candidate(f"old{seq}", seq, NOW - timedelta(days=9, hours=-seq), adopted=True) for seq in range(1, 9)]
    own = [Candidate(f"own{seq}", seq, NOW - timedelta(hours=9 - seq)) for seq in (1, 2, 9)]
    policy = Policy(0, 0, 0, 0, 4)
    found = decide([*own, *old], {"full": policy}, NOW)
    assert list(found.keep) == ["old8", "own1", "own2", "own9"]
    assert found.remove == [f"old{seq}" for seq in range(1, 8)]
    # For own backups the clock still has to be right.
    with pytest.raises(BackupError, match="went back"):
        decide([*old, *[replace(backup, began=NOW - timedelta(hours=backup.seq)) for backup in own]], {}, NOW)
