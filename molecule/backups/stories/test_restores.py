# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that come back where they came from, whoever is killed meanwhile; and drills, which prove that they would."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from kit.hosts import docker, wait_until

from driver import DATABASE, SUM, Host, play

# Runs a restore and kills it, with all that it has started, so many seconds after it came to a phase.
KILLER = """
import json, os, signal, subprocess, sys, time
program, state, phase, delay, *name = sys.argv[1:]
null = subprocess.DEVNULL
command = [program, "backup", "restore", "--yes", "--wait", "60", *name]
restore = subprocess.Popen(command, stdout=null, stderr=null, start_new_session=True)
while restore.poll() is None:
    try:
        with open(f"{state}/restore.json") as file:
            if json.load(file)["phase"] == phase:
                time.sleep(float(delay))
                os.killpg(restore.pid, signal.SIGKILL)
                break
    except (OSError, ValueError):
        pass
    time.sleep(0.002)
print(restore.wait())
"""

# Phases of a restore, and seconds after it came to them.
KILLED_AT = [("loading", 0.3), ("swapping", 0.0), ("swapping", 0.05), ("swapping", 0.4), ("done", 0.0)]

# Says whom it can reach, and whether it has to ask for the name.
CURIOUS = """
import os, socket
def reach(host, port):
    try:
        socket.create_connection((host, port), 3).close()
        return "open"
    except OSError as error:
        return type(error).__name__
server, other = reach("backups-store", 5432), reach("backups-debian12", 80)
print("server:", server, "other:", other, "known:", "backups-store" in open("/etc/hosts").read())
print("beside:", os.listdir("/var/lib/beside"))
"""
DROP_IN = "/run/systemd/system/aapanel-drill-app@.service.d"


@dataclass(frozen=True)
class Changed:
    """A host that was backed up and then changed: what there is now, and what there was."""

    backup: dict[str, Any]
    before: tuple[str, str]
    now: tuple[str, str]


def look(host: Host) -> tuple[str, str]:
    """A word in the database, and one in a file."""
    word = host.query("SELECT max(word) FROM words")
    return word, host.run("cat", f"{host.data}/shared/data/word").stdout


def put(host: Host, word: str) -> None:
    """Change both."""
    host.query("DROP TABLE IF EXISTS words")
    host.query("CREATE TABLE words (word varchar(64))")
    host.query(f"INSERT INTO words VALUES ('{word}')")
    host.run("sh", "-c", f"cat >{host.data}/shared/data/word", given=word)


def settled(host: Host) -> None:
    """Nothing is left over, and the panel serves."""
    assert not host.run("find", f"{host.data}/backup-state", "-name", "restore*").stdout
    assert "scratch" not in host.databases()
    assert "before" not in host.databases()
    wait_until(host.healthy, 30.0, "a healthy panel")


@pytest.fixture
def changed(host: Host) -> Iterator[Changed]:
    """Back everything up, and change it."""
    old, new = secrets.token_hex(8), secrets.token_hex(8)
    put(host, old)
    backup = host.back_up("full")
    put(host, new)
    yield Changed(backup, (old, old), (new, new))
    host.query("DROP TABLE IF EXISTS words")


def test_what_was_backed_up_is_there_again(host: Host, changed: Changed) -> None:
    """Database and files; and what there was before comes back just so."""
    done = host.panelctl("restore", "--yes", "--wait", "60")
    assert done["sources"] == dict.fromkeys(("data", "database"), changed.backup["name"])
    assert look(host) == changed.before
    settled(host)
    host.panelctl("restore", done["snapshot"], "--yes", "--wait", "60")
    assert look(host) == changed.now
    assert host.query("SELECT sum(amount) FROM accounts") == str(SUM)
    settled(host)


@pytest.fixture
def settings(postgresql: Host) -> Iterator[None]:
    """The database has settings of its own, and somebody else may connect."""
    postgresql.query(f"ALTER DATABASE {DATABASE} SET search_path = '\"$user\"', 'odd, one', public")
    postgresql.query(f"ALTER DATABASE {DATABASE} SET statement_timeout = '61s'")
    postgresql.query(f"ALTER ROLE {DATABASE} IN DATABASE {DATABASE} SET work_mem = '5MB'")
    postgresql.query(f"GRANT CONNECT ON DATABASE {DATABASE} TO pg_monitor")
    yield
    postgresql.query(f"ALTER DATABASE {DATABASE} RESET ALL")
    postgresql.query(f"ALTER ROLE {DATABASE} IN DATABASE {DATABASE} RESET ALL")
    postgresql.query(f"REVOKE CONNECT ON DATABASE {DATABASE} FROM pg_monitor")


def of_database(host: Host) -> str:
    """What PostgreSQL keeps of a database outside of it."""
    settings = "SELECT setrole::regrole, setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid ORDER BY 1"
    found = f"SELECT datacl, ARRAY(SELECT s::text FROM ({settings}) AS s) FROM pg_database d"
    return host.query(f"{found} WHERE datname = '{DATABASE}'")


