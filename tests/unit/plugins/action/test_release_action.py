# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Tests of the plugin with a real ansible-playbook; the target is this machine, like a remote one.

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[4]
BIN = Path(sys.executable).parent
MODULE = "aapanel.pipeline.release"

pytestmark = pytest.mark.skipif(
    not (BIN / "ansible-playbook").exists() or not (BIN / "uv").exists(), reason="ansible or uv is not installed"
)

# A local connection with another name, so that the plugin must send files.
REMOTE = """
from ansible.plugins.connection.local import Connection as Local
DOCUMENTATION = '''
name: other_host
short_description: the local machine as a remote target
description: For tests.
extends_documentation_fragment: [connection_pipelining]
'''
class Connection(Local):
    transport = "other_host"
    def put_file(self, source, destination):
        with open(PUTS, "a") as handle:
            handle.write(destination + "\\n")
        return super().put_file(source, destination)
"""


@pytest.fixture
def play(tmp_path):
    """Return a function that runs a task for each set of arguments, and returns the results and the sent files."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "app.py").write_text("value = 1\n")
    (tmp_path / "app" / "VERSION").write_text("3.1\n")
    puts = tmp_path / "puts"
    plugins = tmp_path / "connection_plugins"
    plugins.mkdir()
    (plugins / "other_host.py").write_text(REMOTE.replace("PUTS", repr(str(puts))))
    remote_tmp, report = tmp_path / "remote-tmp", tmp_path / "report.json"

    def run(connection, *changes, options=()):
        report.unlink(missing_ok=True)
        puts.write_text("")
        tasks = []
        for number, change in enumerate(changes):
            arguments = {
                "base_dir": str(tmp_path / "base"),
                "source": {"location": "./app"},
                "python": sys.executable,
                "uv": str(BIN / "uv"),
                "environment": {"UV_OFFLINE": "1"},
                **change,
            }
            tasks.append({MODULE: arguments, "register": f"result_{number}", "ignore_errors": True})
        results = ", ".join(f"result_{number}" for number in range(len(changes)))
        copy = {"content": f"{{{{ [{results}] | to_json }}}}", "dest": str(report), "mode": "0600"}
        tasks.append({"ansible.builtin.copy": copy, "check_mode": False, "connection": "local", "diff": False})
        playbook = tmp_path / "play.yml"
        playbook.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", "target,", "-c", connection, playbook, *options],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONNECTION_PLUGINS": str(plugins),
                "ANSIBLE_REMOTE_TMP": str(remote_tmp),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert report.exists(), done.stdout + done.stderr
        # The tasks leave no files on the target.
        assert not remote_tmp.exists() or list(remote_tmp.iterdir()) == []
        sent = [Path(line).name for line in puts.read_text().splitlines() if line.endswith(".tar.gz")]
        return json.loads(report.read_text()), sent

    return run


def test_content_is_sent_once_and_only_if_needed(play, tmp_path):
    (predicted,), sent = play("other_host", {}, options=["--check", "--diff"])
    assert predicted["changed"]
    assert sent == []
    assert not (tmp_path / "base").exists()
    (built, rest), sent = play("other_host", {}, {})
    assert sent == ["source.tar.gz"]
    assert built["built"]
    assert built["release"]["id"] == predicted["release"]["id"]
    assert built["release"]["id"].startswith("3.1-")
    assert built["diff"] == predicted["diff"]
    assert "needs" not in built
    assert (Path(built["release"]["app"]) / "app.py").read_text() == "value = 1\n"
    assert not rest["changed"]
    # A local target needs no transfer, and gets the same release.
    (rest, other), sent = play("local", {}, {"base_dir": str(tmp_path / "other")})
    assert not rest["changed"]
    assert other["built"]
    assert other["release"]["id"] == built["release"]["id"]
    assert sent == []


def test_invalid_arguments_fail_without_changes(play, tmp_path):
    wrong = [
        ({"source": {"location": "./none"}}, "none is not a directory on the controller; correct the path"),
        ({"source": {"location": "./app", "subdir": "../other"}}, "must be a relative path"),
        ({"source": {"location": "./app", "version": "v1"}}, "is only valid for git"),
        ({"runtime": "./none"}, "runtime: "),
        ({"source": "./app"}, "source: './app' must be a dictionary"),
    ]
    results, sent = play("other_host", *(change for change, _ in wrong))
    for result, (_, message) in zip(results, wrong, strict=True):
        assert result["failed"]
        assert message in result["msg"]
    assert sent == []
    assert not (tmp_path / "base").exists()


def test_a_failed_build_leaves_nothing_on_the_target(play, tmp_path):
    (tmp_path / "app" / "requirements.txt").write_text("nowhere-to-be-found==1\n")
    (failed,), sent = play("other_host", {})
    assert failed["failed"]
    assert failed["step"] == "requirements"
    assert sent == ["source.tar.gz"]
    assert list((tmp_path / "base" / "releases").iterdir()) == []
