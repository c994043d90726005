# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clock jumps and concurrent runs: every backup has a unique name and number."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from faulty_host import Host

NOW = datetime(2026, 11, 22, 21, 30, tzinfo=timezone.utc)
YEAR = timedelta(days=365)


@pytest.fixture
def host(memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    return host


def create(host, now):
    done = host.run("create", "--json", now=now)
    assert done.status == 0, done.err


def numbers(host):
    return [found["summary"]["seq"] for found in host.panelctl("list")]


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["ahead", "back"])
def test_prune_refuses_after_a_clock_jump(jump, host):
    for _ in range(3):
        create(host, NOW)
    refused = host.run("prune", now=NOW + jump)
    assert refused.status == 1
    assert "nothing was pruned" in refused.err
    assert numbers(host) == [1, 2, 3]


def test_clock_that_jumps_back_and_forth_loses_nothing(host):
    moments = [NOW, NOW + YEAR, NOW, NOW - YEAR, NOW, NOW]
    for moment in moments:
        create(host, moment)
        # In order of creation, regardless of their names.
        host.assert_chained()
    assert numbers(host) == [1, 2, 3, 4, 5, 6]
    for moment in {*moments}:
        refused = host.run("prune", now=moment)
        assert (refused.status, refused.out) == (1, "")
        assert "was pruned" in refused.err
    assert numbers(host) == [1, 2, 3, 4, 5, 6]
    assert {found["result"] for found in host.panelctl("verify", "--all")} == {"good"}


def test_prune_with_a_clock_ahead_follows_the_retention(host):
    for _ in range(3):
        create(host, NOW)
    create(host, NOW + YEAR)
    done = host.run("prune", now=NOW + YEAR)
    assert done.status == 0, done.err
    assert numbers(host) == [3, 4]


def test_several_backups_in_the_same_second(host):
    for _ in range(3):
        create(host, NOW)
    assert len(host.names()) == len(set(host.names())) == 3
    assert not host.left()


@pytest.fixture
def installed(host, install):
    """The installed program, for real processes."""
    return install("_backup", host.settings)


def start(program, *arguments):
    command = [sys.executable, "-I", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(("wait", "statuses"), [("60", {0}), ("0", {0, 5})])
def test_concurrent_runs_wait_or_are_refused(wait, statuses, host, installed):
    # Makes each run take a while.
    (host.data / "large").write_bytes(bytes(20 << 20))
    running = [start(installed, "create", "--wait", wait) for _ in range(3)]
    told = [process.communicate()[0] for process in running]
    ended = [process.returncode for process in running]
    assert set(ended) <= statuses, told
    assert "Traceback" not in "".join(told)
    assert numbers(host) == list(range(1, ended.count(0) + 1))
    host.assert_sound(host.names())


def test_two_concurrent_first_keys_are_both_kept(host, installed):
    host.keyring.unlink()
    running = [start(installed, "key-rotate") for _ in range(2)]
    told = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    # A backup may already be signed with the first key, so it must stay in the keyring.
    assert "has 1 keys" in "".join(told)
    assert "has 2 keys" in "".join(told)
