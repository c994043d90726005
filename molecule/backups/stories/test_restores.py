# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores bring back the backed-up data even if they are killed; drills prove that beforehand."""

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

from driver import DATABASE, SUM, BackupHost, play

# Runs a restore, and kills its process group some seconds after it has reached a phase; prints the exit status.
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

# Phases of a restore, and the seconds after which it is killed.
KILLED_AT = [("loading", 0.3), ("swapping", 0.0), ("swapping", 0.05), ("swapping", 0.4), ("done", 0.0)]

# Prints which hosts it can reach, whether the name is in /etc/hosts, and the files in a folder that is in no backup.
LOOK_AROUND = """
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
    """The words of a host in the backup (`before`) and after a change (`now`)."""

    backup: dict[str, Any]
    before: tuple[str, str]
    now: tuple[str, str]


def read_words(host: BackupHost) -> tuple[str, str]:
    """Return the words in the database and in the app's file."""
    word = host.query("SELECT max(word) FROM words")
    return word, host.run("cat", f"{host.data}/shared/data/word").stdout


def write_words(host: BackupHost, word: str) -> None:
    """Write a word to the database and to the app's file."""
    host.query("DROP TABLE IF EXISTS words")
    host.query("CREATE TABLE words (word varchar(64))")
    host.query(f"INSERT INTO words VALUES ('{word}')")
    host.run("sh", "-c", f"cat >{host.data}/shared/data/word", stdin=word)


def assert_clean(host: BackupHost) -> None:
    """Check that a restore has left no file or database behind, and that the panel serves."""
    assert not host.run("find", f"{host.data}/backup-state", "-name", "restore*").stdout
    assert "scratch" not in host.databases()
    assert "before" not in host.databases()
    wait_until(host.healthy, 30.0, "a healthy panel")


@pytest.fixture
def changed(host: BackupHost) -> Iterator[Changed]:
    """Create a full backup, and change the data."""
    old, new = secrets.token_hex(8), secrets.token_hex(8)
    write_words(host, old)
    backup = host.back_up("full")
    write_words(host, new)
    yield Changed(backup, (old, old), (new, new))
    host.query("DROP TABLE IF EXISTS words")


def test_a_restore_brings_back_database_and_files(host: BackupHost, changed: Changed) -> None:
    """A restore of its snapshot brings back the data from before the restore."""
    done = host.panelctl("restore", "--yes", "--wait", "60")
    assert done["sources"] == dict.fromkeys(("data", "database"), changed.backup["name"])
    assert read_words(host) == changed.before
    assert_clean(host)
    host.panelctl("restore", done["snapshot"], "--yes", "--wait", "60")
    assert read_words(host) == changed.now
    assert host.query("SELECT sum(amount) FROM accounts") == str(SUM)
    assert_clean(host)


@pytest.fixture
def settings(postgresql: BackupHost) -> Iterator[None]:
    """Change settings and privileges of the database, and reset them afterwards."""
    postgresql.query(f"ALTER DATABASE {DATABASE} SET search_path = '\"$user\"', 'odd, one', public")
    postgresql.query(f"ALTER DATABASE {DATABASE} SET statement_timeout = '61s'")
    postgresql.query(f"ALTER ROLE {DATABASE} IN DATABASE {DATABASE} SET work_mem = '5MB'")
    postgresql.query(f"GRANT CONNECT ON DATABASE {DATABASE} TO pg_monitor")
    yield
    postgresql.query(f"ALTER DATABASE {DATABASE} RESET ALL")
    postgresql.query(f"ALTER ROLE {DATABASE} IN DATABASE {DATABASE} RESET ALL")
    postgresql.query(f"REVOKE CONNECT ON DATABASE {DATABASE} FROM pg_monitor")


def database_settings(host: BackupHost) -> str:
    """Return the settings and privileges that PostgreSQL keeps outside of the database."""
    settings = "SELECT setrole::regrole, setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid ORDER BY 1"
    found = f"SELECT datacl, ARRAY(SELECT s::text FROM ({settings}) AS s) FROM pg_database d"
    return host.query(f"{found} WHERE datname = '{DATABASE}'")


