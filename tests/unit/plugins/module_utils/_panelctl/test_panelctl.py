# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""panelctl with both of its packages, as on a host."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UTILS = Path(__file__).parents[5] / "plugins/module_utils"
PROGRAM = """
import sys
sys.path.insert(0, {lib!r})
from aapanel_host._panelctl.main import main
status = main({config!r})
print(*sorted(name for name in sys.modules if name.startswith("aapanel_host.")), file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture
def host(tmp_path):
    code = tmp_path / "lib/aapanel_host"
    shutil.copytree(UTILS, code)
    folders = {f"{name}_dir": str(tmp_path / name) for name in ("base", "config", "data", "run")}
    for folder in folders.values():
        Path(folder).mkdir()
    (tmp_path / "config/panelctl.json").write_text(json.dumps(folders))
    (tmp_path / "panelctl.py").write_text(PROGRAM.format(lib=str(tmp_path / "lib"), config=str(tmp_path / "config")))
    return tmp_path


def panelctl(host, *arguments):
    return subprocess.run(
        [sys.executable, "-I", host / "panelctl.py", *arguments], capture_output=True, text=True, check=False
    )


def test_backup_is_the_other_package_s(host):
    done = panelctl(host, "backup", "list")
    assert done.returncode == 1
    assert f"cannot read {host}/config/backup.json" in done.stderr
    assert panelctl(host, "backup").returncode == 2
    assert "usage: panelctl backup create" in panelctl(host, "backup", "create", "--help").stdout


def test_a_module_of_an_older_version_is_not_in_the_way(host):
    (host / "lib/aapanel_host/_panelctl.py").write_text("raise SystemExit('old')\n")
    assert panelctl(host, "history").stdout == "nothing was done yet\n"


def test_what_is_not_asked_for_is_not_even_loaded(host):
    done = panelctl(host, "history")
    assert (done.returncode, done.stdout) == (0, "nothing was done yet\n")
    assert "aapanel_host._backup" not in done.stderr
    assert "aapanel_host._traffic" not in panelctl(host, "backup", "list").stderr


def test_help_and_completion_know_it(host):
    assert "\n    backup  " in panelctl(host, "--help").stdout
    cases = panelctl(host, "completion").stdout
    assert " backup" in cases
    assert "backup) COMPREPLY" in cases
    assert {"create", "verify", "restore", "key-rotate", "--wait"} <= set(cases.replace('"', " ").split())
