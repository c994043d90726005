# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The test runner: parallel jobs, failures, times, and the budget."""

from __future__ import annotations

import json
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
from kit import hosts
from runner import budget, jobs, timing
from runner.jobs import Counts, Job, run_all
from runner.timing import Interval

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LOGS", tmp_path / "logs")


def shell(name, script, **options):
    return Job(name, ["sh", "-c", script], **options)


def test_jobs_run_in_parallel_and_a_failure_does_not_stop_others(tmp_path):
    # Each job ends only after the other has started.
    script = "touch {0}/{1}; until [ -e {0}/{2} ]; do sleep 0.02; done; echo it is {1}; exit {3}"
    both = [shell("a", script.format(tmp_path, "a", "b", 1)), shell("b", script.format(tmp_path, "b", "a", 0))]
    outcomes = {outcome.job.name: outcome for outcome in run_all(both, {}, 2)}
    assert {name: outcome.ok for name, outcome in outcomes.items()} == {"a": False, "b": True}
    assert [outcomes[name].job.log.read_text() for name in "ab"] == ["it is a\n", "it is b\n"]
    assert [outcomes[name].counts for name in "ab"] == [Counts(0, 1), Counts(1, 0)]


def test_at_most_slots_jobs_run_in_parallel(tmp_path):
    alone = f"mkdir {tmp_path}/lock && sleep 0.1 && rmdir {tmp_path}/lock"
    assert all(outcome.ok for outcome in run_all([shell(str(number), alone) for number in range(3)], {}, 1))


def test_the_longest_starts_first():
    ended = run_all(
        [shell("short", "true"), shell("long", "true"), shell("unknown", "true")], {"short": 1, "long": 9}, 1
    )
    assert [outcome.job.name for outcome in ended] == ["long", "short", "unknown"]


def test_the_dependency_of_a_long_job_starts_first():
    jobs = [shell("middle", "true"), shell("short", "true"), shell("long", "true", needs=["short"])]
    ended = run_all(jobs, {"short": 1, "middle": 5, "long": 9}, 1)
    assert [outcome.job.name for outcome in ended] == ["short", "long", "middle"]


def test_dependents_of_a_failed_job_are_skipped_and_count_as_failed(tmp_path):
    dependent = [shell("b", f"touch {tmp_path}/ran", needs=["a"]), shell("c", "true", needs=["b"]), shell("d", "true")]
    outcomes = {outcome.job.name: outcome for outcome in run_all([shell("a", "false"), *dependent], {}, 2)}
    assert not (tmp_path / "ran").exists()
    assert [outcomes[name].skipped for name in "abcd"] == [False, True, True, False]
    assert sum((outcome.counts for outcome in outcomes.values()), Counts()) == Counts(1, 3)


def test_a_dependent_job_starts_after_its_dependency(tmp_path):
    later = shell("b", f"test -e {tmp_path}/made", needs=["a"])
    assert all(outcome.ok for outcome in run_all([later, shell("a", f"sleep 0.2; touch {tmp_path}/made")], {"b": 9}, 2))


def test_a_missing_dependency_counts_as_met():
    assert [outcome.ok for outcome in run_all([shell("b", "true", needs=["a"])], {}, 1)] == [True]


