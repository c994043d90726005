# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills, the status, and the record of runs."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions import create, drill, runs, status
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.app import App
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.drill import RecoveryObjectives, Report
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.restore import is_interrupted
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.actions.runs import LastRuns, RunHistory
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.archive import names
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError, NotAuthenticError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import sqlite
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources.directory import Files
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources.sqlite import Sqlite
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage import pins


class Panel(App):
    """An app whose rehearsal calls a function."""

    def __init__(self, look=lambda: None):
        super().__init__(None)
        self._look = look

    def rehearse(self, databases):
        self._look()
        return ""


@pytest.fixture
def origins(tmp_path):
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "shared" / "file").write_text("content")
    file = tmp_path / "shared" / "data" / "panel.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE items (id INTEGER)")
        database.execute("INSERT INTO items VALUES (1)")
    return [Sqlite("database", file), Files("data", tmp_path / "shared", exclude=("/data/panel.db",))]


@pytest.fixture
def backed_up(store, origins):
    return create.create(store, origins)


def test_passed_drill_leaves_only_a_signed_report(store, origins, backed_up):
    seen = []

    def look():
        folder = store.state_dir / "drill/files/data"
        with closing(sqlite3.connect(folder / "data/panel.db")) as database:
            seen.append(((folder / "file").read_text(), database.execute("SELECT id FROM items").fetchall()))

    report = drill.drill(store, origins, Panel(look), RecoveryObjectives())
    assert (report.result, report.problem, report.health) == ("passed", "", "")
    # The rehearsal found the database at its usual path.
    assert seen == [("content", [(1,)])]
    assert report.sources["database"]["canary"] == backed_up.sources[0].canary != ""
    assert report.sources["database"]["rows"] == 2
    assert not (store.state_dir / "drill").exists()
    assert drill.read_reports(store) == [report]


def test_altered_report_is_refused(store, origins, backed_up):
    drill.drill(store, origins, Panel(), RecoveryObjectives(rto_max=0))
    file = store.state_dir / "drills"
    good = file.read_bytes()
    assert drill.read_reports(store)[0].result == "failed"
    file.write_bytes(good.replace(b"RTO is", b"RTO in"))
    with pytest.raises(NotAuthenticError, match="signature"):
        drill.read_reports(store)
    file.write_bytes(good[:-20] + b"\n")
    with pytest.raises(NotAuthenticError):
        drill.read_reports(store)


def test_incomplete_report_of_a_killed_drill_is_ignored(store, origins, backed_up):
    drill.drill(store, origins, Panel(), RecoveryObjectives())
    file = store.state_dir / "drills"
    with file.open("ab") as stream:
        stream.write(file.read_bytes()[:60])
    assert len(drill.read_reports(store)) == 1
    drill.drill(store, origins, Panel(), RecoveryObjectives())
    assert [report.result for report in drill.read_reports(store)] == ["passed", "passed"]
    assert len(file.read_bytes().splitlines()) == 2


def test_full_disk_fails_the_drill(store, origins, backed_up, monkeypatch):
    def full():
        raise OSError(28, "No space left on device", "/somewhere")

    assert (
        drill.drill(store, origins, Panel(full), RecoveryObjectives()).problem == "/somewhere: No space left on device"
    )
    assert drill.read_reports(store)[-1].result == "failed"
    assert not (store.state_dir / "drill").exists()


def test_source_without_a_good_backup_fails_the_drill(store, origins, backed_up):
    """A source that no good backup contains could not be restored."""
    create.create(store, origins[1:])
    store.path(backed_up.name, ".manifest").unlink()
    report = drill.drill(store, origins, Panel(), RecoveryObjectives())
    assert report.problem == "no good backup contains database"
    assert set(report.sources) == {"data"}
    # An optional source that does not exist is not missing.
    absent = replace(origins[0], name="other", path=origins[0].path.with_name("none"), optional=True)
    assert drill.drill(store, [*origins[1:], absent], Panel(), RecoveryObjectives()).problem == ""
    store.folder.rename(store.folder.with_name("gone"))
    store.folder.mkdir()
    assert "no good backup contains these sources" in drill.drill(store, origins, Panel(), RecoveryObjectives()).problem


@pytest.mark.parametrize(
    ("limit", "word"), [("rto_max", "RTO is"), ("rpo_max", "RPO is"), ("files_max", "the files is")]
)
def test_missed_objective_fails_the_drill(limit, word, store, origins, backed_up):
    report = drill.drill(store, origins, Panel(), replace(RecoveryObjectives(), **{limit: 0}))
    assert word in report.problem


