# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: ``python -m aapanel_runtime check``."""

from __future__ import annotations

import json
import subprocess
import sys
from unittest import mock

import pytest
from aapanel_runtime.cli import main
from runtime_server import clean_environ

KEY = "q8RkP2vXz7LmN4tYw9BcD3fGh6JsA1eU"


@pytest.fixture(autouse=True)
def _empty_environment():
    with mock.patch.dict("os.environ", clear=True):
        yield


def test_check_has_an_exit_status_and_json(tmp_path, capsys):
    file = tmp_path / "x.env"
    file.write_text(f"ENVIRONMENT=production\nSECRET_KEY={KEY}\nPORT=80a\n")
    assert main(["check", "--env-file", str(file), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "ok": False,
        "problems": [
            {
                "name": "PORT",
                "what": "'80a' is not valid.",
                "cure": "Set it to a TCP port, 1 to 65535.",
                "level": "error",
            }
        ],
    }
    file.write_text(f"ENVIRONMENT=production\nSECRET_KEY={KEY}\n")
    assert main(["check", "--env-file", str(file)]) == 0
    assert capsys.readouterr().out == "The settings are valid.\n"
    assert main(["check", "--env-file", str(tmp_path / "missing")]) == 2


def test_check_connects_to_the_servers(tmp_path, closed_port, capsys):
    file = tmp_path / "x.env"
    file.write_text(
        f"ENVIRONMENT=development\nDATABASE_URL=postgresql://u:hunter2@127.0.0.1:{closed_port}/x\n"
        f"REDIS_URL=redis://:hunter2@127.0.0.1:{closed_port}/0\n"
    )
    assert main(["check", "--env-file", str(file)]) == 0
    assert main(["check", "--env-file", str(file), "--connect"]) == 1
    shown = capsys.readouterr()
    assert "DATABASE_URL: is set, but the health check of the database failed" in shown.out
    assert "REDIS_URL: is set, but the health check of Redis failed" in shown.out
    assert "hunter2" not in shown.out + shown.err


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "aapanel_runtime", "check"]
    done = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The settings are valid.\n", "")
