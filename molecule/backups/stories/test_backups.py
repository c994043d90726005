# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the timers start makes backups that can be loaded, of one moment; what goes wrong is told and listed nowhere."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from kit.hosts import wait_until

from driver import SCRATCH, SUM, Host, play

RESTORED = "/var/tmp/restored"

# Runs a backup, and kills a server as soon as its database is being dumped; prints how the backup ended.
KILLER = """
import os, signal, subprocess, sys, time
dump, pid, *command = sys.argv[1:]
backup = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
def runs(process):
    try:
        return open(f"/proc/{process}/comm").read().strip() == dump
    except OSError:
        return False
while backup.poll() is None and not any(map(runs, filter(str.isdecimal, os.listdir("/proc")))):
    time.sleep(0.005)
# Into the large table, which takes several times as long; a server that dies before fails the dump just so.
time.sleep(0.1)
os.kill(int(pid), signal.SIGKILL)
said = backup.communicate()[0]
print(backup.returncode)
print(said)
"""
# Does what panelctl does, with what verify.yml configures: the app's account, as on a host whose server is elsewhere.
AS_THE_APP = """
import sys
sys.path.insert(0, "/opt/aapanel/lib")
from aapanel_host._backup.cli.main import main
sys.exit(main("/root/elsewhere/backup.json", sys.argv[1:]))
"""
UNMARK = {
    "postgresql": ["psql", "-qc", "DROP SCHEMA aapanel_canary CASCADE", "aapanel"],
    "mysql": ["mariadb", "-e", "DROP TABLE aapanel_canary", "aapanel"],
}
ALIVE = {"postgresql": ["psql", "-c", "SELECT 1", "postgres"], "mysql": ["mariadb", "-e", "SELECT 1"]}


@pytest.fixture
def restored(host: Host) -> str:
    """A folder that is not there."""
    host.run("rm", "-rf", RESTORED)
    return RESTORED


def flip(host: Host, file: str) -> None:
    """Change one bit of a file; twice is as before."""
    code = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(-9, 2)
    byte = file.read(1)[0]
    file.seek(-9, 2)
    file.write(bytes([byte ^ 1]))
