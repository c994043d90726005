# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`panelctl backup` as it is installed: the package alone, in a separate Python process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile

import pytest

COMMANDS = [
    *("create", "list", "status", "verify", "restore", "settle", "drill", "prune", "pin", "unpin", "key-rotate"),
    *("remove", "push", "remote", "fetch", "adopt"),
]


@pytest.fixture
def host(tmp_path, install):
    """A host with a folder and a database to back up, without a keyring."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content\n")
    with sqlite3.connect(tmp_path / "panel.db") as database:
        database.execute("CREATE TABLE items (id INTEGER)")
        database.execute("INSERT INTO items VALUES (1)")
    settings = {
        "folder": str(tmp_path / "backups"),
        "state_dir": str(tmp_path / "state"),
        "keyring": str(tmp_path / "keyring.json"),
        "host": "an-installation",
        "sources": [
            {"kind": "files", "name": "data", "path": str(tmp_path / "data")},
            {"kind": "sqlite", "name": "panel", "path": str(tmp_path / "panel.db")},
        ],
    }
    install("_backup", settings)
    return tmp_path


def panelctl(host, *arguments, status=0):
    done = subprocess.run(
        [sys.executable, "-I", host / "panelctl.py", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr


def watched(host, *arguments, answer=""):
    """Run panelctl on a terminal; returns the exit status and the output.

    :param answer: the line that is typed.
    """
    ours, its = os.openpty()
    command = [sys.executable, "-I", host / "panelctl.py", *arguments]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its) as running:
        os.close(its)
        os.write(ours, f"{answer}\n".encode())
        seen = b""
        # On Linux, reading a terminal without a writer fails with EIO.
        with contextlib.suppress(OSError):
            while data := os.read(ours, 1 << 16):
                seen += data
        os.close(ours)
    return running.returncode, seen.decode()


@pytest.fixture
def with_backup(host):
    panelctl(host, "key-rotate")
    return host, panelctl(host, "create", "--json")["name"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, host):
    assert "usage: panelctl backup" in panelctl(host, command, "--help")


def test_first_key_first_backup_and_restore(host):
    assert "key-rotate" in panelctl(host, "create", status=1)
    assert "signs new backups" in panelctl(host, "key-rotate")
    assert "there are no backups" in panelctl(host, "list")
    made = panelctl(host, "create", "--json")
    assert made["result"] == "created"
    assert [found["state"] for found in panelctl(host, "list", "--json")] == ["good"]
    assert panelctl(host, "verify", "--json") == [{"name": made["name"], "problem": "", "result": "good"}]
    assert "extracted data from" in panelctl(host, "restore", "--to", str(host / "restored"))
    assert (host / "restored/files/data/file").read_text() == "content\n"
    assert "already" in panelctl(host, "restore", "--to", str(host / "restored"), status=1)


@pytest.fixture
def with_several(host):
    """A host with a full backup, a backup of the database, and a snapshot."""
    settings = json.loads((host / "settings.json").read_text())
    settings["sources"][0]["in_place"] = False
    (host / "settings.json").write_text(json.dumps({**settings, "sets": {"databases": {"sources": ["panel"]}}}))
    panelctl(host, "key-rotate")
    names = [panelctl(host, "create", kind, "--json")["name"] for kind in ("full", "databases")]
    panelctl(host, "restore", names[0], "--only", "panel", "--yes")
    return host, *names


def test_restore_to_folder_takes_the_newest_backup_of_each_source(with_several):
    host, full, databases = with_several
    told = panelctl(host, "restore", "--to", str(host / "all"), "--json")
    assert told["sources"] == {"data": full, "panel": databases}
    assert sorted(path.name for path in (host / "all").iterdir()) == ["files", "sqlite"]
    assert (host / "all/files/data/file").read_text() == "content\n"
    one = panelctl(host, "restore", "--to", str(host / "one"), "--only", "data", "--json")
    assert one["sources"] == {"data": full}
    assert [path.name for path in (host / "one").iterdir()] == ["files"]
    said = panelctl(host, "restore", "--to", str(host / "said"))
    assert f"data from {full}" in said
    assert f"panel from {databases}" in said
    before = panelctl(host, "list", "--json")[-1]
    assert before["summary"]["set"] == "before-restore"
    assert panelctl(host, "restore", before["name"], "--to", str(host / "before"), "--json")["name"] == before["name"]


def test_restore_to_folder_of_an_empty_backup_extracts_nothing(host):
    settings = json.loads((host / "settings.json").read_text())
    absent = {"kind": "sqlite", "name": "later", "path": str(host / "later.db"), "optional": True}
    (host / "settings.json").write_text(json.dumps({**settings, "sources": [absent]}))
    panelctl(host, "key-rotate")
    name = panelctl(host, "create", "--json")["name"]
    assert panelctl(host, "restore", name, "--to", str(host / "restored"), "--json")["sources"] == {}


def test_restore_to_folder_extracts_all_or_nothing(with_several):
    host, full, _ = with_several
    archive = host / "backups" / f"{full}.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    assert "not what was signed" in panelctl(host, "restore", "--to", str(host / "all"), status=4)
    assert not list(host.glob("*all"))


def test_terminal_shows_progress(with_backup):
    host, _ = with_backup
    status, seen = watched(host, "create")
    assert status == 0
    assert "\rbacking up data  [########################################] 100%" in seen
    status, seen = watched(host, "create", "--json")
    assert (status, "backing up" in seen) == (0, False)
    assert "backing up" not in panelctl(host, "create")


def test_failed_run_does_not_reach_100_percent(with_backup):
    host, _ = with_backup
    (host / "panel.db").write_bytes(b"no database".ljust(10_000))
    status, seen = watched(host, "create")
    assert status == 1
    drawn, said = seen.split("panelctl: ")
    assert "panel.db" in said
    last = drawn.rpartition("\rbacking up panel")[2]
    assert "]   0%" in last
    assert "100%" not in last


def test_altered_backup_exits_with_4(with_backup):
    host, name = with_backup
    archive = host / "backups" / f"{name}.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    assert "not what was signed" in panelctl(host, "verify", status=4)
    assert "not what was signed" in panelctl(host, "restore", name, "--to", str(host / "restored"), status=4)
    panelctl(host, "verify", "--all", status=4)
    assert not (host / "restored").exists()
    (host / "backups" / f"{name}.manifest").unlink()
    assert "MISSING" in panelctl(host, "list", status=4)


def test_partial_backup_exits_with_3(with_backup):
    host, _ = with_backup
    (host / "data" / "growing").write_bytes(b"x" * 50_000_000)
    # The file grows all the time, so it also grows while it is read.
    grow = "import sys\nwith open(sys.argv[1], 'ab', 0) as file:\n    while True: file.write(b'x')"
    with subprocess.Popen([sys.executable, "-c", grow, host / "data" / "growing"]) as writer:
        try:
            told = panelctl(host, "create", "--json", status=3)
        finally:
            writer.kill()
    assert told["result"] == "partial"
    assert "changed while it was read" in told["warnings"][0]


def test_restore_in_place_needs_confirmation(with_backup):
    host, _ = with_backup
    (host / "data" / "file").write_text("later\n")
    for arguments in ([], ["--json"]):
        said = panelctl(host, "restore", *arguments, status=4)
        assert "Pass --yes" in (said["error"] if arguments else said)
    for answer, status in (("no", 4), ("", 4), ("yes", 0)):
        assert (host / "data" / "file").read_text() == "later\n"
        done, seen = watched(host, "restore", answer=answer)
        assert "restores data, panel from backup_" in seen
        assert done == status, seen
    assert (host / "data" / "file").read_text() == "content\n"


def test_no_snapshot_option(with_backup):
    host, name = with_backup
    assert panelctl(host, "restore", "--yes", "--no-snapshot", "--json")["snapshot"] == ""
    assert [found["name"] for found in panelctl(host, "list", "--json")] == [name]
    assert panelctl(host, "restore", "--yes", "--json")["snapshot"] != ""


def test_failed_drill_exits_with_1(with_backup):
    host, _ = with_backup
    assert panelctl(host, "drill", "--json")["result"] == "passed"
    settings = json.loads((host / "settings.json").read_text())
    (host / "settings.json").write_text(json.dumps({**settings, "limits": {"rto_max": 0}}))
    assert panelctl(host, "drill", "--json", status=1)["result"] == "failed"
    assert "the last `drill` failed: RTO is" in panelctl(host, "status", status=3)


def test_restore_of_a_partial_backup_is_partial(with_backup):
    host, whole = with_backup
    # Not a database, so it is copied like any other file.
    (host / "data" / "odd.db").write_bytes(b"SQLite format 3\0".ljust(5000, b"x"))
    partial = panelctl(host, "create", "--json", status=3)["name"]
    for arguments in (["--yes"], [partial, "--yes"], ["--to", str(host / "one")], [partial, "--to", str(host / "two")]):
        said = panelctl(host, "restore", *arguments, status=3)
        assert f"warning: {partial}: {host / 'data' / 'odd.db'}: " in said
    told = panelctl(host, "restore", partial, "--only", "data", "--yes", "--json", status=3)
    assert (told["result"], told["partial"], len(told["warnings"])) == ("restored", True, 2)
    assert panelctl(host, "restore", whole, "--yes", "--json")["partial"] is False


def test_archive_of_the_first_format(host):
    panelctl(host, "key-rotate")
    (host / "backups").mkdir()
    old = "backup_20240101_000000"
    with tarfile.open(host / "backups" / f"{old}.tar.gz", "w:gz") as archive:
        archive.add(host / "data" / "file", "file")
    (host / "backups" / f"{old}.info").write_text("Format: v1\n")
    assert f"{old}: left out" in panelctl(host, "verify", "--all")
    assert f"{old}  OLD: of the first format" in panelctl(host, "list")
    name = panelctl(host, "create", "--json")["name"]
    told = panelctl(host, "verify", "--all", "--json")
    assert [(found["name"], found["result"]) for found in told] == [(name, "good"), (old, "left out")]
    to = str(host / "restored")
    for arguments in (["--to", to], ["--yes"]):
        assert f"restore {old} --to FOLDER --unproven" in panelctl(host, "restore", old, *arguments, status=1)
    assert "needs the name" in panelctl(host, "restore", "--to", to, "--unproven", status=2)
    panelctl(host, "restore", old, "--to", to, "--unproven")
    assert (host / "restored" / "file").read_text() == "content\n"


def test_second_run_is_refused_while_the_lock_is_held(with_backup):
    host, _ = with_backup
    with (host / "state" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in progress" in panelctl(host, "create", "--wait", "0", status=5)
    assert panelctl(host, "status", "--json")["runs"]["create full"]["failures"] == 0
    panelctl(host, "create")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_run_leaves_nothing_that_looks_like_a_backup(number, with_backup):
    host, name = with_backup
    with (host / "data" / "large").open("wb") as large:
        large.truncate(2 << 30)
    # A shell makes background jobs ignore SIGINT, which the tests may have inherited.
    command = ["env", "--default-signal=INT", sys.executable, "-I", host / "panelctl.py", "create"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        while not list((host / "backups").glob(".new-*")):
            assert running.poll() is None
        running.send_signal(number)
    assert [found["name"] for found in panelctl(host, "list", "--json")] == [name]
    (host / "data" / "large").unlink()
    panelctl(host, "create")
    assert not list((host / "backups").glob(".new-*"))
    assert len(list((host / "backups").iterdir())) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_cleans_up_and_reports(number, with_backup):
    host, _ = with_backup
    with (host / "data" / "large").open("wb") as large:
        large.truncate(2 << 30)
    command = ["env", "--default-signal=INT,HUP", sys.executable, "-I", host / "panelctl.py", "create"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        while not list((host / "backups").glob(".new-*")):
            assert running.poll() is None
        running.send_signal(number)
        assert running.stderr.read() == "panelctl: interrupted; existing data is unchanged\n"
    assert running.returncode == 1
    assert not list((host / "backups").glob(".new-*"))


def test_prune_follows_the_retention_and_verifies_first(with_backup):
    host, first = with_backup
    settings = json.loads((host / "settings.json").read_text())
    rules = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "newest": 2}
    (host / "settings.json").write_text(json.dumps({**settings, "sets": {"full": {"retention": rules}}}))
    others = [panelctl(host, "create", "--json")["name"] for _ in range(2)]
    archive = host / "backups" / f"{others[-1]}.tar.gz"
    good = archive.read_bytes()
    archive.write_bytes(good[:-1] + b"x")
    assert "not what was signed" in panelctl(host, "prune", status=4)
    archive.write_bytes(good)
    assert f"{first}  would be removed" in panelctl(host, "prune", "--dry-run")
    assert len(panelctl(host, "list", "--json")) == 3
    assert panelctl(host, "prune", "--json")["removed"] == [first]
    assert [found["name"] for found in panelctl(host, "list", "--json")] == others
    assert panelctl(host, "prune", "--json")["removed"] == []
    assert not list((host / "backups").glob(f"{first}*"))
    # Numbers of pruned backups are not reused.
    assert panelctl(host, "create", "--json")["seq"] == 4


def test_create_with_prune(with_backup):
    host, first = with_backup
    settings = json.loads((host / "settings.json").read_text())
    rules = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "newest": 1}
    (host / "settings.json").write_text(json.dumps({**settings, "sets": {"full": {"retention": rules}}}))
    made = panelctl(host, "create", "--prune", "--json")
    assert (made["result"], made["removed"]) == ("created", [first])
    assert f"{made['name']}  removed" in panelctl(host, "create", "--prune")
    assert len(panelctl(host, "list", "--json")) == 1


def test_created_but_not_pruned_reports_both(with_backup):
    host, _ = with_backup
    settings = json.loads((host / "settings.json").read_text())
    (host / "settings.json").write_text(json.dumps({**settings, "sets": {"full": {"retention": {"newest": 0}}}}))
    made = panelctl(host, "create", "--prune", "--json", status=1)
    assert made["result"] == "created"
    assert "newest" in made["prune_error"]
    assert [found["state"] for found in panelctl(host, "list", "--json")] == ["good", "good"]


def test_wrong_settings_name_the_mistake(host):
    file = host / "settings.json"
    good = json.loads(file.read_text())
    for change, word in [
        ({"folder": "relative"}, "absolute path"),
        ({"folders": "/x"}, "unknown key folders"),
        ({"sources": [{"kind": "tape", "name": "x"}]}, "source 1: kind is 'tape'"),
        ({"sources": [{"kind": "files", "name": "x"}]}, "path"),
        ({"sources": good["sources"] * 2}, "two sources have the name data, panel"),
    ]:
        file.write_text(json.dumps({**good, **change}))
        assert word in panelctl(host, "list", status=1)
