# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

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


class ByHost(LoadScopeScheduling):
    """Runs the stories of different hosts side by side, and those of one host in order.

    pytest-xdist's own --dist=loadgroup does not group with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.rpartition("::")[2]
        if "elsewhere" in name or "reaches_the_database_s_server" in name:
            return "elsewhere"
        # Some stories are about both hosts that have a database server, so these two are one group.
        return "cron" if "sqlite" in name or "cron" in name else "servers"


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByHost:
    """Schedule by host."""
    return ByHost(config, log)


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


@pytest.fixture(params=[SQLITE, ELSEWHERE], ids=by_engine)
def unlike_default(request: pytest.FixtureRequest) -> Host:
    """The hosts with cron and with a remote database server, which scenario `default` lacks."""
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
