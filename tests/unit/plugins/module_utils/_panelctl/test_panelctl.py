# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""panelctl with all of its packages, installed as on a host."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup import errors as backup_errors
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.cli.main import build_parser as backup_parser
from ansible_collections.aapanel.pipeline.plugins.module_utils._host import exit_codes
from ansible_collections.aapanel.pipeline.plugins.module_utils._host.command_line import subcommands
from ansible_collections.aapanel.pipeline.plugins.module_utils._panelctl.traffic import Group, build_parser
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic import errors as traffic_errors

UTILS = Path(__file__).parents[5] / "plugins/module_utils"
PROGRAM = """
import sys
sys.path.insert(0, {lib!r})
from aapanel_host._panelctl.main import main
status = main({config!r})
print(*sorted(name for name in sys.modules if name.startswith("aapanel_host.")), file=sys.stderr)
sys.exit(status)
"""
PARSER = build_parser({"backup": Group("", backup_parser)}, nested=True)
COMMANDS = [name for name, _ in subcommands(PARSER)]
BACKUP_COMMANDS = [name for name, _ in subcommands(backup_parser())]


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


def errors_of(module):
    return [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def test_backup_commands_belong_to_another_package(host):
    done = panelctl(host, "backup", "list")
    assert done.returncode == 1
    assert f"cannot read {host}/config/backup.json" in done.stderr
    assert panelctl(host, "backup").returncode == 2
    assert "usage: panelctl backup create" in panelctl(host, "backup", "create", "--help").stdout


def test_a_module_of_an_older_version_does_not_shadow_the_package(host):
    (host / "lib/aapanel_host/_panelctl.py").write_text("raise SystemExit('old')\n")
    assert panelctl(host, "history").stdout == "no operation yet\n"


def test_packages_of_other_commands_are_not_loaded(host):
    done = panelctl(host, "history")
    assert (done.returncode, done.stdout) == (0, "no operation yet\n")
    assert "aapanel_host._backup" not in done.stderr
    assert "aapanel_host._rehearsal" not in done.stderr
    assert "aapanel_host._traffic" not in panelctl(host, "backup", "list").stderr
    assert "aapanel_host._backup" not in panelctl(host, "--help").stderr


def test_help_lists_backup_and_the_exit_codes(host):
    helps = panelctl(host, "--help").stdout, panelctl(host, "backup", "--help").stdout
    assert "\n    backup  " in helps[0]
    for shown in helps:
        words = " ".join(shown.split())
        assert all(f"{code} {meaning.text}" in words for code, meaning in exit_codes.MEANINGS.items())


def test_every_command_has_json():
    commands = {**dict(subcommands(PARSER)), **{f"backup {name}": one for name, one in subcommands(backup_parser())}}
    assert [name for name, one in commands.items() if "--json" not in one.format_help()] == ["backup"]


@pytest.mark.parametrize(
    "kind", [*errors_of(traffic_errors), *errors_of(backup_errors)], ids=lambda kind: kind.__name__
)
def test_every_error_has_an_exit_code_of_the_table(kind):
    code = kind.exit_code if issubclass(kind, traffic_errors.TrafficError) else kind.status
    assert code in exit_codes.MEANINGS


@pytest.mark.parametrize("arguments", [["status"], ["backup", "status"]], ids=" ".join)
def test_an_error_is_on_stderr_and_with_json_on_stdout_too(host, arguments):
    for file in (host / "config").iterdir():
        file.unlink()
    done = panelctl(host, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("panelctl: cannot read ")
    done = panelctl(host, *arguments, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["result"]) == (1, "failed")
    assert f"panelctl: {answer['error']}\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["settle"], {"result": "unchanged", "reason": ""}),
        (["boot"], {"live": None}),
        (["history"], []),
        (["maintenance"], {"maintenance": False}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else None,
)
def test_json_is_the_only_output(host, arguments, expected):
    settings = json.loads((host / "config/panelctl.json").read_text())
    one_slot = {**settings, "service": "supervisor", "two_colours": False}
    (host / "config/panelctl.json").write_text(json.dumps(one_slot))
    done = panelctl(host, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


def test_a_rehearsal_needs_pairs_of_databases(host):
    done = panelctl(host, "rehearse", "--database", "panel")
    assert done.returncode == 2
    assert "'panel' is not LIVE=RESTORED" in done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="asks bash")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("panelctl ''", [*COMMANDS, "-h", "--help"]),
        ("panelctl ro", ["rollback"]),
        ("panelctl switch in", ["inactive"]),
        ("panelctl switch --u", ["--unconfirmed"]),
        ("panelctl maintenance o", ["on", "off"]),
        ("panelctl completion ''", ["bash", "-h", "--help", "--json"]),
        ("panelctl backup ''", [*BACKUP_COMMANDS, "-h", "--help"]),
        ("panelctl backup key", ["key-rotate"]),
        ("panelctl backup create --p", ["--prune"]),
        ("panelctl backup restore --no", ["--no-snapshot"]),
        ("panelctl backup pin --prune", []),
        ("panelctl unknown ''", []),
    ],
)
def test_bash_completes(line, words, host):
    script = f"""set -u
{panelctl(host, "completion", "bash").stdout}
COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; _panelctl
printf '%s\\n' ${{COMPREPLY[@]+"${{COMPREPLY[@]}}"}}"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(words)


def test_completion_as_json_contains_the_script(host):
    script = panelctl(host, "completion").stdout
    assert json.loads(panelctl(host, "completion", "--json").stdout) == {"shell": "bash", "script": script}
    assert "$(" not in script.replace("$(compgen", ""), "no process at a key press"