"""
    host.run("python3", "-c", code, file)


def stamp(backup: dict[str, Any]) -> str:
    """When it began, as the journal of deploys writes it."""
    return datetime.fromisoformat(backup["began"].replace("Z", "+00:00")).isoformat(timespec="seconds")


def test_a_second_run_changes_nothing(unlike_default: Host) -> None:
    """With cron, and with a remote database server. Runs first: other stories change the hosts."""
    well, said = play("site", [unlike_default])
    assert well, said[-4000:]
    assert " changed=0 " in said, said[-4000:]


def test_the_timers_are_armed(server: Host) -> None:
    """Enabled, active, and due when they should be."""
    expected = {"databases": None, "full": 3 * 60 + 10, "drill": 4 * 60 + 40}
    for name, minute in expected.items():
        timer = f"aapanel-{'' if name == 'drill' else 'backup-'}{name}.timer"
        assert server.run("systemctl", "is-enabled", timer).stdout == "enabled\n"
        assert server.unit(timer, "ActiveState") == "active"
        assert server.unit(timer, "Persistent") == "yes"
        # As in Mon 2026-11-23 03:14:15 UTC.
        told = server.unit(timer, "NextElapseUSecRealtime").removesuffix(" UTC")
        due = datetime.strptime(f"{told} +0000", "%a %Y-%m-%d %H:%M:%S %z")
        if minute is None:
            assert due - datetime.now(timezone.utc) < timedelta(minutes=22)
            assert due.minute % 20 < 2
        else:
            assert minute <= due.hour * 60 + due.minute <= minute + 15
    assert server.run("systemctl", "is-enabled", "aapanel-backup-settle.service").stdout == "enabled\n"


def test_cron_does_it_where_there_is_no_systemd(cron: Host) -> None:
    """It is asked every minute here; all four jobs are there."""
    told = cron.run("crontab", "-l").stdout
    assert len(re.findall(r"^[*\d@].* nice .*/bin/panelctl backup .*>>", told, re.MULTILINE)) == 4
    known = {backup["name"] for backup in cron.panelctl("list")}
    new = wait_until(lambda: {b["name"] for b in cron.panelctl("list")} - known, 75.0, "a backup by cron")
    assert {backup["set"] for backup in cron.backups() if backup["name"] in new} == {"databases"}
    log = cron.run("cat", f"{cron.data}/backup-state/cron.log").stdout
    assert any(name in log for name in new)


def test_a_backup_under_writes_is_of_one_moment(host: Host, restored: str) -> None:
    """Loaded beside the database in use: the sum is right, and there are just the rows that the manifest tells of."""
    with host.written():
        made = host.back_up("databases")
    assert not made["partial"], made["warnings"]
    host.panelctl("restore", made["name"], "--to", restored)
    host.load(restored)
    assert host.ask(restored, "SELECT sum(amount) FROM accounts") == str(SUM)
    assert host.ask(restored, "SELECT sum(amount) FROM moves") == "0"
    (source,) = made["sources"]
    rows = {table.rpartition(".")[2]: count for table, count in source["rows"].items()}
    assert rows["moves"] > 20
    assert {"accounts", "moves", "alembic_version"} <= set(rows)
    for table, count in source["rows"].items():
        assert host.ask(restored, f"SELECT count(*) FROM {table}") == str(count), table


def test_everything_under_writes(host: Host, restored: str) -> None:
    """The whole set: the app's files as they are, the settings, and no key among them."""
    mark, data = secrets.token_hex(), f"{host.data}/shared/data"
    host.run("sh", "-c", f"cat >{data}/mark", given=mark)
    # More than is tried to compress, between what is.
    host.run("sh", "-c", f"head -c 20M /dev/urandom >{data}/large && seq 100000 >{data}/lines")
    with host.written():
        made = host.back_up("full")
    host.panelctl("restore", made["name"], "--to", restored)
    assert host.run("cat", f"{restored}/files/data/data/mark").stdout == mark
    for name in ("large", "lines"):
        host.run("cmp", f"{data}/{name}", f"{restored}/files/data/data/{name}")
    host.run("tar", "tzf", f"{host.data}/backups/{made['name']}.tar.gz")
    host.run("rm", f"{data}/large", f"{data}/lines")
    files = host.run("find", restored, "-type", "f", "-printf", "%P %m\n").stdout.splitlines()
    assert not [file for file in files if "default.db" in file or "keyring" in file]
    assert "files/config/blue.env 600" in files
    verified = host.panelctl("verify", "--all")
    assert {found["result"] for found in verified} == {"good"}
    assert made["name"] in {found["name"] for found in verified}


def test_a_server_that_is_down_fails_the_unit_and_nothing_is_listed(server: Host) -> None:
    """And when it is back, so are backups."""
    unit = {"postgresql": "postgresql@15-main", "mysql": "mariadb"}[server.engine]
    server.back_up("databases")
    known = server.backups()
    server.run("systemctl", "stop", unit)
    try:
        assert server.run("systemctl", "start", "aapanel-backup@databases", check=False).returncode
        assert server.unit("aapanel-backup@databases", "ActiveState") == "failed"
        assert server.backups() == known
        assert not server.run("find", "/var/lib/aapanel/backups", "-name", ".new-*").stdout
    finally:
        server.run("systemctl", "start", unit)
    assert server.back_up("databases")["seq"] > known[-1]["seq"]


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        # Somebody else vouches for the one that answers.
        ("/etc/ssl/backups-store.pem", "cp $(ls /etc/ssl/certs/*.pem | head -1)", "certificate verify failed"),
        (
            "/etc/aapanel/backup/pgpass",
            "echo backups-store:5432:*:aapanel:other | tee",
            "password authentication failed",
        ),
    ],
    ids=["certificate", "password"],
)
def test_a_server_elsewhere_that_is_not_reached(file: str, change: str, says: str, elsewhere: Host) -> None:
    """It says why, and nothing is listed."""
    known = elsewhere.backups()
    elsewhere.run("sh", "-c", f"cp -p {file} /root/kept && {change} {file}")
    try:
        failed = elsewhere.run("panelctl", "backup", "create", "databases", check=False)
    finally:
        elsewhere.run("mv", "/root/kept", file)
    assert failed.returncode == 1
    assert says in failed.stderr
    assert elsewhere.backups() == known