@pytest.mark.usefixtures("settings")
def test_what_is_set_for_a_database_stays(postgresql: Host) -> None:
    """No dump has it. What only a superuser may set ends the restore before anything is touched, with the cure."""
    postgresql.back_up("databases")
    before = of_database(postgresql)
    assert "odd, one" in before
    assert "pg_monitor" in before
    superuser = ["su", "postgres", "-c"]
    postgresql.run(*superuser, f"psql -c \"ALTER DATABASE {DATABASE} SET log_statement = 'ddl'\"")
    with postgresql.asked() as failures:
        done = postgresql.run("panelctl", "backup", "restore", "--yes", "--only", "database", check=False)
    postgresql.run(*superuser, f"psql -c 'ALTER DATABASE {DATABASE} RESET log_statement'")
    assert done.returncode == 1
    assert "setting log_statement" in done.stderr
    assert not failures
    settled(postgresql)
    postgresql.panelctl("restore", "--yes", "--only", "database", "--wait", "60")
    assert of_database(postgresql) == before
    settled(postgresql)


def test_one_that_is_killed(host: Host, changed: Changed) -> None:
    """Wherever it is: the next one who looks puts the present back, or finds it done, and the panel serves."""
    for phase, delay in KILLED_AT:
        put(host, changed.now[0])
        # By its name: cron makes another one each minute.
        arguments = (host.program, f"{host.data}/backup-state", phase, str(delay), changed.backup["name"])
        status = int(host.run("python3", "-c", KILLER, *arguments).stdout)
        assert status in {0, -9}, f"{phase} + {delay} s: the restore ended with {status}"
        killed = status == -9
        said = host.panelctl("settle", "--wait", "60")
        where = f"{phase} + {delay} s, killed: {killed}, {said}"
        assert look(host) in {changed.before, changed.now}, where
        if phase == "loading" or said["done"] == "put the present back":
            assert look(host) == changed.now, where
        if not killed or phase == "done":
            assert look(host) == changed.before, where
        settled(host)


def test_cron_settles_a_restore_that_died_with_the_machine(cron: Host) -> None:
    """At boot, as cron takes it: the file that says that there was none since is gone."""
    put(cron, "backed up")
    cron.back_up("full")
    put(cron, "present")
    root = replace(cron, user="root")
    root.run("sh", "-c", "kill $(cat /run/crond.pid)")
    killed = cron.run("python3", "-c", KILLER, cron.program, f"{cron.data}/backup-state", "swapping", "0.0").stdout
    assert killed == "-9\n"
    state = ["find", f"{cron.data}/backup-state", "-name", "restore.json"]
    assert cron.run(*state).stdout
    root.run("sh", "-c", "rm -f /run/crond.reboot /run/crond.pid; cron")
    wait_until(lambda: not cron.run(*state).stdout, 60.0, "a restore that is settled")
    settled(cron)
    assert look(cron) == ("present", "present")
    cron.query("DROP TABLE words")


def test_a_machine_that_dies_while_it_restores(server: Host) -> None:
    """It comes up with what there was."""
    put(server, "backed up")
    server.back_up("full")
    put(server, "present")
    killed = server.run("python3", "-c", KILLER, server.program, f"{server.data}/backup-state", "swapping", "0.05")
    assert killed.stdout == "-9\n"
    docker("restart", "--time=30", server.name)
    journal = ["find", f"{server.data}/backup-state", "-name", "restore.json"]
    wait_until(lambda: not server.run(*journal).stdout, 90.0, "a restore that is settled")
    settled(server)
    assert look(server) == ("present", "present")
    server.query("DROP TABLE words")
    # What was sent just then is sent with the next one.
    server.panelctl("push")


def test_a_drill_proves_it_while_the_panel_serves(host: Host, changed: Changed) -> None:
    """Loaded beside it, compared, and the panel is healthy on it; the present is as it was."""
    with host.asked() as failures:
        report = host.panelctl("drill")
    assert (report["result"], report["problem"]) == ("passed", "")
    assert set(report["sources"]) == {"data", "database"}
    assert all(len(source["canary"]) == 36 for source in report["sources"].values())
    assert report["sources"]["database"]["rows"] > 50
    assert report["health"] == ""
    assert (report["rto"] < 900, report["rpo"] < 3600) == (True, True)
    print(host.name, "RTO", report["rto"], "s, RPO", report["rpo"], "s")  # noqa: T201
    assert look(host) == changed.now
    assert failures == []
    settled(host)
    assert host.panelctl("status")["drill"]["result"] == "passed"


@contextlib.contextmanager
def before_its_panel(host: Host, command: str) -> Iterator[None]:
    """Have the unit of a drill's panel run something before it starts."""
    text = f"[Service]\nExecStartPre={command}\n"
    host.run("sh", "-c", f"mkdir {DROP_IN} && cat >{DROP_IN}/story.conf", given=text)
    host.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        host.run("rm", "-r", DROP_IN)
        host.run("systemctl", "daemon-reload")


