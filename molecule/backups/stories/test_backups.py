# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scheduled backups are consistent and can be loaded; a failed backup is reported and not listed."""

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

from driver import SCRATCH, SUM, BackupHost, play

RESTORED = "/var/tmp/restored"

# Runs a backup, and kills the database server during the dump; prints the exit status and the output of the backup.
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
# By then the dump is in the large table. Before that, a killed server would fail the dump in the same way.
time.sleep(0.1)
os.kill(int(pid), signal.SIGKILL)
output = backup.communicate()[0]
print(backup.returncode)
print(output)
"""
# Runs `panelctl backup` with the settings of verify.yml: with the app's account, as on a host with a remote server.
AS_THE_APP = """
import sys
sys.path.insert(0, "/opt/aapanel/lib")
from aapanel_host._backup.cli.main import main
sys.exit(main("/root/remote/backup.json", sys.argv[1:]))
"""
REMOVE_CANARY = {
    "postgresql": ["psql", "-qc", "DROP SCHEMA aapanel_canary CASCADE", "aapanel"],
    "mysql": ["mariadb", "-e", "DROP TABLE aapanel_canary", "aapanel"],
}
PING = {"postgresql": ["psql", "-c", "SELECT 1", "postgres"], "mysql": ["mariadb", "-e", "SELECT 1"]}


@pytest.fixture
def restored(host: BackupHost) -> str:
    """Return a folder for restored files, which does not exist yet."""
    host.run("rm", "-rf", RESTORED)
    return RESTORED


def flip_bit(host: BackupHost, file: str) -> None:
    """Flip one bit of a file; a second call restores the file."""
    code = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(-9, 2)
    byte = file.read(1)[0]
    file.seek(-9, 2)
    file.write(bytes([byte ^ 1]))
"""
    host.run("python3", "-c", code, file)


def began_at(backup: dict[str, Any]) -> str:
    """Return when a backup began, in the format of the history of deploys."""
    return datetime.fromisoformat(backup["began"].replace("Z", "+00:00")).isoformat(timespec="seconds")


def test_a_second_run_changes_nothing(unlike_default: BackupHost) -> None:
    """On the hosts with cron and with a remote database. It runs first, because other stories change the hosts."""
    ok, output = play("site", [unlike_default])
    assert ok, output[-4000:]
    assert " changed=0 " in output, output[-4000:]


def test_the_timers_are_scheduled(server: BackupHost) -> None:
    """They are enabled, active, and due at the configured times."""
    expected = {"databases": None, "full": 3 * 60 + 10, "drill": 4 * 60 + 40}
    for name, minute in expected.items():
        timer = f"aapanel-{'' if name == 'drill' else 'backup-'}{name}.timer"
        assert server.run("systemctl", "is-enabled", timer).stdout == "enabled\n"
        assert server.unit(timer, "ActiveState") == "active"
        assert server.unit(timer, "Persistent") == "yes"
        # As in Mon 2026-11-23 03:14:15 UTC.
        next_run = server.unit(timer, "NextElapseUSecRealtime").removesuffix(" UTC")
        due = datetime.strptime(f"{next_run} +0000", "%a %Y-%m-%d %H:%M:%S %z")
        if minute is None:
            assert due - datetime.now(timezone.utc) < timedelta(minutes=22)
            assert due.minute % 20 < 2
        else:
            assert minute <= due.hour * 60 + due.minute <= minute + 15
    assert server.run("systemctl", "is-enabled", "aapanel-backup-settle.service").stdout == "enabled\n"


def test_cron_creates_backups_without_systemd(cron: BackupHost) -> None:
    """The crontab has all four jobs; here, the backup runs every minute."""
    crontab = cron.run("crontab", "-l").stdout
    assert len(re.findall(r"^[*\d@].* nice .*/bin/panelctl backup .*>>", crontab, re.MULTILINE)) == 4
    known = {backup["name"] for backup in cron.panelctl("list")}
    new = wait_until(lambda: {b["name"] for b in cron.panelctl("list")} - known, 75.0, "a backup by cron")
    assert {backup["set"] for backup in cron.backups() if backup["name"] in new} == {"databases"}
    log = cron.run("cat", f"{cron.data}/backup-state/cron.log").stdout
    assert any(name in log for name in new)


def test_a_backup_under_writes_is_consistent(host: BackupHost, restored: str) -> None:
    """Loaded into a scratch database, the sum is right, and each table has the rows that the manifest counts."""
    with host.written():
        backup = host.back_up("databases")
    assert not backup["partial"], backup["warnings"]
    host.panelctl("restore", backup["name"], "--to", restored)
    host.load_restored(restored)
    assert host.query_restored(restored, "SELECT sum(amount) FROM accounts") == str(SUM)
    assert host.query_restored(restored, "SELECT sum(amount) FROM moves") == "0"
    (source,) = backup["sources"]
    rows = {table.rpartition(".")[2]: count for table, count in source["rows"].items()}
    assert rows["moves"] > 20
    assert {"accounts", "moves", "alembic_version"} <= set(rows)
    for table, count in source["rows"].items():
        assert host.query_restored(restored, f"SELECT count(*) FROM {table}") == str(count), table


