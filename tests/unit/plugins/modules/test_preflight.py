# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aapanel.pipeline.plugins.modules import preflight


def run(capsys: pytest.CaptureFixture[str], **arguments: object) -> dict:
    with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
        preflight.main()
    result = json.loads(capsys.readouterr().out)
    assert ended.value.code == (1 if result.get("failed") else 0)
    return result


@pytest.fixture(autouse=True)
def on_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Ansible believe that this process is a target: other tests have imported its controller code."""
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
    monkeypatch.setattr("ansible.module_utils.common.warnings._global_warnings", {})


@pytest.fixture
def debian(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    return str(tmp_path)


def test_suitable_host(debian: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, root=debian, supported=[{"id": "debian", "versions": [12, 13]}])
    assert (result["changed"], result["problems"]) == (False, [])
    assert result["os"] == {"id": "debian", "name": "Debian GNU/Linux 13 (trixie)", "version": "13"}
    assert "warnings" not in result


def test_untested_system_is_a_warning(debian: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, root=debian, supported=[{"id": "debian", "versions": ["13"], "tested": False}])
    assert "is not tested" in json.dumps(result["warnings"])
    assert not result.get("failed")


@pytest.mark.parametrize("check_mode", [False, True])
def test_one_message_with_all_problems(check_mode: bool, debian: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(
        capsys,
        root=debian,
        problems=["panel_domian: unknown variable; did you mean panel_domain?"],
        supported=[{"id": "ubuntu"}],
        disk=[{"path": "/opt/a", "free_mb": 10**9, "used_for": "releases", "variable": "panel_base_dir"}],
        _ansible_check_mode=check_mode,
    )
    assert result["msg"].startswith("3 problems; nothing was changed:\n  1. panel_domian: ")
    assert len(result["problems"]) == 3
    assert result["msg"].endswith("set panel_base_dir")
    assert not result.get("changed")


def test_invalid_requirement(debian: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = run(capsys, root=debian, ports=[{"port": 80, "address": "panel", "used_for": "nginx"}])["msg"]
    assert message.startswith("ports: invalid address 'panel' for port 80; use an IP address")


def test_documented_options_match_the_module(debian: str, capsys: pytest.CaptureFixture[str]) -> None:
    documented = yaml.safe_load(preflight.DOCUMENTATION)["options"]
    result = run(capsys, root=debian, nonsense=1)
    assert "Unsupported parameters" in result["msg"]
    assert all(name in result["msg"] for name in documented)