@pytest.mark.parametrize("figure", ["rto", "rpo", "files_age"])
def test_value_at_its_limit_fails(figure):
    limits = RecoveryObjectives(rto_max=60, rpo_max=60, files_max=60)
    assert drill._missed_objectives(Report("host-1", "2026-11-22T04:40:00Z", **{figure: 59}), limits) == ""
    assert "is 60 s" in drill._missed_objectives(Report("host-1", "2026-11-22T04:40:00Z", **{figure: 60}), limits)


def test_unhealthy_panel_or_missing_rows_fail_the_drill(store, origins, backed_up, monkeypatch):
    def sick():
        raise BackupError("the panel is not healthy on it")

    assert "not healthy" in drill.drill(store, origins, Panel(sick), RecoveryObjectives()).problem
    monkeypatch.setattr(sqlite, "_count_rows", lambda _: {})
    assert "has 0 rows after loading, but had 1" in drill.drill(store, origins, Panel(), RecoveryObjectives()).problem
    assert not (store.state_dir / "drill").exists()


def test_wrong_canary_fails_the_drill(store, origins, backed_up, monkeypatch):
    monkeypatch.setattr(Files, "write_canary", lambda *_: None)
    create.create(store, origins)
    assert "the canary of the backup" in drill.drill(store, origins, Panel(), RecoveryObjectives()).problem


def test_missing_canary_fails_the_drill(store, origins, backed_up, monkeypatch):
    """Without a canary the age of the data is unproven. Sources that are not restored in place never have one."""
    config = Files("config", origins[1].path / "data", in_place=False)

    def refuse(*_):
        raise BackupError("it is read-only")

    with monkeypatch.context() as patched:
        patched.setattr(Files, "write_canary", refuse)
        name = create.create(store, [*origins, config]).name
    report = drill.drill(store, [*origins, config], Panel(), RecoveryObjectives())
    assert report.problem.startswith(f"data: {name} has no canary; its warnings")
    assert set(report.sources) == {"database", "data"}
    assert [bool(source.canary) for source in create.create(store, [*origins, config]).sources] == [True, True, False]
    assert drill.drill(store, [*origins, config], Panel(), RecoveryObjectives()).problem == ""


def test_leftovers_of_a_killed_drill_are_removed(store, origins, backed_up):
    (store.state_dir / "drill" / "files").mkdir(parents=True)
    assert drill.drill(store, origins, Panel(), RecoveryObjectives()).result == "passed"
    assert not (store.state_dir / "drill").exists()


def test_drill_is_refused_after_an_interrupted_restore(store, origins, backed_up):
    (store.state_dir / "restore.json").write_text("{}")
    assert is_interrupted(store)
    with pytest.raises(BackupError, match="settle"):
        drill.drill(store, origins, Panel(), RecoveryObjectives())


def test_status_reports_problems(store, origins, backed_up):
    assert status.collect(store, origins, RecoveryObjectives(), {}).problems == []
    drill.drill(store, origins, Panel(), RecoveryObjectives(rto_max=0))
    (store.state_dir / "restore.json").write_text("{}")
    store.path(backed_up.name, ".manifest").rename(store.folder / "away")
    problems = status.collect(
        store, origins, RecoveryObjectives(), {"create full": LastRuns(problem="the disk is full")}
    ).problems
    for word in (
        "manifest is missing",
        "database: never",
        "the last drill failed",
        "settle",
        "the disk is full",
    ):
        assert any(word in problem for problem in problems), word
    (store.folder / "away").rename(store.path(backed_up.name, ".manifest"))
    assert any(
        "no drill has run for" in problem
        for problem in status.collect(store, origins, replace(RecoveryObjectives(), drill_max=-1), {}).problems
    )
    assert any(
        "must be younger" in problem
        for problem in status.collect(store, origins, RecoveryObjectives(rpo_max=0), {}).problems
    )


def test_failed_restore_is_a_problem_until_a_drill_passes(store, origins, backed_up):
    failed = LastRuns(last_failure=100, problem="the disk is full")
    for last, told in (
        ({"restore": failed}, True),
        ({"restore": failed, "drill": LastRuns(last_success=99)}, True),
        ({"restore": failed, "drill": LastRuns(last_success=101)}, False),
        ({"create full": failed, "drill": LastRuns(last_success=101)}, True),
    ):
        assert (
            any(
                "the disk is full" in text
                for text in status.collect(store, origins, RecoveryObjectives(), last).problems
            )
            == told
        )


