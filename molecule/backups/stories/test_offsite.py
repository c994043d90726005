# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was backed up is sent elsewhere by itself, where nobody can read or remove it, and comes back from there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from kit.hosts import wait_until

from driver import Host

STORE = Host("backups-store", "")
PUSH = "aapanel-backup-push.service"
IDENTITY = "/root/identity"
COPIES = "/home/runner/copies"
SETTINGS = "/etc/aapanel/backup.json"


@pytest.fixture
def down() -> Iterator[None]:
    """The store answers nobody."""
    STORE.run("systemctl", "stop", "ssh")
    yield
    STORE.run("systemctl", "start", "ssh")


@pytest.fixture
def unprunable(server: Host) -> Iterator[None]:
    """Rules that keep not even the newest backup, so that none is removed; as after a clock has jumped."""
    good = server.run("cat", SETTINGS).stdout
    settings = json.loads(good)
    settings["sets"]["databases"]["retention"]["newest"] = 0
    server.run("sh", "-c", f"cat >{SETTINGS}", given=json.dumps(settings))
    yield
    server.run("sh", "-c", f"cat >{SETTINGS}", given=good)
    server.run("systemctl", "reset-failed", "aapanel-backup@databases")


def listed(host: Host, folder: str) -> list[str]:
    """Names of the files in a folder, which may not be there yet."""
    return host.run("sh", "-c", f"ls {folder} 2>/dev/null || true").stdout.split()


def kept(server: Host) -> list[str]:
    """Names of the files that the store has of a host."""
    return listed(STORE, f"/srv/keeper/panel/{server.name}")


def is_kept(server: Host, name: str) -> bool:
    """Whether the store has a backup, and nobody is sending any more."""
    idle = server.unit(PUSH, "ActiveState") in ("inactive", "failed")
    return idle and f"{name}.manifest.age" in kept(server)


def sent(server: Host) -> str:
    """Back up, and wait for the copy; returns its name."""
    name = str(server.back_up("databases")["name"])
    wait_until(lambda: is_kept(server, name), 120.0, f"a copy of {name}")
    return name


def test_each_backup_is_sent_by_itself_and_encrypted(server: Host) -> None:
    """The unit that made it has another one send it; the host says so, and so do the files there."""
    name = sent(server)
    assert server.unit(PUSH, "Result") == "success"
    server.panelctl("remote")
    folder = f"/srv/keeper/panel/{server.name}"
    for suffix in ("tar.gz", "info", "manifest"):
        assert STORE.run("head", "-c", "18", f"{folder}/{name}.{suffix}.age").stdout == "age-encryption.org"
    modes = server.run("sh", "-c", "stat -c '%U %a' /etc/aapanel/backup/offsite/* /etc/aapanel/backup/offsite").stdout
    assert set(modes.splitlines()) == {"root 600", "root 700"}


def test_what_is_lost_comes_back(server: Host) -> None:
    """Every file of a backup is gone; its copy is fetched with the identity, which the host does not have."""
    name = sent(server)
    server.run("sh", "-c", f"rm {server.data}/backups/{name}.*")
    assert {found["name"]: found["state"] for found in server.panelctl("list", status=4)}[name] == "missing"
    server.panelctl("fetch", name, status=1)
    identity = STORE.run("cat", IDENTITY).stdout
    server.run("sh", "-c", f"umask 077; cat >{IDENTITY}", given=identity)
    server.panelctl("fetch", name, "--identity", IDENTITY)
    server.run("rm", IDENTITY)
    assert server.backups()[-1]["name"] == name
    server.panelctl("verify", name)


def test_nobody_can_remove_a_copy(server: Host) -> None:
    """Not even with the key that the host has."""
    name = sent(server)
    file = f"store:panel/{server.name}/{name}.manifest.age"
    config = "--config=/etc/aapanel/backup/offsite/rclone.conf"
    assert server.run("rclone", config, "lsf", file).stdout.strip() == f"{name}.manifest.age"
    assert server.run("rclone", config, "--retries=1", "deletefile", file, check=False).returncode
    assert f"{name}.manifest.age" in kept(server)


@pytest.mark.usefixtures("down")
def test_a_store_that_is_down_keeps_nobody_from_backing_up(server: Host) -> None:
    """The backup is good, and sending it fails where somebody looks; the next one brings both."""
    name = str(server.back_up("databases")["name"])
    wait_until(lambda: server.unit(PUSH, "ActiveState") == "failed", 300.0, "a push that fails")
    server.panelctl("remote", status=3)
    STORE.run("systemctl", "start", "ssh")
    assert sent(server) > name
    assert is_kept(server, name)
    server.panelctl("remote")


@pytest.mark.usefixtures("unprunable")
def test_what_was_made_is_sent_though_nothing_could_be_pruned(server: Host) -> None:
    """The unit fails, where somebody looks, and the backup that it has made is not only here."""
    known = {backup["name"] for backup in server.backups()}
    assert server.run("systemctl", "start", "aapanel-backup@databases", check=False).returncode
    assert server.unit("aapanel-backup@databases", "ActiveState") == "failed"
    name = server.backups("databases")[-1]["name"]
    assert name not in known
    wait_until(lambda: is_kept(server, name), 120.0, f"a copy of {name}")


def test_cron_sends_what_it_has_made(cron: Host) -> None:
    """As the units do, without systemd; the remote is a folder."""

    def copies() -> set[str]:
        return {name for name in listed(cron, COPIES) if name.endswith(".manifest")}

    known = copies()
    wait_until(lambda: copies() - known, 120.0, "a copy by cron")
    # Those that other stories made are sent with it.
    remote = (cron.program, "backup", "remote")
    wait_until(lambda: cron.run(*remote, check=False).returncode == 0, 60.0, "copies of all")
