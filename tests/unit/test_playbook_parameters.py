# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks refuse the old name of a parameter before they touch a host, and name the new one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = ROOT / "playbooks"
PARAMETERS = {
    "backup": {"set": "panel_backup_set", "max_age": "panel_backup_max_age"},
    "restore": {
        "backup": "panel_restore_backup",
        "only": "panel_restore_only",
        "to": "panel_restore_to",
        "snapshot": "panel_restore_snapshot",
    },
    "rollback": {"reason": "panel_rollback_reason", "force": "panel_rollback_force"},
}


@pytest.fixture
def run(tmp_path):
    """Run a playbook, which must fail, on a host that does not exist: no module can run there."""

    def write_inventory(**variables: object) -> Path:
        file = tmp_path / "hosts.yml"
        file.write_text(yaml.safe_dump({"panel": {"hosts": {"nowhere.invalid": {}}, "vars": variables}}))
        return file

    def run_playbook(playbook: str, inventory: dict[str, object] | None = None, **variables: object) -> str:
        program = Path(sys.executable).with_name("ansible-playbook")
        command = [program, PLAYBOOKS / f"{playbook}.yml", "--inventory", write_inventory(**inventory or {})]
        done = subprocess.run(
            [*command, "--extra-vars", json.dumps(variables)],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_ARGS": "-o ConnectTimeout=1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        return done.stdout + done.stderr

    return run_playbook


@pytest.mark.parametrize("playbook", PARAMETERS)
@pytest.mark.parametrize("source", ["extra variables", "inventory"])
def test_old_names_fail_and_the_message_names_the_new_ones(run, playbook, source):
    old_names = dict.fromkeys(PARAMETERS[playbook], "")
    output = run(playbook, inventory=old_names) if source == "inventory" else run(playbook, **old_names)
    for old, new in PARAMETERS[playbook].items():
        assert f"The parameter {old} is called {new} now." in output
    assert output.count("TASK [") == 1


def test_new_names_and_old_names_of_other_playbooks_pass(run):
    output = run("rollback", panel_rollback_reason="x", to="y", set="z")
    assert "is called" not in output
    assert "TASK [Switch to the previous slot]" in output


def test_site_accepts_parameters_of_playbooks():
    """They are named like settings, so a user may put them into the inventory."""
    facts = yaml.safe_load((ROOT / "roles/panel/vars/main.yml").read_text(encoding="utf-8"))
    names = {new for renamed in PARAMETERS.values() for new in renamed.values()}
    assert set(facts["__panel_parameters"]) == names


@pytest.mark.parametrize("playbook", PARAMETERS)
def test_the_header_lists_the_parameters(playbook):
    text = (PLAYBOOKS / f"{playbook}.yml").read_text(encoding="utf-8")
    header, _, play = text.partition("\n- name:")
    used = set(re.findall(rf"\bpanel_{playbook}_\w+", play))
    assert used == set(PARAMETERS[playbook].values())
    assert set(re.findall(r"^#   (\w+) ", header, re.MULTILINE)) == used