@pytest.fixture
def ahead(monkeypatch):
    """Set the clock of a module ahead."""

    def install(module, by):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + by

        monkeypatch.setattr(module, "datetime", Clock)

    return install


@pytest.mark.parametrize(
    ("by", "word"), [(timedelta(minutes=4), ""), (timedelta(minutes=6), "the clock is wrong now, or was wrong then")]
)
def test_backup_from_the_future_is_reported(by, word, store, origins, ahead):
    ahead(create, by)
    made = create.create(store, origins)
    report = drill.drill(store, origins, Panel(), RecoveryObjectives())
    assert (report.rpo, report.files_age) == (0, 0)
    assert (word in report.problem, made.name in report.problem) == (True, bool(word))
    problems = status.collect(store, origins, RecoveryObjectives(), {}).problems
    future = f"{made.name} is from the future: {word}"
    assert (
        [problem for problem in problems if future in problem]
        == problems[:2]
        == [f"{origin.name}: {future}" for origin in origins if word]
    )


def test_drill_from_the_future_is_reported(store, origins, backed_up, ahead):
    ahead(drill, timedelta(minutes=6))
    drill.drill(store, origins, Panel(), RecoveryObjectives())
    assert any(
        "drill is from the future" in problem
        for problem in status.collect(store, origins, RecoveryObjectives(), {}).problems
    )


def test_snapshot_is_not_the_newest_backup_of_a_source(store, origins, backed_up):
    create.create(store, origins, names.BEFORE_RESTORE)
    found = status.collect(store, origins, RecoveryObjectives(), {})
    assert {source["newest"] for source in found.sources.values()} == {backed_up.name}
    assert found.backups == 2


def test_runs_are_recorded_and_exported(tmp_path):
    (tmp_path / "figures").mkdir()
    noted = RunHistory(tmp_path / "state", tmp_path / "figures")
    noted.record("create full", seconds=1.5, size=1000)
    noted.record("create full", "the disk is full")
    noted.record("verify")
    last = noted.read()["create full"]
    assert (last.failures, last.size, last.problem) == (1, 1000, "the disk is full")
    noted.export(None)
    text = (tmp_path / "figures" / "aapanel_backup.prom").read_text()
    assert f'last_success_timestamp_seconds{{run="create",set="full"}} {last.last_success}\n' in text
    assert 'failures_total{run="verify",set=""} 0\n' in text
    assert "drill" not in text


def test_failure_to_record_a_run_is_ignored(tmp_path, monkeypatch):
    noted = RunHistory(tmp_path / "state", tmp_path / "gone")
    noted.record("verify")
    (tmp_path / "state" / ".runs.json.123").write_text("left")
    (tmp_path / "state" / "runs.json").write_text("{")
    assert noted.read() == {}
    noted.record("verify")
    assert not (tmp_path / "state" / ".runs.json.123").exists()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.durable, "write", refuse)
    noted.record("verify", "bad")
    noted.export(None)


def test_pins(store, backed_up):
    assert pins.set_pinned(store, backed_up.name, pinned=True)
    assert not pins.set_pinned(store, backed_up.name, pinned=True)
    assert pins.read(store) == {backed_up.name}
    assert pins.set_pinned(store, backed_up.name, pinned=False)
    with pytest.raises(BackupError, match="not pinned"):
        pins.set_pinned(store, backed_up.name, pinned=False)
    with pytest.raises(BackupError, match="no such backup"):
        pins.set_pinned(store, "backup_20200101T000000Z_000009", pinned=True)
    (store.state_dir / "pins.json").write_text(json.dumps("x")[:-1])
    with pytest.raises(BackupError, match="repair it"):
        pins.read(store)


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("""echo '{"result": "unhealthy", "error": "it has no table"}'; exit 3""", "^it has no table$"),
        ("echo '{}'; echo out of luck >&2; exit 1", "failed with status 1: out of luck"),
        ("echo broken; exit 1", "failed with status 1: no message on standard error"),
        ("echo broken", "did not print JSON: broken"),
    ],
)
def test_error_of_panelctl_is_passed_on(does, says, tmp_path):
    program = tmp_path / "panelctl"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    with pytest.raises(BackupError, match=says):
        App(program).start()