def test_a_full_backup_under_writes_has_files_and_settings_but_no_key(host: BackupHost, restored: str) -> None:
    """The app's files are unchanged; the settings are private; the keyring is left out."""
    mark, data = secrets.token_hex(), f"{host.data}/shared/data"
    host.run("sh", "-c", f"cat >{data}/mark", stdin=mark)
    # Incompressible data, larger than the sample that decides on compression, between compressible files.
    host.run("sh", "-c", f"head -c 20M /dev/urandom >{data}/large && seq 100000 >{data}/lines")
    with host.written():
        backup = host.back_up("full")
    host.panelctl("restore", backup["name"], "--to", restored)
    assert host.run("cat", f"{restored}/files/data/data/mark").stdout == mark
    for name in ("large", "lines"):
        host.run("cmp", f"{data}/{name}", f"{restored}/files/data/data/{name}")
    host.run("tar", "tzf", f"{host.data}/backups/{backup['name']}.tar.gz")
    host.run("rm", f"{data}/large", f"{data}/lines")
    files = host.run("find", restored, "-type", "f", "-printf", "%P %m\n").stdout.splitlines()
    assert not [file for file in files if "default.db" in file or "keyring" in file]
    assert "files/config/blue.env 600" in files
    verified = host.panelctl("verify", "--all")
    assert {found["result"] for found in verified} == {"good"}
    assert backup["name"] in {found["name"] for found in verified}


def test_a_stopped_database_server_fails_the_backup(server: BackupHost) -> None:
    """Nothing is listed or left. Backups work again once the server is back."""
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
        # The certificate of another CA.
        ("/etc/ssl/backups-store.pem", "cp $(ls /etc/ssl/certs/*.pem | head -1)", "certificate verify failed"),
        (
            "/etc/aapanel/backup/pgpass",
            "echo backups-store:5432:*:aapanel:other | tee",
            "password authentication failed",
        ),
    ],
    ids=["certificate", "password"],
)
def test_a_remote_database_that_refuses_fails_the_backup(
    file: str, change: str, says: str, remote_database: BackupHost
) -> None:
    """The error has the reason, and nothing is listed."""
    known = remote_database.backups()
    remote_database.run("sh", "-c", f"cp -p {file} /root/kept && {change} {file}")
    try:
        failed = remote_database.run("panelctl", "backup", "create", "databases", check=False)
    finally:
        remote_database.run("mv", "/root/kept", file)
    assert failed.returncode == 1
    assert says in failed.stderr
    assert remote_database.backups() == known


def test_the_canary_is_written_by_whichever_account_comes_first(server: BackupHost) -> None:
    """The canary of the host's own account does not block the one of the app's account, nor the reverse."""

    def panelctl_as_the_app(*arguments: str) -> str:
        return server.run("python3", "-c", AS_THE_APP, *arguments).stdout

    def back_up_as_the_app() -> dict[str, Any]:
        return dict(json.loads(panelctl_as_the_app("create", "databases", "--json")))

    def back_up_as_the_host() -> dict[str, Any]:
        return server.back_up("databases")

    back_up_as_the_host()
    accounts = (back_up_as_the_host, back_up_as_the_app)
    for order in (accounts, accounts[::-1]):
        server.run(*REMOVE_CANARY[server.engine])
        for back_up in order:
            assert all(source["canary"] for source in back_up()["sources"]), (back_up, order)
    panelctl_as_the_app("verify", "--all")


def test_a_database_server_killed_during_the_dump_fails_the_backup(server: BackupHost) -> None:
    """The server is killed while a large table is dumped."""
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
        status, output = killed.stdout.split("\n", 1)
        assert status == "1", output
        assert f"{dump} failed" in output
        assert server.backups() == known
        assert not server.run("find", "/var/lib/aapanel/backups", "-name", ".new-*").stdout
    finally:
        wait_until(lambda: server.run(*PING[server.engine], check=False).returncode == 0, 60.0, "the server's answer")
        server.query("DROP TABLE large")
    assert server.back_up("databases")["seq"] > known[-1]["seq"]
    wait_until(server.healthy, 60.0, "a healthy panel")


@pytest.mark.parametrize("engine", ["postgresql", "postgresql-remote"])
def test_a_backup_and_a_table_change_do_not_block_each_other(
    engine: str, postgresql: BackupHost, remote_database: BackupHost
) -> None:
    """A change of a table waits for pg_dump; if pg_dump waited for the change too, neither would ever end."""
    host = remote_database if engine.endswith("remote") else postgresql
    host.query("CREATE TABLE churn (n int)")
    try:
        with host.table_changed("churn"):
            for _ in range(4):
                began = time.monotonic()
                assert not host.back_up("databases")["partial"]
                assert time.monotonic() - began < 30
    finally:
        host.query("DROP TABLE churn")


