# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workflow on GitHub runs what `make test` runs, and nothing that can change under it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".github/workflows/ci.yml"
JOBS = yaml.safe_load(FILE.read_text(encoding="utf-8"))["jobs"]


def test_the_workflow_runs_each_stage_and_each_scenario():
    (stages,) = re.findall(r"scripts/stages (lint .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert {*JOBS["check"]["strategy"]["matrix"]["stage"], "molecule"} == set(stages.split())
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/verify.yml")}
    assert set(JOBS["molecule"]["strategy"]["matrix"]["scenario"]) == scenarios


def test_a_release_needs_every_other_job():
    assert set(JOBS["release"]["needs"]) == set(JOBS) - {"release"}


def test_each_action_is_pinned_by_commit():
    used = [step["uses"] for job in JOBS.values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []
