# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest
from kit.hosts import wait_until
from kit.playbooks import Playbook

from driver import PanelHost

HOSTS = [PanelHost("deploy-debian12"), PanelHost("deploy-debian13")]


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark of the stories that always run."""
    config.addinivalue_line("markers", "always: a story of every run; the other stories take half an hour")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run all stories with THOROUGH=1, those that STORY selects, or else those that are marked `always`."""
    if os.environ.get("THOROUGH") or config.option.keyword:
        return
    others = [item for item in items if item.get_closest_marker("always") is None]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def healthy(host: PanelHost) -> bool:
    """Tell whether `panelctl status` calls the host healthy."""
    return bool(host.status()["healthy"])


@pytest.fixture
def hosts() -> Iterator[list[PanelHost]]:
    """Return both hosts, once they are healthy; kill the playbooks that the story left."""
    for host in HOSTS:
        # Forget the units that failed in another story.
        host.run("systemctl", "reset-failed")
        wait_until(partial(healthy, host), 40.0, f"{host.name} is healthy")
    yield HOSTS
    Playbook.kill_all()