def test_whoever_backs_a_database_up_first(server: Host) -> None:
    """The host's own account, and the app's as from elsewhere: neither leaves what keeps the other one from it."""

    def as_the_app(*arguments: str) -> str:
        return server.run("python3", "-c", AS_THE_APP, *arguments).stdout

    def by_the_app() -> dict[str, Any]:
        return dict(json.loads(as_the_app("create", "databases", "--json")))

    def by_the_host() -> dict[str, Any]:
        return server.back_up("databases")

    by_the_host()
    for order in ((by_the_host, by_the_app), (by_the_app, by_the_host)):
        server.run(*UNMARK[server.engine])
        for back_up in order:
            assert all(source["canary"] for source in back_up()["sources"]), (back_up, order)
    as_the_app("verify", "--all")


def test_a_server_that_is_killed_while_it_is_dumped(server: Host) -> None:
    """In the middle of a table that takes its time."""
    unit, dump, fill = {
        "postgresql": (
            "postgresql@15-main",
            "pg_dump",
            "SELECT n, repeat(md5(n::text), 50) FROM generate_series(1, 60000) n",
        ),
        "mysql": ("mariadb", "mariadb-dump", "SELECT seq AS n, repeat(md5(seq), 50) FROM seq_1_to_60000"),
    }[server.engine]
    server.query(f"CREATE TABLE large AS {fill}")
    known = server.backups()
    try:
        pid = server.unit(unit, "MainPID")
        killed = server.run("python3", "-c", KILLER, dump, pid, "panelctl", "backup", "create", "databases")
        server.run("systemctl", "restart", unit)
        status, said = killed.stdout.split("\n", 1)
        assert status == "1", said
        assert f"{dump} failed" in said
        assert server.backups() == known
        assert not server.run("find", "/var/lib/aapanel/backups", "-name", ".new-*").stdout
    finally:
        wait_until(lambda: server.run(*ALIVE[server.engine], check=False).returncode == 0, 60.0, "its answers")
        server.query("DROP TABLE large")
    assert server.back_up("databases")["seq"] > known[-1]["seq"]
    wait_until(server.healthy, 60.0, "a healthy panel")


@pytest.mark.parametrize("engine", ["postgresql", "postgresql-elsewhere"])
def test_tables_that_change_meanwhile_keep_nobody_waiting(engine: str, postgresql: Host, elsewhere: Host) -> None:
    """Whoever changes one waits for pg_dump; if that waited for him, too, neither would ever end."""
    host = elsewhere if engine.endswith("elsewhere") else postgresql
    host.query("CREATE TABLE churn (n int)")
    try:
        with host.altered("churn"):
            for _ in range(4):
                began = time.monotonic()
                assert not host.back_up("databases")["partial"]
                assert time.monotonic() - began < 30
    finally:
        host.query("DROP TABLE churn")


def test_a_partial_backup_is_made_and_warned_of(mariadb: Host) -> None:
    """A table that no transaction keeps: the unit succeeds, and the journal has a warning."""
    mariadb.run("mariadb", "--execute", "CREATE OR REPLACE TABLE torn (n int) ENGINE=MyISAM", "aapanel")
    try:
        assert mariadb.back_up("databases")["partial"]
        assert mariadb.unit("aapanel-backup@databases", "Result") == "success"
        said = mariadb.run("journalctl", "--unit=aapanel-backup@databases", "--priority=warning", "--lines=1").stdout
        assert "this backup is partial" in said
    finally:
        mariadb.run("mariadb", "--execute", "DROP TABLE torn", "aapanel")
    assert not mariadb.back_up("databases")["partial"]


# Lines of a routine look like rows here.
BESIDES = (
    "CREATE TABLE versioned (n int) WITH SYSTEM VERSIONING",
    "INSERT INTO versioned VALUES (1), (2)",
    "DELETE FROM versioned WHERE n = 1",
    "CREATE TABLE log (n int)",
    "CREATE SEQUENCE numbers START WITH 7",
    "CREATE VIEW present AS SELECT n FROM versioned",
    "CREATE TRIGGER counts AFTER INSERT ON log FOR EACH ROW SET @counted = 1",
    "CREATE EVENT cleans ON SCHEDULE EVERY 1 YEAR DO DELETE FROM log",
    "CREATE PROCEDURE writes() INSERT INTO `log` VALUES\n(1),\n(2)",
)
FOUND = """
SELECT (SELECT group_concat(n) FROM present), (SELECT count(*) FROM log), NEXT VALUE FOR numbers,
  (SELECT count(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE()),
  (SELECT count(*) FROM information_schema.events WHERE event_schema = DATABASE()),
  (SELECT count(*) FROM information_schema.routines WHERE routine_schema = DATABASE())
"""


