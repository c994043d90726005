# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

UTILS = Path(__file__).parents[4] / "plugins/module_utils"
# The command line of each installed package, and the packages that it imports.
CLI = {
    "_backup": ("_backup.cli.main", ("_host", "_backup")),
    "_traffic": ("_panelctl.traffic", ("_host", "_traffic", "_rehearsal", "_panelctl")),
}
PROGRAM = """
import sys
sys.path.insert(0, {lib!r})
from aapanel_host.{cli} import main
sys.exit(main({config!r}))
"""


@pytest.fixture
def install(tmp_path):
    """Return a function that installs a package with its command line and settings, and returns the program."""

    def install_package(package, settings):
        code = tmp_path / "lib" / "aapanel_host"
        cli, packages = CLI[package]
        for name in packages:
            shutil.copytree(UTILS / name, code / name)
        config, program = tmp_path / "settings.json", tmp_path / "panelctl.py"
        config.write_text(json.dumps(settings))
        program.write_text(PROGRAM.format(lib=str(tmp_path / "lib"), cli=cli, config=str(config)))
        return program

    return install_package
