# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

from driver import BackupHost

POSTGRESQL = BackupHost("backups-debian12", "postgresql")
MARIADB = BackupHost("backups-debian13", "mysql")
REMOTE_DATABASE = BackupHost(
    "backups-remote",
    "postgresql",
    # As panelctl connects to it.
    client_env=("PGHOST=backups-store", "PGUSER=aapanel", "PGPASSFILE=/etc/aapanel/backup/pgpass"),
)
SQLITE = BackupHost("backups-cron", "sqlite", "runner", "/home/runner/panel")


class ByHost(LoadScopeScheduling):
    """Runs the stories of different hosts in parallel, and those of one host in order.

    pytest-xdist's own --dist=loadgroup does not group with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.rpartition("::")[2]
        if "remote_database" in name or "postgresql-remote" in name:
            return "remote database"
        # Some stories need both hosts that have a database server, so these two are one group.
        return "cron" if "sqlite" in name or "cron" in name else "servers"


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByHost:
    """Return the scheduler that groups stories by host."""
    return ByHost(config, log)


def by_engine(host: BackupHost) -> str:
    """Return the ID of a host in the names of tests."""
    return f"{host.engine}-remote" if host.client_env else host.engine


@pytest.fixture(params=[POSTGRESQL, MARIADB, SQLITE, REMOTE_DATABASE], ids=by_engine)
def host(request: pytest.FixtureRequest) -> BackupHost:
    """Return each host."""
    found: BackupHost = request.param
    return found


@pytest.fixture(params=[POSTGRESQL, MARIADB], ids=by_engine)
def server(request: pytest.FixtureRequest) -> BackupHost:
    """Return each host with systemd and a local database server."""
    found: BackupHost = request.param
    return found


@pytest.fixture(params=[SQLITE, REMOTE_DATABASE], ids=by_engine)
def unlike_default(request: pytest.FixtureRequest) -> BackupHost:
    """Return each host of a kind that scenario `default` lacks: with cron, and with a remote database server."""
    found: BackupHost = request.param
    return found


@pytest.fixture
def servers() -> list[BackupHost]:
    """Return both hosts with systemd and a local database server."""
    return [POSTGRESQL, MARIADB]


@pytest.fixture
def postgresql() -> BackupHost:
    """Return the host with PostgreSQL."""
    return POSTGRESQL


@pytest.fixture
def mariadb() -> BackupHost:
    """Return the host with MariaDB."""
    return MARIADB


@pytest.fixture
def cron() -> BackupHost:
    """Return the host of an ordinary user, without systemd."""
    return SQLITE


@pytest.fixture
def remote_database() -> BackupHost:
    """Return the host with a remote database server."""
    return REMOTE_DATABASE
