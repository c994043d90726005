# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes, by the rules or by its name, and what anybody sees of it meanwhile."""

from __future__ import annotations

import pytest
from faulty_host import RULES, Host


@pytest.fixture
def host(memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    return host


def keep(host, newest):
    """Have so many of each set stay; there are two sets."""
    rules = {"retention": {**RULES, "newest": newest}}
    host.settings["sets"] = {"full": rules, "databases": {**rules, "sources": ["panel"]}}
    host.write_settings()


def make(host, *sets):
    return [host.panelctl("create", of_set)["name"] for of_set in sets]


def break_(host, name):
    archive = host.folder / f"{name}.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")


def test_of_a_set_whose_newest_is_broken_nothing_goes(host):
    keep(host, 1)
    made = make(host, "full", "full", "databases")
    break_(host, made[1])
    status, told = host.command("prune")
    assert status == 4
    assert f"{made[1]}.tar.gz: its content is not what was signed" in told
    assert host.names() == made


def test_of_a_set_that_loses_nothing_the_newest_is_not_read_again(host):
    keep(host, 1)
    made = make(host, "full", "databases", "databases")
    break_(host, made[0])
    assert host.panelctl("prune")["removed"] == [made[1]]
