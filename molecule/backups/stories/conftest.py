# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from driver import Host

POSTGRESQL = Host("backups-debian12", "postgresql")
MARIADB = Host("backups-debian13", "mysql")
ELSEWHERE = Host(
    "backups-elsewhere",
    "postgresql",
    # As panelctl asks it.
    client=("PGHOST=backups-store", "PGUSER=aapanel", "PGPASSFILE=/etc/aapanel/backup/pgpass"),
)
SQLITE = Host("backups-cron", "sqlite", "runner", "/home/runner/panel")


def by_engine(host: Host) -> str:
    """Names a host in a test's name."""
    return f"{host.engine}-elsewhere" if host.client else host.engine


@pytest.fixture(params=[POSTGRESQL, MARIADB, SQLITE, ELSEWHERE], ids=by_engine)
def host(request: pytest.FixtureRequest) -> Host:
    """Each host."""
    found: Host = request.param
    return found


@pytest.fixture(params=[POSTGRESQL, MARIADB], ids=by_engine)
def server(request: pytest.FixtureRequest) -> Host:
    """Each host that has systemd, and its database server itself."""
    found: Host = request.param
    return found


@pytest.fixture
def servers() -> list[Host]:
    """Both of them."""
    return [POSTGRESQL, MARIADB]


@pytest.fixture
def postgresql() -> Host:
    """The host with PostgreSQL."""
    return POSTGRESQL


@pytest.fixture
def mariadb() -> Host:
    """The host with MariaDB."""
    return MARIADB


@pytest.fixture
def cron() -> Host:
    """The host of an ordinary user, without systemd."""
    return SQLITE


@pytest.fixture
def elsewhere() -> Host:
    """The host whose database server is another one's."""
    return ELSEWHERE
