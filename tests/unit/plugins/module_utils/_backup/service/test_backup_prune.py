# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing backups, by retention or by name, and what concurrent commands report."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service.backups import BackupService
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.catalog import CREATED, PRUNED, Catalog
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import Store
from faulty_host import RULES, Host


@pytest.fixture
def host(memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    return host


def keep(host, newest):
    """Configure two sets that keep this many backups each."""
    rules = {"retention": {**RULES, "newest": newest}}
    host.settings["sets"] = {"full": rules, "databases": {**rules, "sources": ["panel"]}}
    host.write_settings()


def make(host, *sets):
    return [host.panelctl("create", of_set)["name"] for of_set in sets]


def break_(host, name):
    archive = host.folder / f"{name}.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")


def test_prune_refuses_if_the_newest_of_the_set_is_broken(host):
    keep(host, 1)
    made = make(host, "full", "full", "databases")
    break_(host, made[1])
    status, told = host.command("prune")
    assert status == 4
    assert f"{made[1]}.tar.gz: its content is not what was signed" in told
    assert [found["name"] for found in host.panelctl("list", status=4)] == made
    # Now that it is known as broken, the good one before it is kept instead.
    assert host.panelctl("prune")["removed"] == []


def test_broken_backups_are_pruned_and_do_not_count(host):
    keep(host, 2)
    made = make(host, "full", "full", "full")
    break_(host, made[1])
    assert host.panelctl("verify", made[1], status=4)
    assert host.panelctl("prune")["removed"] == []
    made += make(host, "full")
    assert host.panelctl("prune")["removed"] == made[:2]
    assert host.names() == made[2:]
    assert not list((host.state / "broken").iterdir())


def test_newest_of_a_set_that_loses_nothing_is_not_verified(host):
    keep(host, 1)
    made = make(host, "full", "databases", "databases")
    break_(host, made[0])
    assert host.panelctl("prune")["removed"] == [made[1]]


def states(host):
    return {found["name"][-1]: found["state"] for found in json.loads(host.command("list", "--json")[1])}


def gone(host, name):
    for suffix in names.SUFFIXES:
        (host.folder / f"{name}{suffix}").unlink()