@pytest.fixture
def curious(elsewhere: Host) -> Iterator[None]:
    """The panel of a drill looks around before it starts."""
    program = "/usr/local/bin/curious"
    elsewhere.run("sh", "-c", f"cat >{program}", given=CURIOUS)

    def reached() -> bool:
        return "server: open other: open" in elsewhere.run("python3", program).stdout

    # Outside of the unit both answer; another story may be restarting one of them just now.
    wait_until(reached, 60.0, "an answer of both")
    assert "beside: ['present']" in elsewhere.run("python3", program).stdout
    with before_its_panel(elsewhere, f"/usr/bin/python3 {program}"):
        yield
    elsewhere.run("rm", program)


@pytest.mark.usefixtures("curious")
def test_a_drill_reaches_the_database_s_server_and_no_other_machine(elsewhere: Host) -> None:
    """By its name, and without asking for it. What is in no backup is empty for it."""
    elsewhere.back_up("full")
    assert elsewhere.panelctl("drill")["problem"] == ""
    said = elsewhere.run("journalctl", "-o", "cat", "-u", "aapanel-drill-app@*", "--since=-2min").stdout
    assert re.search("server: open other: (TimeoutError|PermissionError) known: True", said), said
    assert "beside: []" in said


def test_a_drill_that_is_killed_takes_its_panel_with_it(server: Host) -> None:
    """In no more than seconds, though that waits for something; the next drill finds nothing in its way."""
    slot = server.run("readlink", "/opt/aapanel/live").stdout.strip().rpartition("/")[2]
    unit, panel = "aapanel-drill.service", f"aapanel-drill-app@{slot}.service"
    with before_its_panel(server, "/bin/sleep infinity"):
        server.run("systemctl", "start", "--no-block", unit)
        wait_until(lambda: server.unit(panel, "ActiveState") == "activating", 120.0, "a panel that starts")
        server.run("systemctl", "kill", "--signal=KILL", unit)
        wait_until(lambda: server.unit(unit, "ActiveState") == "failed", 20.0, "a drill that has failed")
        assert server.unit(panel, "ActiveState") in ("inactive", "failed")
    assert server.panelctl("drill", "--wait", "60")["problem"] == ""
    settled(server)


def test_figures_for_prometheus(server: Host) -> None:
    """What the last runs did is where node_exporter looks."""
    text = server.run("cat", "/var/lib/prometheus/node-exporter/aapanel_backup.prom").stdout
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for run in ("create", "prune", "restore", "drill"):
        of_set = "full" if run == "create" else ""
        assert float(figures[f'aapanel_backup_last_success_timestamp_seconds{{run="{run}",set="{of_set}"}}']) > 1.7e9
    assert float(figures["aapanel_backup_drill_passed"]) == 1
    assert 0 < float(figures["aapanel_backup_drill_rto_seconds"]) < 900


def test_the_playbooks(servers: list[Host]) -> None:
    """Back up, drill, and restore one host; a second backup within its age is none."""
    for server in servers:
        put(server, "by the playbook")
    for playbook in ("backup", "drill"):
        well, said = play(playbook, servers, **({"set": "full"} if playbook == "backup" else {}))
        assert well, said[-4000:]
    well, said = play("backup", servers, set="full", max_age=600)
    assert well, said[-4000:]
    assert said.count("changed=0") == len(servers), said[-1000:]
    well, said = play("restore", servers)
    assert not well
    assert "name one, with --limit HOST" in said
    put(servers[0], "changed")
    named = servers[0].backups("full")[-1]["name"]
    well, said = play("restore", servers[:1], check=True, backup=named)
    assert well, said[-4000:]
    assert "reserved name" not in said
    assert look(servers[0])[0] == "changed"
    well, said = play("restore", servers[:1])
    assert well, said[-4000:]
    assert look(servers[0])[0] == "by the playbook"
    for server in servers:
        server.query("DROP TABLE words")


def test_a_drill_that_finds_something_fails_and_says_what(server: Host) -> None:
    """A backup that is too old, by the limits of the host."""
    config = json.loads(server.run("cat", "/etc/aapanel/backup.json").stdout)
    strict = json.dumps({**config, "limits": {"rpo_max": 1}})
    server.run("sh", "-c", "umask 077; cat >/root/strict.json", given=strict)
    code = """
import sys
sys.path.insert(0, "/opt/aapanel/lib")
from aapanel_host._backup.cli.main import main
sys.exit(main("/root/strict.json", ["drill"]))
"""
    failed = server.run("python3", "-c", code, check=False)
    assert failed.returncode == 1
    assert "RPO is" in failed.stdout
    assert any("the last drill failed" in problem for problem in server.panelctl("status", status=3)["problems"])
    server.panelctl("drill")
