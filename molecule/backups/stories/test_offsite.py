# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Off-site copies are sent automatically, cannot be read or removed by the host, and can be fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from kit.hosts import Host, wait_until

from driver import BackupHost

STORE = Host("backups-store")
PUSH = "aapanel-backup-push.service"
IDENTITY = "/root/identity"
COPIES = "/home/runner/copies"
SETTINGS = "/etc/aapanel/backup.json"


@pytest.fixture
def stopped_store() -> Iterator[None]:
    """Stop the store's SSH server, and start it afterwards."""
    STORE.run("systemctl", "stop", "ssh")
    yield
    STORE.run("systemctl", "start", "ssh")


@pytest.fixture
def unprunable(server: BackupHost) -> Iterator[None]:
    """Set a retention that keeps no backup at all; pruning then fails, as it does after a clock has jumped."""
    good = server.run("cat", SETTINGS).stdout
    settings = json.loads(good)
    settings["sets"]["databases"]["retention"]["newest"] = 0
    server.run("sh", "-c", f"cat >{SETTINGS}", stdin=json.dumps(settings))
    yield
    server.run("sh", "-c", f"cat >{SETTINGS}", stdin=good)
    server.run("systemctl", "reset-failed", "aapanel-backup@databases")


def list_files(host: Host, folder: str) -> list[str]:
    """Return the names of the files in a folder, which may not exist yet."""
    return host.run("sh", "-c", f"ls {folder} 2>/dev/null || true").stdout.split()


def stored_files(server: BackupHost) -> list[str]:
    """Return the names of a host's files in the store."""
    return list_files(STORE, f"/srv/keeper/panel/{server.name}")


def is_stored(server: BackupHost, name: str) -> bool:
    """Tell whether the store has a backup, and no push is running."""
    idle = server.unit(PUSH, "ActiveState") in ("inactive", "failed")
    return idle and f"{name}.manifest.age" in stored_files(server)


def back_up_and_push(server: BackupHost) -> str:
    """Create a backup, wait for its copy, and return its name."""
    name = str(server.back_up("databases")["name"])
    wait_until(lambda: is_stored(server, name), 120.0, f"a copy of {name}")
    return name


def test_each_backup_is_copied_and_encrypted(server: BackupHost) -> None:
    """The unit that creates the backup starts the push; the files in the store are encrypted."""
    name = back_up_and_push(server)
    assert server.unit(PUSH, "Result") == "success"
    server.panelctl("remote")
    folder = f"/srv/keeper/panel/{server.name}"
    for suffix in ("tar.gz", "info", "manifest"):
        assert STORE.run("head", "-c", "18", f"{folder}/{name}.{suffix}.age").stdout == "age-encryption.org"
    modes = server.run("sh", "-c", "stat -c '%U %a' /etc/aapanel/backup/offsite/* /etc/aapanel/backup/offsite").stdout
    assert set(modes.splitlines()) == {"root 600", "root 700"}


def test_a_lost_backup_is_fetched(server: BackupHost) -> None:
    """All files of a backup are removed; its copy is fetched with the identity, which is not on the host."""
    name = back_up_and_push(server)
    server.run("sh", "-c", f"rm {server.data}/backups/{name}.*")
    assert {found["name"]: found["state"] for found in server.panelctl("list", status=4)}[name] == "missing"
    server.panelctl("fetch", name, status=1)
    identity = STORE.run("cat", IDENTITY).stdout
    server.run("sh", "-c", f"umask 077; cat >{IDENTITY}", stdin=identity)
    server.panelctl("fetch", name, "--identity", IDENTITY)
    server.run("rm", IDENTITY)
    assert server.backups()[-1]["name"] == name
    server.panelctl("verify", name)


def test_the_host_cannot_remove_a_copy(server: BackupHost) -> None:
    """The store refuses it, though the key is the host's own."""
    name = back_up_and_push(server)
    file = f"store:panel/{server.name}/{name}.manifest.age"
    config = "--config=/etc/aapanel/backup/offsite/rclone.conf"
    assert server.run("rclone", config, "lsf", file).stdout.strip() == f"{name}.manifest.age"
    assert server.run("rclone", config, "--retries=1", "deletefile", file, check=False).returncode
    assert f"{name}.manifest.age" in stored_files(server)


@pytest.mark.usefixtures("stopped_store")
def test_a_stopped_store_blocks_no_backup(server: BackupHost) -> None:
    """The backup is good, the push unit fails, and the next push sends both backups."""
    name = str(server.back_up("databases")["name"])
    wait_until(lambda: server.unit(PUSH, "ActiveState") == "failed", 300.0, "a push that fails")
    server.panelctl("remote", status=1)
    STORE.run("systemctl", "start", "ssh")
    assert back_up_and_push(server) > name
    assert is_stored(server, name)
    server.panelctl("remote")


@pytest.mark.usefixtures("unprunable")
def test_a_failed_prune_does_not_prevent_the_copy(server: BackupHost) -> None:
    """The unit fails, and its new backup is copied nevertheless."""
    known = {backup["name"] for backup in server.backups()}
    assert server.run("systemctl", "start", "aapanel-backup@databases", check=False).returncode
    assert server.unit("aapanel-backup@databases", "ActiveState") == "failed"
    name = server.backups("databases")[-1]["name"]
    assert name not in known
    wait_until(lambda: is_stored(server, name), 120.0, f"a copy of {name}")


def test_cron_copies_backups(cron: BackupHost) -> None:
    """Without systemd, the crontab's jobs do it; here, the remote is a folder."""

    def copies() -> set[str]:
        return {name for name in list_files(cron, COPIES) if name.endswith(".manifest")}

    known = copies()
    wait_until(lambda: copies() - known, 120.0, "a copy by cron")
    # Backups of other stories are sent too.
    remote = (cron.program, "backup", "remote")
    wait_until(lambda: cron.run(*remote, check=False).returncode == 0, 60.0, "copies of all")
