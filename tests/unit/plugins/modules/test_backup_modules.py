# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backup modules, on a host with a folder and a database, but without a panel."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from importlib import import_module
from threading import Timer

import pytest
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, restore
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service.backups import BackupService
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.service.settings import load
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage.store import Store


@pytest.fixture(autouse=True)
def on_a_target(monkeypatch):
    """Pretend to be a module's process on a host, although other tests have imported Ansible's controller."""
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
    monkeypatch.setattr("ansible.module_utils.common.warnings._global_warnings", {})


@pytest.fixture
def host(tmp_path):
    """A host with sources and a keyring; returns its settings file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("old")
    with closing(sqlite3.connect(tmp_path / "panel.db")) as database, database:
        database.execute("CREATE TABLE items (id INTEGER)")
    rules = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "newest": 1}
    settings = {
        **{name: str(tmp_path / name) for name in ("folder", "state_dir", "keyring", "textfile_dir")},
        "host": "an-installation",
        "sources": [
            {"kind": "sqlite", "name": "database", "path": str(tmp_path / "panel.db")},
            {"kind": "files", "name": "data", "path": str(tmp_path / "data")},
        ],
        "sets": {"databases": {"sources": ["database"], "retention": rules}, "full": {"retention": rules}},
    }
    (tmp_path / "textfile_dir").mkdir()
    config = tmp_path / "backup.json"
    config.write_text(json.dumps(settings))
    BackupService(load(config)).rotate_key()
    return config


@pytest.fixture
def run(host, capsys):
    """Return a function that runs a module and returns its result."""

    def run_module(which, /, *, check=False, **arguments):
        module = import_module(f"ansible_collections.aapanel.pipeline.plugins.modules.{which}")
        warnings._global_warnings.clear()
        given = {"config": str(host), "_ansible_check_mode": check, "_ansible_diff": True, **arguments}
        with patch_module_args(given), pytest.raises(SystemExit) as ended:
            module.main()
        result = json.loads(capsys.readouterr().out)
        assert ended.value.code == (1 if result.get("failed") else 0)
        return result

    return run_module


def warned(result):
    """Return the warnings of a module."""
    return [warning["event"]["msg"] for warning in result.get("warnings", [])]


def test_recent_backup_is_not_created_again(run):
    foreseen = run("backup", check=True)
    assert (foreseen["changed"], foreseen["backup"]) == (True, None)
    assert run("backup_info")["backups"] == []
    first = run("backup")
    assert first["changed"]
    assert first["diff"]["before"] == "newest: none\n"
    again = run("backup", max_age=600)
    assert (again["changed"], again["backup"]["name"]) == (False, first["backup"]["name"])
    # A backup of another set does not count.
    assert run("backup", set="databases", max_age=600)["changed"]
    assert run("backup")["changed"]
    assert "no set 'databses'" in run("backup", set="databses", check=True)["msg"]


@pytest.fixture
def back_up_ahead(run, monkeypatch):
    """Return a function that creates a backup while the clock is ahead."""

    def make(**ahead):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + timedelta(**ahead)

        with monkeypatch.context() as wrong:
            wrong.setattr(create, "datetime", Clock)
            run("backup")

    return make


def test_backup_from_the_future_is_not_recent(run, back_up_ahead):
    back_up_ahead(days=365)
    assert run("backup", max_age=600)["changed"]


def test_backup_a_few_seconds_ahead_is_not_recent_with_max_age_0(run, back_up_ahead):
    back_up_ahead(seconds=5)
    assert not run("backup", max_age=60)["changed"]
    assert run("backup")["changed"]


def test_verify_all_ignores_backups_pruned_meanwhile(run, host, monkeypatch):
    first, second = (run("backup")["backup"]["name"] for _ in range(2))
    backups, found = Store.backups, []

    def pruned(store):
        there = backups(store)
        if not found:
            found.append(there)
            BackupService(load(host)).remove(first)
        return there

    monkeypatch.setattr(Store, "backups", pruned)
    assert run("backup_verify", all=True)["verified"] == [{"name": second, "problem": ""}]


def test_info_returns_backups_and_problems(run, host):
    name = run("backup")["backup"]["name"]
    found = run("backup_info")
    assert [(backup["name"], backup["state"]) for backup in found["backups"]] == [(name, "good")]
    assert found["status"]["sources"]["database"]["newest"] == name
    assert found["status"]["problems"] == []
    assert run("backup_verify", all=True)["verified"] == [{"name": name, "problem": ""}]
    archive = host.parent / "folder" / f"{name}.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    bad = run("backup_verify")
    assert "not what was signed" in bad["msg"]
    assert bad["status"] == 4
    assert any("`verify` failed" in problem for problem in run("backup_info")["status"]["problems"])


def test_verify_all_leaves_out_the_first_format(run, host):
    assert run("backup_verify", all=True)["verified"] == []
    name = run("backup")["backup"]["name"]
    old = "backup_20240101_000000"
    (host.parent / "folder" / f"{old}.tar.gz").write_bytes(b"")
    found = run("backup_verify", all=True)
    assert (found["verified"], found["left_out"]) == ([{"name": name, "problem": ""}], [old])
    assert [verdict["name"] for verdict in run("backup_verify")["verified"]] == [name]


def test_restore_in_place(run, host):
    file = host.parent / "data" / "file"
    name = run("backup")["backup"]["name"]
    file.write_text("new")
    foreseen = run("backup_restore", check=True)
    assert foreseen["sources"] == {"database": name, "data": name}
    assert f"data: {name}" in foreseen["diff"]["after"]
    assert file.read_text() == "new"
    done = run("backup_restore")
    assert (done["changed"], file.read_text()) == (True, "old")
    assert done["snapshot"] != name
    to = str(host.parent / "elsewhere")
    assert run("backup_restore", to=to, check=True)["changed"]
    assert not (host.parent / "elsewhere").exists()
    assert run("backup_restore", to=to, only=["data"], name=name)["sources"] == {"data": name}
    assert [path.name for path in (host.parent / "elsewhere").iterdir()] == ["files"]
    assert not run("backup_restore", to=to)["changed"]
    assert "no source tape" in run("backup_restore", only=["tape"])["msg"]


def test_restore_to_folder_takes_the_newest_of_each_source(run, host):
    full = run("backup")["backup"]["name"]
    databases = run("backup", set="databases")["backup"]["name"]
    for check in (True, False):
        done = run("backup_restore", to=str(host.parent / "elsewhere"), check=check)
        assert done["sources"] == {"database": databases, "data": full}
        assert f"data from {full}\n" in done["diff"]["after"]
    assert (host.parent / "elsewhere/files/data/file").read_text() == "old"


def test_restore_to_folder_reports_what_was_extracted(run, host, monkeypatch):
    run("backup")
    extract, newer = BackupService.extract, []

    def another(backups, *arguments):
        newer.append(backups.create("databases").name)
        return extract(backups, *arguments)

    monkeypatch.setattr(BackupService, "extract", another)
    assert run("backup_restore", to=str(host.parent / "elsewhere"))["sources"]["database"] == newer[0]


def test_restore_without_a_snapshot(run):
    name = run("backup")["backup"]["name"]
    assert run("backup_restore", snapshot=False)["snapshot"] == ""
    assert [backup["name"] for backup in run("backup_info")["backups"]] == [name]


def test_restore_of_a_partial_backup_warns(run, host):
    (host.parent / "data" / "odd.db").write_bytes(b"SQLite format 3\0".ljust(5000, b"x"))
    made = run("backup")
    assert made["backup"]["partial"]
    assert any("odd.db" in warning for warning in warned(made))
    for arguments in ({"to": str(host.parent / "elsewhere")}, {"only": ["data"]}):
        done = run("backup_restore", **arguments)
        assert done["partial"]
        assert any(f"{made['backup']['name']}: " in warning for warning in warned(done))
    assert run("backup_restore", check=True)["partial"] is None


def test_prune(run):
    names = [run("backup")["backup"]["name"] for _ in range(3)]
    foreseen = run("backup_prune", check=True)
    assert (foreseen["changed"], foreseen["removed"]) == (True, names[:2])
    assert len(run("backup_info")["backups"]) == 3
    assert run("backup_prune")["diff"]["after"] == f"{names[2]}\n"
    assert not run("backup_prune")["changed"]


def test_drill(run, host):
    assert "no good backup" in run("backup_drill")["msg"]
    run("backup")
    assert run("backup_drill", check=True)["report"] is None
    report = run("backup_drill")["report"]
    assert (report["problem"], report["health"]) == ("", "no panel runs on this host")
    assert set(report["sources"]) == {"database", "data"}
    assert run("backup_info")["status"]["drill"]["result"] == "passed"
    figures = (host.parent / "textfile_dir" / "aapanel_backup.prom").read_text()
    assert "aapanel_backup_drill_passed 1" in figures
    host.write_text(json.dumps({**json.loads(host.read_text()), "limits": {"rto_max": 0}}))
    failed = run("backup_drill")
    assert "RTO is" in failed["msg"]
    assert (failed["report"]["problem"], failed["status"]) == (failed["msg"].removeprefix("the drill failed: "), 1)
    assert "aapanel_backup_drill_passed 0" in (host.parent / "textfile_dir" / "aapanel_backup.prom").read_text()


def test_drill_waits_for_a_restore_or_another_drill(run, host):
    run("backup")
    with ExitStack() as another:
        another.enter_context(restore.scratch_lock(BackupService(load(host)).store, 0))
        assert "another restore or drill" in run("backup_drill", wait=0)["msg"]
        ends = Timer(0.5, another.pop_all().close)
        ends.start()
        assert run("backup_drill", wait=10)["report"]["problem"] == ""
        ends.join()


def test_missing_settings_are_named(run, host):
    host.unlink()
    assert "backup.json" in run("backup")["msg"]
