# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._release import command
from ansible_collections.aapanel.pipeline.plugins.module_utils._release.errors import ReleaseError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/x", ("https://h/x", "", "")),
        ("https://user:p%40ss@h/x", ("https://h/x", "user", "p@ss")),
        ("https://token@h/x", ("https://h/x", "token", "")),
        ("ssh://git@h/x", ("ssh://git@h/x", "", "")),
        ("git@h:x", ("git@h:x", "", "")),
        ("/srv/a@b", ("/srv/a@b", "", "")),
    ],
)
def test_split_credentials(url, expected):
    assert command.split_credentials(url) == expected


def test_every_form_of_a_secret_is_masked():
    secrets = command.secrets_in("https://user:p%40ssword@h/x https://ghp_abcdef@h/y")
    mask = command.Masker(secrets)
    text = "fetch https://user:p%40ssword@h/x with p@ssword, ghp_abcdef or other://a:b@c; ssh://git@h stays"
    assert mask(text) == "fetch https://***@h/x with ***, *** or other://***@c; ssh://git@h stays"


def test_only_secrets_of_an_environment_are_masked():
    """A masked "1" would mask unrelated digits in the result."""
    given = {"UV_OFFLINE": "1", "MY_TOKEN": "abcdefgh", "UV_INDEX_URL": "https://a:secret1@h/", "NAME": "harmless"}
    assert command.secrets_of(given) == {"abcdefgh", "secret1"}


def test_a_failure_shows_the_last_lines_masked(tmp_path):
    lines = "for n in range(50): print('line', n, flush=True)"
    script = f"import sys\n{lines}\nprint('hunter22', file=sys.stderr); sys.exit(3)"
    with (tmp_path / "log").open("w+") as log:
        runner = command.Runner(os.environ, 20, command.Masker(["hunter22"]), log)
        with pytest.raises(ReleaseError, match=r"exit status 3") as error:
            runner.run([sys.executable, "-c", script, "https://me:hunter22@h/"])
        log.seek(0)
        content = log.read()
    assert len(error.value.output) == 30
    assert error.value.output[-1] == "***"
    assert "hunter22" not in content + error.value.command
    assert "line 0\n" in content


def test_a_command_that_times_out_is_killed_with_its_children(tmp_path):
    pid = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid}; sleep 60"
    began = time.monotonic()
    with pytest.raises(ReleaseError, match=r"stopped after 1 s; raise `timeout`"):
        command.Runner(os.environ, 1, command.Masker()).run(["sh", "-c", script])
    assert time.monotonic() - began < 20
    assert gone(int(pid.read_text()))


def test_a_command_leaves_nothing_running(tmp_path):
    pid = tmp_path / "pid"
    command.Runner(os.environ, 20, command.Masker()).run(["sh", "-c", f"sleep 60 & echo $! > {pid}"])
    assert gone(int(pid.read_text()))


def gone(pid):
    """Wait until a process has ended; an unreaped zombie counts as ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            # proc_pid_stat(5): the state follows the name, which is in brackets.
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_missing_command_is_reported():
    with pytest.raises(ReleaseError, match=r"/no/such/tool cannot be started: No such file"):
        command.Runner(os.environ, 1, command.Masker()).run(["/no/such/tool"])
