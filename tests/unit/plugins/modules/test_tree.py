# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Tests of the module and its action plugin with a real ansible-playbook.

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._tree import files as tree

ROOT = Path(__file__).parents[4]
BIN = Path(sys.executable).parent


@pytest.fixture
def play(tmp_path):
    """Return a function that runs the module with each set of arguments in one playbook, and returns the results."""

    def run(*arguments, options=()):
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        tasks = [
            {"aapanel.pipeline.tree": given, "register": f"result{number}", "ignore_errors": True}
            for number, given in enumerate(arguments)
        ]
        results = "[" + ", ".join(f"result{number}" for number in range(len(arguments))) + "]"
        tasks.append(
            {
                "ansible.builtin.copy": {"content": "{{ " + results + " | to_json }}", "dest": str(report)},
                "check_mode": False,
            }
        )
        playbook = tmp_path / "playbook.json"
        playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", "localhost,", "-c", "local", playbook, *options],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert report.exists(), done.stdout + done.stderr
        return json.loads(report.read_text()), done.stdout

    return run


def test_files_and_folders_are_written_once(tmp_path, play):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deeper").mkdir(parents=True)
    (source / "a.txt").write_text("a\n")
    (source / "deeper" / "ü.txt").write_text("ü\n", encoding="utf-8")
    (target / "lib" / "__pycache__").mkdir(parents=True)
    (target / "lib" / "__pycache__" / "kept.pyc").write_text("")
    (target / "lib" / "old.txt").write_text("old\n")
    secret = {"text": "s3cret\n", "mode": "0600"}
    arguments = {
        "files": {str(target / "etc" / "one.conf"): "one\n", str(target / "etc" / "two.conf"): secret},
        "folders": {str(target / "lib"): str(source)},
    }
    (first, second), _ = play(arguments, arguments)
    assert first["changed"]
    assert not second["changed"]
    assert second["changed_files"] == []
    assert (target / "lib/a.txt").read_text() == "a\n"
    assert (target / "lib/deeper/ü.txt").read_text(encoding="utf-8") == "ü\n"
    assert not (target / "lib/old.txt").exists()
    assert (target / "lib/__pycache__/kept.pyc").exists()
    assert (target / "etc/one.conf").stat().st_mode & 0o777 == 0o644
    assert (target / "etc/two.conf").stat().st_mode & 0o777 == 0o600
    assert (target / "etc").stat().st_mode & 0o777 == 0o755


def test_check_mode_reports_changes_without_making_them(tmp_path, play):
    target = tmp_path / "target"
    target.mkdir()
    (target / "a").write_text("before\n")
    arguments = {"files": {str(target / "a"): "after\n", str(target / "new/b"): "b\n"}}
    (result,), shown = play(arguments, options=["--check", "--diff"])
    assert result["changed"]
    assert sorted(result["changed_files"]) == [str(target / "a"), str(target / "new/b")]
    assert "-before\n+after" in shown
    assert (target / "a").read_text() == "before\n"
    assert not (target / "new").exists()


def test_hidden_text_is_never_printed(tmp_path, play):
    file = tmp_path / "secret"
    file.write_text("0ld-secret\n")
    arguments = {"files": {str(file): "n3w-secret\n"}, "hidden": True}
    (result,), shown = play(arguments, options=["--diff", "-vvv"])
    assert result["changed"]
    assert file.read_text() == "n3w-secret\n"
    assert "0ld-secret" not in shown
    assert "n3w-secret" not in shown


def test_invalid_arguments_are_refused_before_any_change(tmp_path, play):
    good = str(tmp_path / "good")
    (tmp_path / "folder").mkdir()
    results, _ = play(
        {"files": {good: "x", str(tmp_path / "folder"): "y"}},
        {"files": {good: "x", "relative": "y"}},
        {"files": {good: {"text": "x", "mood": "0644"}}},
        {"files": {good: "x"}, "mode": "u=rw"},
        {"files": {good: "x"}, "owner": "no-such-user-here"},
        {"folders": {good: str(tmp_path / "missing")}},
        {"files": {good: "x"}, "directories": {__file__: {}}},
        {"files": {good: "x"}, "directories": {"relative": {}}},
        {"files": {good: "x"}, "directories": {str(tmp_path): {"mood": "0755"}}},
    )
    words = [
        "is not a regular file",
        "must be an absolute path",
        "dictionary with text and mode",
        "octal",
        "owner",
        "not a folder",
        "is not a folder",
        "must be an absolute path",
        "dictionary with mode",
    ]
    for result, word in zip(results, words, strict=True):
        assert result["failed"]
        assert word in result["msg"]
    assert not Path(good).exists()


def test_directories_are_created_and_their_content_is_kept(tmp_path, play):
    old, new = tmp_path / "old", tmp_path / "way" / "new"
    old.mkdir(mode=0o700)
    (old / "kept").write_text("")
    linked = tmp_path / "linked"
    linked.symlink_to(old)
    me = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
    arguments = {
        "directories": {str(old): {"mode": "0711"}, str(new): {"mode": "0750", **me}, str(linked): {"mode": "0711"}},
        "files": {str(new / "file"): "x\n"},
    }
    (predicted,), shown = play(arguments, options=["--check", "--diff"])
    assert predicted["changed_files"] == [str(old), str(new), str(linked), str(new / "file")]
    assert "-folder, mode 0700\n+folder, mode 0711" in shown
    assert f"+folder, mode 0750, owner {os.getuid()}, group {os.getgid()}" in shown
    assert not new.exists()
    (first, second), _ = play(arguments, arguments)
    assert first["changed"]
    assert not second["changed"]
    assert (old.stat().st_mode & 0o777, new.stat().st_mode & 0o777) == (0o711, 0o750)
    assert new.parent.stat().st_mode & 0o777 == 0o755
    assert (old / "kept").exists()
    assert linked.is_symlink()


def test_check_mode_accepts_an_owner_that_does_not_exist_yet(tmp_path, play):
    new = str(tmp_path / "new")
    arguments = {"directories": {new: {"owner": "no-such-user-here"}}}
    (result,), shown = play(arguments, options=["--check", "--diff"])
    assert result["changed"]
    assert "owner not created yet" in shown
    (result,), _ = play(arguments)
    assert "user no-such-user-here does not exist" in result["msg"]
    assert not Path(new).exists()


def test_a_reader_sees_the_old_or_the_new_text(tmp_path):
    file = tmp_path / "file"
    file.write_text("old\n")
    with file.open() as reader:
        wanted = [tree.File(file, "new\n", 0o644)]
        tree.apply(wanted, tree.plan(wanted, [], tree.Owner()), tree.Owner(), 0o755)
        assert reader.read() == "old\n"
    assert file.read_text() == "new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
