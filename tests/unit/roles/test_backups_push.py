# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the schedule of roles/backups: each backup, successful or failed, is followed by a push."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles/backups"
UNIT = "etc/systemd/system/aapanel-backup@.service.j2"
# A panelctl that records its commands, and whose backups exit with the given status.
PANELCTL = '#!/bin/sh\necho "$2" >>"$0.asked"\ntest "$2" = push || exit {status}\n'


@pytest.fixture
def render():
    """Render a template as Ansible does, for a host with or without a remote."""
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    environment = jinja2.Environment(trim_blocks=True)
    environment.filters |= {"quote": shlex.quote, "unique": dict.fromkeys}

    def rendered(text, offsite, panelctl="panelctl"):
        given = {"backups_offsite": offsite, "__backups_panelctl": panelctl, "__backups_writable": []}
        given["__backups_cron_command"] = environment.from_string(variables["__backups_cron_command"]).render(given)
        given["__backups_cron_push"] = environment.from_string(variables["__backups_cron_push"]).render(given)
        return environment.from_string(text).render(given)

    return rendered


def test_the_unit_starts_a_push_on_success_and_failure(render):
    unit = (ROLE / "templates" / UNIT).read_text(encoding="utf-8")
    pushes = {
        line for line in render(unit, {"remote": "a:b"}).splitlines() if line.endswith("=aapanel-backup-push.service")
    }
    assert pushes == {"OnSuccess=aapanel-backup-push.service", "OnFailure=aapanel-backup-push.service"}
    assert "push" not in render(unit, {})


@pytest.mark.parametrize("status", [0, 1, 3, 4])
def test_the_cron_job_pushes_after_any_status(status, render, tmp_path):
    program = tmp_path / "panelctl"
    program.write_text(PANELCTL.format(status=status))
    program.chmod(0o755)
    job = "{{ __backups_cron_command }} create{{ __backups_cron_push }}"
    for offsite, asked in (({"remote": "a:b"}, "create\npush\n"), ({}, "create\n")):
        subprocess.run(["/bin/sh", "-c", render(job, offsite, str(program))], check=False)
        assert Path(f"{program}.asked").read_text() == asked
        Path(f"{program}.asked").unlink()