def test_a_job_reports_its_cpu_time():
    busy = Job("busy", [sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"])
    idle = shell("idle", "sleep 0.5")
    used = {outcome.job.name: outcome for outcome in run_all([busy, idle], {}, 1)}
    assert used["busy"].processor >= 0.3
    assert used["idle"].processor < 0.25
    assert used["idle"].seconds >= 0.5


def test_the_end_of_a_failed_job_is_shown(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "ROOT", tmp_path)
    (outcome,) = run_all([shell("x", "seq 200; false")], {}, 1)
    jobs.print_outcome(outcome)
    output = capsys.readouterr().out
    assert output.startswith("FAIL x")
    assert "| 200\n" in output
    assert "| 100\n" not in output
    assert "complete output: logs/x.log" in output


# --- where the time went ----------------------------------------------------------------------------------------------


def test_each_second_belongs_to_the_innermost_interval():
    story, playbook, wait = Interval(2, 9, "stories"), Interval(3, 6, "modules"), Interval(4, 5, "waits")
    parts = timing.divide(0, 10, [wait, story, playbook])
    assert parts == dict.fromkeys(timing.KINDS, 0) | {"Ansible": 3, "stories": 4, "modules": 2, "waits": 1}
    assert sum(parts.values()) == 10


def test_time_outside_of_the_range_does_not_count():
    parts = timing.divide(5, 10, [Interval(0, 6, "packages"), Interval(9, 20, "builds"), Interval(20, 30, "waits")])
    assert (parts["packages"], parts["builds"], parts["waits"], parts["Ansible"]) == (1, 1, 0, 3)


@pytest.mark.parametrize(
    ("action", "task", "kind"),
    [
        ("ansible.builtin.apt", "Install nginx", "packages"),
        ("", "startup", "Ansible"),
        ("ansible.builtin.include_tasks", "Deploy", "Ansible"),
        ("aapanel.pipeline.release", "Build", "builds"),
        ("ansible.builtin.command", "panel : Virtualenv | Create it", "builds"),
        ("aapanel.pipeline.deployment", "Start the slot", "starts"),
        ("wait", "Ask until it answers", "waits"),
        ("ansible.builtin.command", "Run pytest, and show what it output", "stories"),
        ("ansible.builtin.copy", "Write a file", "modules"),
    ],
)
def test_the_kind_of_a_task(action, task, kind):
    assert timing.kind_of(action, task) == kind
    assert kind in timing.KINDS


def test_records_of_the_callback_are_read(tmp_path):
    file = tmp_path / "x.timings"
    assert timing.read(file) == []
    line = {"playbook": "site.yml", "task": "Install", "action": "ansible.builtin.apt", "start": 100.0, "seconds": 2.5}
    file.write_text(json.dumps(line) + "\n")
    assert timing.read(file) == [Interval(100.0, 102.5, "packages")]


def test_a_pytest_report(tmp_path):
    file = tmp_path / "report.xml"
    assert timing.junit(file) == (Counts(failed=1), [])
    file.write_text(
        '<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1">'
        '<testcase classname="a.test_b" name="test_c[1]" time="2.5"/>'
        '<testcase classname="a.test_b" name="test_d" time="1">'
        '<failure message="assert 1 == 2">where</failure></testcase>'
        "</testsuite></testsuites>"
    )
    failed = timing.Test("test_b::test_d", 1.0, "assert 1 == 2")
    assert timing.junit(file) == (Counts(2, 2), [timing.Test("test_b::test_c[1]", 2.5), failed])


def test_a_table_is_markdown():
    assert timing.table(["name", "s"], [["a", 12.4]]).splitlines() == [
        "| name |  s |",
        "| ---- | -: |",
        "| a    | 12 |",
    ]


# --- the budget -------------------------------------------------------------------------------------------------------

LIMITS = budget.Budget({"unit": 100.0}, {"deploy": ["roles/nginx/*"], "dev": ["Makefile"]}, ["molecule/shared/*"])


def test_the_error_for_a_slow_job_contains_the_line_to_change():
    assert LIMITS.excess("unit", 200.0) == ""
    output = LIMITS.excess("unit", 201.0)
    assert "tests/budget.yml" in output
    assert "change `unit: 100` to `unit: 201`" in output


def test_the_error_for_a_job_without_a_budget_contains_the_line_to_add():
    assert "add `new: 5`" in LIMITS.excess("new", 5.0)


@pytest.mark.parametrize(
    ("path", "scenarios"),
    [
        ("README.md", set()),
        ("Makefile", {"dev"}),
        ("roles/nginx/tasks/main.yml", {"deploy"}),
        ("molecule/deploy/stories/test_x.py", {"deploy"}),
        ("molecule/shared/create.yml", {"deploy", "dev"}),
    ],
)
def test_a_change_selects_the_scenarios_that_test_it(path, scenarios):
    assert LIMITS.scenarios([path]) == scenarios


def load_stages():
    spec = spec_from_loader("stages", SourceFileLoader("stages", str(ROOT / "scripts" / "stages")))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_budget_has_a_line_for_each_job_and_no_other():
    limits = budget.load()
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/verify.yml")}
    expected = {"total", "unit", "lab", "images", *load_stages().CHECKS, *(f"molecule {name}" for name in scenarios)}
    assert set(limits.seconds) == expected
    assert set(limits.covers) == scenarios


def test_each_pattern_of_the_budget_matches_something():
    limits = budget.load()
    for pattern in [*limits.everything, *(pattern for patterns in limits.covers.values() for pattern in patterns)]:
        assert any(ROOT.glob(pattern)), pattern


def test_every_role_and_module_is_tested_by_a_scenario():
    limits = budget.load()
    files = [*ROOT.glob("roles/*/tasks/main.yml"), *ROOT.glob("plugins/modules/*.py"), *ROOT.glob("playbooks/*.yml")]
    assert [file for file in files if not limits.scenarios([str(file.relative_to(ROOT))])] == []


def test_a_wait_of_a_story_is_recorded(monkeypatch, tmp_path):
    monkeypatch.setenv("AAPANEL_TIMINGS", str(tmp_path / "x"))
    began = time.time()
    assert hosts.wait_until(lambda: time.time() > began + 0.3, 5.0, "a third of a second")
    (interval,) = timing.read(tmp_path / "x")
    assert interval.kind == "waits"
    assert 0.2 < interval.end - interval.begin < 2
