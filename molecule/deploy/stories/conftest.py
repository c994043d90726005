# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest
from kit.hosts import wait_until

from driver import Host, Play

HOSTS = [Host("deploy-debian12"), Host("deploy-debian13")]


def pytest_configure(config: pytest.Config) -> None:
    """Make our mark known."""
    config.addinivalue_line("markers", "always: a story that is told every time; the others take half an hour")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell all stories with THOROUGH=1, and those that STORY asks for; else those that are told every time."""
    if os.environ.get("THOROUGH") or config.option.keyword:
        return
    others = [item for item in items if item.get_closest_marker("always") is None]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def healthy(host: Host) -> bool:
    """Whether the host says so."""
    return bool(host.status()["healthy"])


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Both hosts, which are healthy; afterwards no playbook of the story runs any more."""
    for host in HOSTS:
        # What another story broke is no news here.
        host.run("systemctl", "reset-failed")
        wait_until(partial(healthy, host), 40.0, f"{host.name} is healthy")
    yield HOSTS
    Play.kill_all()