def test_a_table_without_transactions_makes_the_backup_partial(mariadb: BackupHost) -> None:
    """The unit succeeds, and the journal has a warning."""
    mariadb.run("mariadb", "--execute", "CREATE OR REPLACE TABLE torn (n int) ENGINE=MyISAM", "aapanel")
    try:
        assert mariadb.back_up("databases")["partial"]
        assert mariadb.unit("aapanel-backup@databases", "Result") == "success"
        log = mariadb.run("journalctl", "--unit=aapanel-backup@databases", "--priority=warning", "--lines=1").stdout
        assert "this backup is partial" in log
    finally:
        mariadb.run("mariadb", "--execute", "DROP TABLE torn", "aapanel")
    assert not mariadb.back_up("databases")["partial"]


# The lines of the procedure look like rows of a dump.
OBJECTS = (
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
OBJECTS_QUERY = """
SELECT (SELECT group_concat(n) FROM present), (SELECT count(*) FROM log), NEXT VALUE FOR numbers,
  (SELECT count(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE()),
  (SELECT count(*) FROM information_schema.events WHERE event_schema = DATABASE()),
  (SELECT count(*) FROM information_schema.routines WHERE routine_schema = DATABASE())
"""


@pytest.fixture
def other_objects(mariadb: BackupHost) -> Iterator[None]:
    """Create objects other than plain tables, and drop them afterwards."""
    for statement in OBJECTS:
        mariadb.query(statement)
    yield
    for kind, name in re.findall(r"CREATE (\w+) (\w+)", " ".join(reversed(OBJECTS))):
        mariadb.query(f"DROP {kind} {name}")


@pytest.mark.usefixtures("other_objects")
def test_views_triggers_events_and_routines_of_mariadb_are_restored(mariadb: BackupHost) -> None:
    """Only the history of a versioned table is lost, and the backup has a warning about it."""
    summary = mariadb.back_up("databases")
    assert summary["partial"]
    assert "of versioned the dump has no history" in " ".join(summary["warnings"])
    mariadb.query("CALL writes()")
    mariadb.panelctl("restore", "--yes", "--only", "database", "--wait", "60", status=3)
    assert mariadb.query(OBJECTS_QUERY).split() == ["2", "0", "7", "1", "1", "1"]


def test_one_flipped_bit_is_noticed(host: BackupHost) -> None:
    """In the archive or in the manifest: `verify` exits with 4, and with 0 once the bit is flipped back."""
    name = host.back_up("full")["name"]
    for suffix in (".tar.gz", ".manifest"):
        file = f"{host.data}/backups/{name}{suffix}"
        flip_bit(host, file)
        assert host.panelctl("verify", name, status=4)[0]["result"] == "not good"
        flip_bit(host, file)
    assert host.panelctl("verify", name)[0]["result"] == "good"


def test_a_deploy_backs_up_before_it_migrates(servers: list[BackupHost]) -> None:
    """If the backup fails, nothing is migrated and no traffic moves."""
    known = {server: server.back_up("databases")["seq"] for server in servers}
    value = f"{{{{ panel_settings | combine({{'STORY': '{secrets.token_hex(4)}'}}) }}}}"
    ok, output = play("deploy", servers, app_settings=value)
    assert ok, output[-4000:]
    for server in servers:
        last = server.last_operation()
        assert last["result"] == "confirmed"
        print(server.name, "backed up before the migration in", last["durations"]["data_backed_up"], "s")  # noqa: T201
        # The timer may have created another backup.
        new = [backup for backup in server.backups("databases") if backup["seq"] > known[server]]
        assert any(last["began"] <= began_at(backup) <= last["ended"] for backup in new), (new, last)
    serving = {server: server.run("readlink", "/opt/aapanel/live").stdout for server in servers}
    keyring, away = f"{servers[0].config}/backup/keyring.json", "/root/keyring.json"
    for server in servers:
        server.run("mv", keyring, away)
    try:
        ok, output = play("deploy", servers, app_settings=value.replace("STORY", "OTHER"))
    finally:
        for server in servers:
            server.run("mv", away, keyring)
    assert not ok
    assert "the backup before the migration failed" in output, output[-4000:]
    assert "there is no keyring" in output
    for server in servers:
        last = server.last_operation()
        assert (last["result"], "migrated" in last["durations"]) == ("failed", False)
        assert server.run("readlink", "/opt/aapanel/live").stdout == serving[server]


def test_a_given_keyring_signs_and_other_hosts_create_their_own(host: BackupHost) -> None:
    """`panel_backup_keyring` is set on one host only."""
    given = json.loads((SCRATCH / "keyring.json").read_text())
    signer = host.back_up("databases")["key"]
    assert (signer == given["signer"]) == (host.engine == "mysql")


def test_backups_and_secrets_are_readable_by_their_owner_only(host: BackupHost) -> None:
    """Backups, state and keys are private; no public file, command line or log has a secret."""
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
    assert host.run("bash", "-c", script, stdin="\n".join(words) + "\n").stdout == ""
