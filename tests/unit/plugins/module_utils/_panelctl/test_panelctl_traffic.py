# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of panelctl beside backups, as a process, from a copy of their packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def host(tmp_path, install):
    """A host with one slot under supervisord, and nothing deployed."""
    folders = {f"{name}_dir": str(tmp_path / name) for name in ("base", "config", "data", "run")}
    for folder in folders.values():
        Path(folder).mkdir()
    settings = {**folders, "service": "supervisor", "two_colours": False, "supervisor_bin_dir": str(tmp_path)}
    install("_traffic", settings)
    return tmp_path


def panelctl(host, *arguments):
    return subprocess.run(
        [sys.executable, "-I", host / "panelctl.py", *arguments], capture_output=True, text=True, check=False
    )


def test_an_empty_host_shows_what_to_do(host):
    done = panelctl(host, "status")
    assert done.returncode == 3
    assert "nothing is live: deploy first" in done.stdout
    assert json.loads(panelctl(host, "status", "--json").stdout)["live"] is None
    assert panelctl(host, "history").stdout == "no operation yet\n"
    assert json.loads(panelctl(host, "history", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["switch", "inactive"], 4, "one slot"),
        (["confirm"], 4, "no switch waits"),
        (["switch", "red"], 2, "invalid choice"),
        ([], 2, "COMMAND"),
    ],
)
def test_a_refused_command_and_a_usage_error_have_their_own_exit_codes(arguments, status, words, host):
    done = panelctl(host, *arguments)
    assert done.returncode == status
    assert words in done.stderr
    if status == 4:
        answer = json.loads(panelctl(host, *arguments, "--json").stdout)
        assert answer["result"] == "refused"
        assert words in answer["error"]
    assert panelctl(host, "history").stdout == "no operation yet\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "run site.yml to create it"),
        ("{", "is not JSON"),
        ('{"colour": 1}', "unknown key colour"),
        ("{}", "base_dir"),
    ],
)
def test_invalid_settings_are_reported(content, words, host):
    config = host / "settings.json"
    config.unlink()
    if content is not None:
        config.write_text(content)
    done = panelctl(host, "status")
    assert done.returncode == 1
    assert str(config) in done.stderr
    assert words in done.stderr


def test_maintenance_creates_a_file_for_nginx(host):
    assert panelctl(host, "maintenance").stdout == "maintenance is off\n"
    assert panelctl(host, "maintenance", "on").stdout == "maintenance is on\n"
    assert (host / "base/maintenance").stat().st_mode & 0o444 == 0o444
    assert "maintenance is on" in panelctl(host, "status").stdout
    assert json.loads(panelctl(host, "maintenance", "off", "--json").stdout) == {"maintenance": False}
    assert not (host / "base/maintenance").exists()
