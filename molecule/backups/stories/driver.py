# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives a story: panelctl and the databases run on the hosts, somebody writes there meanwhile, playbooks run here."""

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

from kit.hosts import ssh

ROOT = Path(__file__).resolve().parents[3]
# Molecule's folder for this scenario: inventory, secrets.
SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
DATABASE = "aapanel"
SUM = 50 * 100  # of all accounts that files/writer.py has

# Asks a database that is a file.
SQLITE = """
import contextlib, sqlite3, sys
with contextlib.closing(sqlite3.connect(sys.argv[1], timeout=10)) as database, database:
    print(*(row[0] for row in database.execute(sys.argv[2])))
"""

# Asks for two pages, as a browser does, until its input closes; prints what was wrong, and at last how often it asked.
VISITOR = """
import http.client, sys, threading, time
def ask(path):
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
    try:
        connection.request("GET", path, headers={"Host": "panel.test"})
        status = connection.getresponse().status
        return status if status >= 400 else ""
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()
over, count = threading.Event(), 0
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
while True:
    for path in ("/health/ready", "/"):
        answer = ask(path)
        if answer:
            print(time.strftime("%X"), path, answer)
    count += 1
    if over.wait(0.1):
        break
print(count)
"""


@dataclass(frozen=True)
class Host:
    """One that backs itself up.

    :param home: folder of what is below /opt, /etc and /var on a host with root; empty for these.
    :param client: variables that tell clients of a database server elsewhere where it is.
    """

    name: str
    engine: str
    user: str = "root"
    home: str = ""
    client: tuple[str, ...] = ()

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
        """panelctl."""
        return f"{self.home}/bin/panelctl" if self.home else "panelctl"

    def run(self, *command: str, check: bool = True, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command there, as whom the panel belongs to."""
        result = subprocess.run(self._line(*command), check=False, capture_output=True, text=True, input=given)
        assert not check or not result.returncode, f"{self.name}: {command}: {result.stdout}{result.stderr}"
        return result

    def panelctl(self, *arguments: str, status: int = 0) -> Any:  # noqa: ANN401 (what JSON has)
        """Run `panelctl backup`, which must end with this status; returns its JSON."""
        result = self.run(self.program, "backup", *arguments, "--json", check=False)
        said = result.stdout + result.stderr
        assert result.returncode == status, f"{self.name}: panelctl {arguments}: {result.returncode}\n{said}"
        return json.loads(result.stdout)

    def backups(self, set_: str = "") -> list[dict[str, Any]]:
        """The summaries of all backups, or of a set, oldest first; each has to be a good one."""
        found = self.panelctl("list")
        assert {backup["state"] for backup in found} <= {"good"}, found
        return [backup["summary"] for backup in found if set_ in ("", backup["summary"]["set"])]

    def unit(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def last_operation(self) -> dict[str, Any]:
        """The last line of the journal of deploys."""
        (found,) = json.loads(self.run("panelctl", "history", "--json", "--lines=1").stdout)
        return dict(found)

    def back_up(self, set_: str) -> dict[str, Any]:
        """Do what the timer does, or cron; returns the summary of what came of it."""
        before = {backup["name"] for backup in self.backups()}
        if self.home:
            self.panelctl("create", set_, "--prune", "--wait", "60")
        else:
            self.run("systemctl", "start", f"aapanel-backup@{set_}")
        made = [backup for backup in self.backups(set_) if backup["name"] not in before]
        assert made, f"{self.name}: nothing new is listed"
        return made[-1]

    # --- its panel ----------------------------------------------------------------------------------------------------

    def healthy(self) -> bool:
        """Whether a visitor finds it ready, and its front page, too."""
        return self.run(*self._visitor(), check=False).stdout == "1\n"

    @contextlib.contextmanager
    def asked(self) -> Iterator[list[str]]:
        """Have a visitor ask all the time meanwhile; then the list has what was wrong."""
        failures: list[str] = []
        command = self._line(*self._visitor())
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as visitor:
            yield failures
            said = visitor.communicate()[0].splitlines()
        assert int(said.pop()) > 1, "nobody asked"
        failures += said

    def _visitor(self) -> list[str]:
        return ["python3", "-c", VISITOR, "8000" if self.home else "80"]

    # --- its database -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Have somebody write all the time meanwhile."""
        where = {
            "postgresql": [DATABASE, DATABASE],
            "mysql": [DATABASE],
            "sqlite": [f"{self.data}/shared/data/default.db"],
        }[self.engine]
        command = self._line(*self._client("writer"), self.engine, *where)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            try:
                assert writer.stdout.readline() == "writing\n"
                yield
            finally:
                writer.stdin.close()
            assert int(writer.stdout.readline()) > 100, "nobody wrote"

    @contextlib.contextmanager
    def altered(self, table: str) -> Iterator[None]:
        """Have somebody change the definition of a table of PostgreSQL's all the time meanwhile."""
        change = f"ALTER TABLE {table} ADD COLUMN m int; ALTER TABLE {table} DROP COLUMN m; TRUNCATE {table};"
        # As the app, whose table it is then.
        command = self._line(*self._client("psql"), "-XAtq", "--set=ON_ERROR_STOP=1", DATABASE)
        over, sent = threading.Event(), 0
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
            assert psql.stdin is not None
            psql.stdin.write(f"SET ROLE {DATABASE};\n")

            def send() -> None:
                nonlocal sent
                while not over.wait(0.05):
                    assert psql.stdin is not None
                    psql.stdin.write(f"BEGIN; {change} COMMIT;\n\\echo changed\n")
                    psql.stdin.flush()
                    sent += 1

            changer = threading.Thread(target=send)
            changer.start()
            try:
                yield
            finally:
                over.set()
                changer.join()
            changed = psql.communicate()[0].split()
        assert len(changed) == sent > 4, f"{len(changed)} of {sent} changes"

    def query(self, query: str) -> str:
        """Ask the database that is in use."""
        if self.engine == "postgresql":
            # As the app, whose tables they are then.
            query = f"SET ROLE {DATABASE}; {query}"
            return self._psql(query, DATABASE)
        if self.engine == "mysql":
            return self.run("mariadb", "--batch", "--skip-column-names", "--execute", query, DATABASE).stdout.strip()
        return self.run("python3", "-c", SQLITE, f"{self.data}/shared/data/default.db", query).stdout.strip()

    def databases(self) -> str:
        """All of the server, by name."""
        if self.engine == "postgresql":
            return self._psql("SELECT datname FROM pg_database")
        return self.run("mariadb", "--batch", "--execute", "SHOW DATABASES").stdout if self.engine == "mysql" else ""

    def load(self, folder: str) -> None:
        """Load what was restored into a database beside the one that is in use."""
        scratch = f"{DATABASE}_scratch"
        if self.engine == "postgresql":
            self._psql(f"DROP DATABASE IF EXISTS {scratch}")
            self._psql(f"CREATE DATABASE {scratch} OWNER {DATABASE}")
            dump = f"{folder}/postgresql/database.dump"
            # The server elsewhere is older, and does not know one of the settings that pg_restore sets.
            done = self.run(*self._client("pg_restore"), "--no-privileges", "--dbname", scratch, dump, check=False)
            assert done.stderr.count("error:") == (1 if self.client else 0), done.stderr
        elif self.engine == "mysql":
            self.run("mariadb", "--execute", f"CREATE OR REPLACE DATABASE {scratch}")
            self.run("sh", "-c", f"mariadb {scratch} <{folder}/mysql/database.sql")

    def ask(self, folder: str, query: str) -> str:
        """Ask what was loaded; SQLite's file is asked where it was restored."""
        scratch = f"{DATABASE}_scratch"
        if self.engine == "postgresql":
            return self._psql(query, scratch)
        if self.engine == "mysql":
            return self.run("mariadb", "--batch", "--skip-column-names", "--execute", query, scratch).stdout.strip()
        return self.run("python3", "-c", SQLITE, f"{folder}/sqlite/database.sqlite3", query).stdout.strip()

    def _psql(self, query: str, database: str = "postgres") -> str:
        return self.run(*self._client("psql"), "-XAtq", "--command", query, database).stdout.strip()

    def _line(self, *command: str) -> list[str]:
        # Without systemd there is no SSH server.
        if self.home:
            return ["docker", "exec", "--interactive", "--user", self.user, self.name, *command]
        return ssh(self.name, *command, user=self.user)

    def _client(self, program: str) -> list[str]:
        return ["env", *self.client, program]


def play(playbook: str, hosts: Sequence[Host], *, check: bool = False, **variables: object) -> tuple[bool, str]:
    """Run a playbook on hosts to its end; `variables` win over the inventory's.

    :returns: whether it ended well, and all that it said, line ends as blanks.
    """
    command = ["ansible-playbook", str(ROOT / f"playbooks/{playbook}.yml"), "--inventory", str(SCRATCH / "inventory")]
    command += ["--limit", ",".join(host.name for host in hosts), "--extra-vars", json.dumps(variables)]
    command += ["--check", "--diff"] if check else []
    env = {**os.environ, "ANSIBLE_CONFIG": str(SCRATCH / "ansible.cfg"), "MOLECULE_FILE": str(SCRATCH / "molecule.yml")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**env, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode == 0, " ".join(done.stdout.split())
