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
RENAMED = {old: new for names in PARAMETERS.values() for old, new in names.items()}


@pytest.fixture
def run(tmp_path):
    """Run a playbook, which must fail, on a host that does not exist: no module can run there."""
    inventory = {"panel": {"hosts": {"nowhere.invalid": {}}, "vars": dict.fromkeys(RENAMED, "from the inventory")}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def run_playbook(playbook: str, **variables: object) -> str:
        program = Path(sys.executable).with_name("ansible-playbook")
        command = [program, PLAYBOOKS / f"{playbook}.yml", "--inventory", tmp_path / "hosts.yml"]
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
def test_old_names_fail_and_the_message_names_the_new_ones(run, playbook):
    output = run(playbook, **dict.fromkeys(PARAMETERS[playbook], "x"))
    for old, new in PARAMETERS[playbook].items():
        assert f"-e {old}=… is called {new} now." in output
    assert output.count("TASK [") == 1


def test_an_old_name_with_an_empty_value_fails_too(run):
    assert "-e to=… is called panel_restore_to now." in run("restore", to="")


def test_variables_of_the_inventory_and_new_names_pass(run):
    output = run("rollback", panel_rollback_reason="x")
    assert "is called" not in output
    assert "TASK [Switch to the previous slot]" in output


def test_the_table_has_every_old_name():
    (task,) = yaml.safe_load((PLAYBOOKS / "tasks/parameters.yml").read_text(encoding="utf-8"))
    assert task["vars"]["parameters_renamed"] == RENAMED
    assert {name for name, value in task["vars"].items() if value is None} == set(RENAMED)


@pytest.mark.parametrize("playbook", PARAMETERS)
def test_the_header_lists_the_parameters(playbook):
    text = (PLAYBOOKS / f"{playbook}.yml").read_text(encoding="utf-8")
    header, _, play = text.partition("\n- name:")
    used = set(re.findall(rf"\bpanel_{playbook}_\w+", play))
    assert used == set(PARAMETERS[playbook].values())
    assert set(re.findall(r"^#   (\w+) ", header, re.MULTILINE)) == used
