# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers of the backup stories: panelctl and databases on the hosts, a writer and a visitor in the background."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.hosts import Host, ssh, wait_until
from kit.playbooks import run_playbook
from kit.programs import Program, Visitor, visitor_command

# Molecule's folder for this scenario: inventory, secrets.
SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
DATABASE = "aapanel"
SUM = 50 * 100  # of all accounts in files/writer.py

# Runs a query on an SQLite file, and prints the first column.
SQLITE = """
import contextlib, sqlite3, sys
with contextlib.closing(sqlite3.connect(sys.argv[1], timeout=10)) as database, database:
    print(*(row[0] for row in database.execute(sys.argv[2])))
"""


@dataclass(frozen=True)
class BackupHost(Host):
    """A host that makes backups.

    :param user: the account that the panel belongs to.
    :param home: folder with what a host with root has in /opt, /etc and /var; empty on hosts with root.
    :param client_env: variables that lead the clients of a remote database server to it.
    """

    engine: str
    user: str = "root"
    home: str = ""
    client_env: tuple[str, ...] = ()

    @property
    def data(self) -> str:
        """`panel_data_dir`."""
        return f"{self.home}/data" if self.home else "/var/lib/aapanel"

    @property
    def config(self) -> str:
        """`panel_config_dir`."""
        return f"{self.home}/etc" if self.home else "/etc/aapanel"

    @property
    def program(self) -> str:
        """The path of panelctl."""
        return f"{self.home}/bin/panelctl" if self.home else "panelctl"

    def command_line(self, *command: str) -> list[str]:
        """Return the command line that runs a command on the host as the panel's account."""
        # Without systemd there is no SSH server.
        if self.home:
            return ["docker", "exec", "--interactive", "--user", self.user, self.name, *command]
        return ssh(self.name, *command, user=self.user)

    def panelctl(self, *arguments: str, status: int = 0) -> Any:  # noqa: ANN401 (any JSON value)
        """Run `panelctl backup`, which must end with this exit status, and return its JSON."""
        return json.loads(self.run_expecting(status, self.program, "backup", *arguments, "--json").stdout)

    def backups(self, set_: str = "") -> list[dict[str, Any]]:
        """Return the summaries of all backups, or of those of a set, oldest first; each backup must be good."""
        found = self.panelctl("list")
        assert {backup["state"] for backup in found} <= {"good"}, found
        return [backup["summary"] for backup in found if set_ in ("", backup["summary"]["set"])]

    def last_operation(self) -> dict[str, Any]:
        """Return the last record of the history of deploys."""
        (found,) = json.loads(self.run("panelctl", "history", "--json", "--lines=1").stdout)
        return dict(found)

    def back_up(self, set_: str) -> dict[str, Any]:
        """Create a backup as the timer or cron does, and return its summary."""
        before = {backup["name"] for backup in self.backups()}
        if self.home:
            self.panelctl("create", set_, "--prune", "--wait", "60")
        else:
            self.run("systemctl", "start", f"aapanel-backup@{set_}")
        created = [backup for backup in self.backups(set_) if backup["name"] not in before]
        assert created, f"{self.name}: no new backup is listed"
        return created[-1]

    # --- panel --------------------------------------------------------------------------------------------------------

    def healthy(self) -> bool:
        """Tell whether the panel is ready and its front page works."""
        return self.run(*self._visitor(), check=False).returncode == 0

    @contextlib.contextmanager
    def visited(self) -> Iterator[list[dict[str, Any]]]:
        """Visit the panel in the meantime; at the end, the list has the failed visits."""
        failures: list[dict[str, Any]] = []
        visitor = Visitor(self.command_line(*self._visitor()))
        try:
            yield failures
        finally:
            summary = visitor.finish()
        assert summary["visits"] > 2, visitor.lines
        failures += visitor.failures

    def _visitor(self) -> list[str]:
        port = "8000" if self.home else "80"
        return visitor_command(f"http://127.0.0.1:{port}", "panel.test", "/health/ready", "/", fresh=True)

    # --- database -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Write to the database in the meantime (files/writer.py)."""
        database = {
            "postgresql": [DATABASE, DATABASE],
            "mysql": [DATABASE],
            "sqlite": [f"{self.data}/shared/data/default.db"],
        }[self.engine]
        writer = Program(self.command_line(*self._client("writer"), self.engine, *database))
        try:
            wait_until(lambda: writer.lines, 60.0, "the writer's first transactions")
            yield
        finally:
            summary = writer.finish()
        assert summary["transactions"] > 100

    @contextlib.contextmanager
    def table_changed(self, table: str) -> Iterator[None]:
        """Change the definition of a table of PostgreSQL many times in the meantime."""
        change = f"ALTER TABLE {table} ADD COLUMN m int; ALTER TABLE {table} DROP COLUMN m; TRUNCATE {table};"
        # As the app's role, which owns the table.
        command = self.command_line(*self._client("psql"), "-XAtq", "--set=ON_ERROR_STOP=1", DATABASE)
        ended, sent = threading.Event(), 0
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
            assert psql.stdin is not None
            psql.stdin.write(f"SET ROLE {DATABASE};\n")

            def send() -> None:
                nonlocal sent
                while not ended.wait(0.05):
                    assert psql.stdin is not None
                    psql.stdin.write(f"BEGIN; {change} COMMIT;\n\\echo changed\n")
                    psql.stdin.flush()
                    sent += 1

            changer = threading.Thread(target=send)
            changer.start()
            try:
                yield
            finally:
                ended.set()
                changer.join()
            changed = psql.communicate()[0].split()
        assert len(changed) == sent > 4, f"{len(changed)} of {sent} changes"

    def query(self, query: str) -> str:
        """Run a query on the live database."""
        if self.engine == "postgresql":
            # As the app's role, so that it owns the tables that are created.
            return self._psql(f"SET ROLE {DATABASE}; {query}", DATABASE)
        if self.engine == "mysql":
            return self._mariadb(query, DATABASE)
        return self._sqlite(query, f"{self.data}/shared/data/default.db")

    def databases(self) -> str:
        """Return the names of all databases of the server."""
        if self.engine == "postgresql":
            return self._psql("SELECT datname FROM pg_database")
        return self.run("mariadb", "--batch", "--execute", "SHOW DATABASES").stdout if self.engine == "mysql" else ""

    def load_restored(self, folder: str) -> None:
        """Load a database dump that was restored to a folder into a scratch database."""
        scratch = f"{DATABASE}_scratch"
        if self.engine == "postgresql":
            self._psql(f"DROP DATABASE IF EXISTS {scratch}")
            self._psql(f"CREATE DATABASE {scratch} OWNER {DATABASE}")
            dump = f"{folder}/postgresql/database.dump"
            # The remote server is older, and does not know one of the settings that pg_restore sets.
            done = self.run(*self._client("pg_restore"), "--no-privileges", "--dbname", scratch, dump, check=False)
            assert done.stderr.count("error:") == (1 if self.client_env else 0), done.stderr
        elif self.engine == "mysql":
            self.run("mariadb", "--execute", f"CREATE OR REPLACE DATABASE {scratch}")
            self.run("sh", "-c", f"mariadb {scratch} <{folder}/mysql/database.sql")

    def query_restored(self, folder: str, query: str) -> str:
        """Run a query on the database that `load_restored` loaded; on SQLite, on the restored file itself."""
        scratch = f"{DATABASE}_scratch"
        if self.engine == "postgresql":
            return self._psql(query, scratch)
        if self.engine == "mysql":
            return self._mariadb(query, scratch)
        return self._sqlite(query, f"{folder}/sqlite/database.sqlite3")

    def _psql(self, query: str, database: str = "postgres") -> str:
        return self.run(*self._client("psql"), "-XAtq", "--command", query, database).stdout.strip()

    def _mariadb(self, query: str, database: str) -> str:
        return self.run("mariadb", "--batch", "--skip-column-names", "--execute", query, database).stdout.strip()

    def _sqlite(self, query: str, file: str) -> str:
        return self.run("python3", "-c", SQLITE, file, query).stdout.strip()

    def _client(self, program: str) -> list[str]:
        return ["env", *self.client_env, program]


def play(playbook: str, hosts: Sequence[BackupHost], *arguments: str, **variables: object) -> tuple[bool, str]:
    """Run a playbook on hosts; `variables` take precedence over the inventory's.

    :returns: whether it succeeded, and its output on one line.
    """
    done = run_playbook(playbook, "--limit", ",".join(host.name for host in hosts), *arguments, **variables)
    return done.ok, done.text