@pytest.mark.usefixtures("settings")
def test_settings_of_a_database_survive_a_restore(postgresql: BackupHost) -> None:
    """No dump has them. A setting that only a superuser may set ends the restore before it changes anything."""
    postgresql.back_up("databases")
    before = database_settings(postgresql)
    assert "odd, one" in before
    assert "pg_monitor" in before
    superuser = ["su", "postgres", "-c"]
    postgresql.run(*superuser, f"psql -c \"ALTER DATABASE {DATABASE} SET log_statement = 'ddl'\"")
    with postgresql.visited() as failures:
        done = postgresql.run("panelctl", "backup", "restore", "--yes", "--only", "database", check=False)
    postgresql.run(*superuser, f"psql -c 'ALTER DATABASE {DATABASE} RESET log_statement'")
    assert done.returncode == 1
    assert "setting log_statement" in done.stderr
    assert not failures
    assert_clean(postgresql)
    postgresql.panelctl("restore", "--yes", "--only", "database", "--wait", "60")
    assert database_settings(postgresql) == before
    assert_clean(postgresql)


def test_a_killed_restore_is_rolled_back_or_complete(host: BackupHost, changed: Changed) -> None:
    """Whenever it is killed, `settle` restores the live data or finds the restore complete, and the panel serves."""
    for phase, delay in KILLED_AT:
        write_words(host, changed.now[0])
        # The backup is named, because cron creates another one each minute.
        arguments = (host.program, f"{host.data}/backup-state", phase, str(delay), changed.backup["name"])
        status = int(host.run("python3", "-c", KILLER, *arguments).stdout)
        assert status in {0, -9}, f"{phase} + {delay} s: the restore ended with {status}"
        killed = status == -9
        settled = host.panelctl("settle", "--wait", "60")
        where = f"{phase} + {delay} s, killed: {killed}, {settled}"
        assert read_words(host) in {changed.before, changed.now}, where
        if phase == "loading" or settled["done"] == "rolled back an interrupted restore":
            assert read_words(host) == changed.now, where
        if not killed or phase == "done":
            assert read_words(host) == changed.before, where
        assert_clean(host)


def test_cron_rolls_back_an_interrupted_restore_at_boot(cron: BackupHost) -> None:
    """For cron it is a boot when crond.reboot is missing."""
    write_words(cron, "backed up")
    cron.back_up("full")
    write_words(cron, "live")
    root = replace(cron, user="root")
    root.run("sh", "-c", "kill $(cat /run/crond.pid)")
    killed = cron.run("python3", "-c", KILLER, cron.program, f"{cron.data}/backup-state", "swapping", "0.0").stdout
    assert killed == "-9\n"
    state = ["find", f"{cron.data}/backup-state", "-name", "restore.json"]
    assert cron.run(*state).stdout
    root.run("sh", "-c", "rm -f /run/crond.reboot /run/crond.pid; cron")
    wait_until(lambda: not cron.run(*state).stdout, 60.0, "the end of the rollback")
    assert_clean(cron)
    assert read_words(cron) == ("live", "live")
    cron.query("DROP TABLE words")


def test_a_reboot_rolls_back_an_interrupted_restore(server: BackupHost) -> None:
    """After the boot the host has its live data."""
    write_words(server, "backed up")
    server.back_up("full")
    write_words(server, "live")
    killed = server.run("python3", "-c", KILLER, server.program, f"{server.data}/backup-state", "swapping", "0.05")
    assert killed.stdout == "-9\n"
    docker("restart", "--time=30", server.name)
    record = ["find", f"{server.data}/backup-state", "-name", "restore.json"]
    wait_until(lambda: not server.run(*record).stdout, 90.0, "the end of the rollback")
    assert_clean(server)
    assert read_words(server) == ("live", "live")
    server.query("DROP TABLE words")
    # The restart may have interrupted a push.
    server.panelctl("push")


def test_a_drill_passes_while_the_panel_serves(host: BackupHost, changed: Changed) -> None:
    """The restored panel is healthy, the live data is unchanged, and no visit fails."""
    with host.visited() as failures:
        report = host.panelctl("drill")
    assert (report["result"], report["problem"]) == ("passed", "")
    assert set(report["sources"]) == {"data", "database"}
    assert all(len(source["canary"]) == 36 for source in report["sources"].values())
    assert report["sources"]["database"]["rows"] > 50
    assert report["health"] == ""
    assert (report["rto"] < 900, report["rpo"] < 3600) == (True, True)
    print(host.name, "RTO", report["rto"], "s, RPO", report["rpo"], "s")  # noqa: T201
    assert read_words(host) == changed.now
    assert failures == []
    assert_clean(host)
    assert host.panelctl("status")["drill"]["result"] == "passed"


@contextlib.contextmanager
def before_drill_panel(host: BackupHost, command: str) -> Iterator[None]:
    """Make the unit of a drill's panel run a command before it starts."""
    text = f"[Service]\nExecStartPre={command}\n"
    host.run("sh", "-c", f"mkdir {DROP_IN} && cat >{DROP_IN}/story.conf", stdin=text)
    host.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        host.run("rm", "-r", DROP_IN)
        host.run("systemctl", "daemon-reload")