@pytest.fixture
def besides(mariadb: Host) -> Iterator[None]:
    """The database has more than tables."""
    for statement in BESIDES:
        mariadb.query(statement)
    yield
    for kind, name in re.findall(r"CREATE (\w+) (\w+)", " ".join(reversed(BESIDES))):
        mariadb.query(f"DROP {kind} {name}")


@pytest.mark.usefixtures("besides")
def test_what_mariadb_has_besides_rows_comes_back(mariadb: Host) -> None:
    """All but the history of a versioned table, which the backup tells of."""
    summary = mariadb.back_up("databases")
    assert summary["partial"]
    assert "only the current rows of versioned, not their history" in " ".join(summary["warnings"])
    mariadb.query("CALL writes()")
    mariadb.panelctl("restore", "--yes", "--only", "database", "--wait", "60", status=3)
    assert mariadb.query(FOUND).split() == ["2", "0", "7", "1", "1", "1"]


def test_one_flipped_bit_is_noticed(host: Host) -> None:
    """In the archive or in the manifest: exit status 4, and all is well when it is flipped back."""
    name = host.back_up("full")["name"]
    for suffix in (".tar.gz", ".manifest"):
        file = f"{host.data}/backups/{name}{suffix}"
        flip(host, file)
        assert host.panelctl("verify", name, status=4)[0]["result"] == "not good"
        flip(host, file)
    assert host.panelctl("verify", name)[0]["result"] == "good"


def test_a_deploy_backs_up_before_it_migrates(servers: list[Host]) -> None:
    """In about a second; and where that fails nothing is migrated, and no traffic moves."""
    known = {server: server.back_up("databases")["seq"] for server in servers}
    value = f"{{{{ panel_settings | combine({{'STORY': '{secrets.token_hex(4)}'}}) }}}}"
    ok, said = play("deploy", servers, app_settings=value)
    assert ok, said[-4000:]
    for server in servers:
        last = server.last_operation()
        assert last["result"] == "confirmed"
        print(server.name, "backed up before the migration in", last["durations"]["data_backed_up"], "s")  # noqa: T201
        # The timer may have made one more.
        new = [backup for backup in server.backups("databases") if backup["seq"] > known[server]]
        assert any(last["began"] <= stamp(backup) <= last["ended"] for backup in new), (new, last)
    serving = {server: server.run("readlink", "/opt/aapanel/live").stdout for server in servers}
    keyring, away = f"{servers[0].config}/backup/keyring.json", "/root/keyring.json"
    for server in servers:
        server.run("mv", keyring, away)
    try:
        ok, said = play("deploy", servers, app_settings=value.replace("STORY", "OTHER"))
    finally:
        for server in servers:
            server.run("mv", away, keyring)
    assert not ok
    assert "the backup before the migration failed" in said, said[-4000:]
    assert "there is no keyring" in said
    for server in servers:
        last = server.last_operation()
        assert (last["result"], "migrated" in last["durations"]) == ("failed", False)
        assert server.run("readlink", "/opt/aapanel/live").stdout == serving[server]


def test_one_host_got_its_key_and_the_others_made_theirs(host: Host) -> None:
    """A key that was brought along is the one that signs."""
    brought = json.loads((SCRATCH / "keyring.json").read_text())
    signer = host.back_up("databases")["key"]
    assert (signer == brought["signer"]) == (host.engine == "mysql")


def test_nobody_else_may_read_them(host: Host) -> None:
    """Neither backups nor what makes them; and no secret went where others look."""
    state, secrets_dir = f"{host.data}/backup-state", f"{host.config}/backup"
    assert not host.run(
        "find", f"{host.data}/backups", state, secrets_dir, f"{secrets_dir}.json", "-perm", "/077"
    ).stdout
    keyring = json.loads(host.run("cat", f"{secrets_dir}/keyring.json").stdout)
    words = [*keyring["keys"].values(), *((SCRATCH / name).read_text().strip() for name in ("secret_key", "database"))]
    script = """
    set +o pipefail
    umask 077
    cat >/var/tmp/words
    find / -xdev -path /proc -prune -o -type f -perm /o+r -print0 2>/dev/null | xargs -0 grep -l -s -F -f /var/tmp/words
    cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -F -f /var/tmp/words
    { journalctl --no-pager 2>/dev/null || true; } | grep -F -f /var/tmp/words
    rm /var/tmp/words
    """
    assert host.run("bash", "-c", script, given="\n".join(words) + "\n").stdout == ""