def replaced(host, name):
    """Replace a backup by a different signed one of the same name."""
    shutil.copytree(host.root, host.root.with_name("other"))
    gone(host, name)
    (host.state / "ledger").unlink()
    made = host.run(
        "create", "--json", now=datetime.strptime(name[7:23], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    )
    assert json.loads(made.out)["name"] == name
    shutil.copy(host.root.with_name("other") / "state" / "ledger", host.state / "ledger")


def forged(host, name):
    (host.folder / f"{name}{names.MANIFEST}").write_text("forged")


@pytest.mark.parametrize(
    ("harm", "state"), [(None, "good"), (gone, "missing"), (replaced, "replaced"), (forged, "forged")]
)
def test_remove_works_in_any_state(harm, state, host):
    first = make(host, "full")[0]
    if harm:
        harm(host, first)
    second = make(host, "full")[0]
    assert states(host) == {"1": state, "2": "good"}
    removed = host.panelctl("remove", first, "--yes")
    assert (removed["result"], removed["name"], removed["state"]) == ("removed", first, state)
    assert host.names() == [second]
    assert not list(host.folder.glob(f"{first}*"))
    assert "no such backup" in host.command("remove", first, "--yes")[1]
    # Like a pruned backup it is not accepted again, and its number is not reused.
    assert host.panelctl("create")["seq"] == 3
    host.assert_chained()


def test_remove_needs_confirmation(host):
    first, second = make(host, "full", "full")
    status, told = host.command("remove", first)
    assert (status, "--yes" in told) == (4, True)
    assert host.names() == [first, second]


def test_pinned_or_last_good_backup_is_not_removed(host):
    keep(host, 6)
    full, *databases = make(host, "full", "databases", "databases")
    break_(host, databases[0])
    assert "`panelctl backup create full` first" in host.command("remove", full, "--yes")[1]
    host.panelctl("pin", databases[0])
    assert f"`panelctl backup unpin {databases[0]}`" in host.command("remove", databases[0], "--yes")[1]
    assert host.names() == [full, *databases]
    host.panelctl("unpin", databases[0])
    host.panelctl("remove", databases[0], "--yes")
    assert "last good backup of the set databases" in host.command("remove", databases[1], "--yes")[1]
    # The last backup of a set that is no longer configured can be removed, because it cannot be replaced.
    del host.settings["sets"]["databases"]
    host.write_settings()
    host.panelctl("remove", databases[1], "--yes")
    assert host.names() == [full]


def test_unknown_backup_is_removed_without_a_catalog_record(host):
    first = json.loads(host.run("create", "--json", now=datetime.now(timezone.utc) - timedelta(hours=1)).out)["name"]
    (host.state / "ledger").unlink()
    make(host, "full")
    before = (host.state / "ledger").read_bytes()
    assert host.panelctl("remove", first, "--yes")["state"] == "replayed"
    assert (host.state / "ledger").read_bytes() == before


def test_recovery_after_a_clock_jump(host):
    keep(host, 1)
    now = datetime.now(timezone.utc)
    for moment in (now, now + timedelta(minutes=20), now):
        assert host.run("create", now=moment).status == 0
    wrong = next(found["name"] for found in host.panelctl("list") if found["summary"]["seq"] == 2)
    assert "`panelctl backup remove`" in host.command("prune")[1]
    host.panelctl("remove", wrong, "--yes")
    assert len(host.panelctl("prune")["removed"]) == 1
    assert len(host.names()) == 1


@pytest.fixture
def meanwhile(monkeypatch):
    """Run a command of another process just before the first call of a method."""

    def install(host, owner, name, *arguments):
        plain = getattr(owner, name)

        def doing(*given):
            monkeypatch.setattr(owner, name, plain)
            assert host.run(*arguments).status == 0
            return plain(*given)

        monkeypatch.setattr(owner, name, doing)

    return install


@pytest.mark.parametrize("when", ["_list", "_inspect"])
@pytest.mark.parametrize("command", ["list", "status"])
def test_backup_pruned_during_a_listing_is_not_missed(command, when, host, meanwhile):
    keep(host, 1)
    made = make(host, "full", "full", "full")
    meanwhile(host, Store, when, "prune")
    told = host.command(command)[1]
    assert not re.search("MISSING|FORGED|no such backup|not pruned", told), told
    assert "good" in told
    assert host.names() == made[2:]


def test_backup_pruned_during_verify_all_is_not_missed(host, meanwhile):
    keep(host, 1)
    made = make(host, "full", "full", "full")
    meanwhile(host, BackupService, "_verify", "prune")
    assert [found["name"] for found in host.panelctl("verify", "--all")] == made[2:]
    make(host, "full")
    # A backup that is verified by name is reported.
    meanwhile(host, BackupService, "_verify", "prune")
    assert "no such backup" in host.command("verify", made[2])[1]


@pytest.mark.parametrize("suffix", names.SUFFIXES)
def test_folder_in_place_of_a_backup_file_does_not_stop_a_prune(suffix, host, tmp_path):
    keep(host, 1)
    made = make(host, "full", "full")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    place = host.folder / f"{made[0]}{suffix}"
    place.unlink()
    place.mkdir()
    (place / "deeper").mkdir()
    (place / "link").symlink_to(tmp_path / "outside")
    if suffix == names.MANIFEST:
        host.panelctl("remove", made[0], "--yes")
    else:
        assert host.panelctl("prune")["removed"] == [made[0]]
    assert host.names() == made[1:]
    make(host, "full")
    (aside,) = host.folder.glob(".aside-*")
    assert list((tmp_path / "outside").iterdir())
    assert f"PROBLEM: {aside}: a folder was in the place of a backup file" in host.command("status")[1]
    shutil.rmtree(aside)
    assert "a folder was in the place" not in host.command("status")[1]


@pytest.fixture
def dying(monkeypatch):
    """Return a function that makes the catalog die at the first line of a kind."""

    def install(event):
        append = Catalog.append

        def appending(catalog, record):
            if record.event == event:
                raise KeyboardInterrupt
            append(catalog, record)

        monkeypatch.setattr(Catalog, "append", appending)
        return monkeypatch.undo

    return install


def content(host):
    return {path: path.read_bytes() for path in host.root.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize(("event", "command"), [(CREATED, "create"), (PRUNED, "prune")])
def test_dry_run_does_not_finish_an_interrupted_prune(event, command, host, dying):
    keep(host, 2)
    made = make(host, "full", "full", "full")
    revive = dying(event)
    assert host.command(command)[0] == 1
    revive()
    before, listed = content(host), host.names()
    foreseen = host.panelctl("prune", "--dry-run")
    assert content(host) == before
    assert foreseen["removed"] == made[: 2 if command == "create" else 1]
    assert list(foreseen["kept"]) == listed[-2:]
    host.panelctl("prune")
    assert host.names() == listed[-2:]