@pytest.fixture
def looking_around(remote_database: BackupHost) -> Iterator[None]:
    """Run LOOK_AROUND in the unit of a drill's panel before it starts."""
    program = "/usr/local/bin/look-around"
    remote_database.run("sh", "-c", f"cat >{program}", stdin=LOOK_AROUND)

    def reached() -> bool:
        return "server: open other: open" in remote_database.run("python3", program).stdout

    # Outside of the unit both answer, unless another story is restarting one of them.
    wait_until(reached, 60.0, "an answer of both hosts")
    assert "beside: ['content']" in remote_database.run("python3", program).stdout
    with before_drill_panel(remote_database, f"/usr/bin/python3 {program}"):
        yield
    remote_database.run("rm", program)


@pytest.mark.usefixtures("looking_around")
def test_a_drill_reaches_the_remote_database_and_no_other_host(remote_database: BackupHost) -> None:
    """It resolves the server's name without DNS. A folder that is in no backup is empty for it."""
    remote_database.back_up("full")
    assert remote_database.panelctl("drill")["problem"] == ""
    log = remote_database.run("journalctl", "-o", "cat", "-u", "aapanel-drill-app@*", "--since=-2min").stdout
    assert re.search("server: open other: (TimeoutError|PermissionError) known: True", log), log
    assert "beside: []" in log


def test_a_killed_drill_stops_its_panel(server: BackupHost) -> None:
    """The panel stops within 20 s, though its start is blocked; the next drill passes."""
    slot = server.run("readlink", "/opt/aapanel/live").stdout.strip().rpartition("/")[2]
    unit, panel = "aapanel-drill.service", f"aapanel-drill-app@{slot}.service"
    with before_drill_panel(server, "/bin/sleep infinity"):
        server.run("systemctl", "start", "--no-block", unit)
        wait_until(lambda: server.unit(panel, "ActiveState") == "activating", 120.0, "a panel that starts")
        server.run("systemctl", "kill", "--signal=KILL", unit)
        wait_until(lambda: server.unit(unit, "ActiveState") == "failed", 20.0, "a drill that has failed")
        assert server.unit(panel, "ActiveState") in ("inactive", "failed")
    assert server.panelctl("drill", "--wait", "60")["problem"] == ""
    assert_clean(server)


def test_metrics_have_the_last_runs(server: BackupHost) -> None:
    """node_exporter's folder has the last success of each run, and the result of the drill."""
    text = server.run("cat", "/var/lib/prometheus/node-exporter/aapanel_backup.prom").stdout
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for run in ("create", "prune", "restore", "drill"):
        of_set = "full" if run == "create" else ""
        assert float(figures[f'aapanel_backup_last_success_timestamp_seconds{{run="{run}",set="{of_set}"}}']) > 1.7e9
    assert float(figures["aapanel_backup_drill_passed"]) == 1
    assert 0 < float(figures["aapanel_backup_drill_rto_seconds"]) < 900


def test_playbooks_back_up_drill_and_restore(servers: list[BackupHost]) -> None:
    """A backup that is younger than panel_backup_max_age is not repeated; a restore needs a single host."""
    for server in servers:
        write_words(server, "by the playbook")
    for playbook in ("backup", "drill"):
        ok, output = play(playbook, servers, **({"panel_backup_set": "full"} if playbook == "backup" else {}))
        assert ok, output[-4000:]
    ok, output = play("backup", servers, panel_backup_set="full", panel_backup_max_age=600)
    assert ok, output[-4000:]
    assert output.count("changed=0") == len(servers), output[-1000:]
    ok, output = play("restore", servers)
    assert not ok
    assert "name one, with --limit HOST" in output
    write_words(servers[0], "changed")
    named = servers[0].backups("full")[-1]["name"]
    ok, output = play("restore", servers[:1], "--check", "--diff", panel_restore_backup=named)
    assert ok, output[-4000:]
    assert "reserved name" not in output
    assert read_words(servers[0])[0] == "changed"
    ok, output = play("restore", servers[:1])
    assert ok, output[-4000:]
    assert read_words(servers[0])[0] == "by the playbook"
    for server in servers:
        server.query("DROP TABLE words")


def test_a_drill_fails_at_its_limits(server: BackupHost) -> None:
    """With an RPO limit of one second, the backup is too old."""
    config = json.loads(server.run("cat", "/etc/aapanel/backup.json").stdout)
    strict = json.dumps({**config, "limits": {"rpo_max": 1}})
    server.run("sh", "-c", "umask 077; cat >/root/strict.json", stdin=strict)
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
