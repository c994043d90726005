# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aapanel.pipeline.plugins.modules import environment_info

RECORDED = Path(__file__).parents[1] / "module_utils" / "_environment" / "recorded"


def run(capsys: pytest.CaptureFixture[str], **arguments: object) -> dict:
    with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
        environment_info.main()
    result = json.loads(capsys.readouterr().out)
    assert ended.value.code == (1 if result.get("failed") else 0)
    return result


@pytest.fixture
def hetzner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    record = json.loads((RECORDED / "hetzner.json").read_text())
    for path, content in record["files"].items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "REPL_ID", "AAPANEL_ENVIRONMENT_KIND", "container"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_result_matches_the_documentation(hetzner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, root=str(hetzner))
    documented = set(yaml.safe_load(environment_info.RETURN))
    assert documented == set(result) - {"changed", "invocation", "warnings", "deprecations"}
    assert (result["changed"], result["kind"], result["provider"]) == (False, "vps", "hetzner")
    assert result["features"]["service"] == {"enabled": True, "reason": "", "value": "systemd"}
    assert result["features"]["nginx"] == {"enabled": True, "reason": ""}


def test_overrides_and_choices(hetzner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(
        capsys,
        root=str(hetzner),
        kind="container",
        provider="ovh",
        capabilities={"systemd": False},
        features={"nginx": True, "redis": "no", "ngnix": True},
        features_variable="panel_features",
    )
    assert (result["kind"], result["provider"], result["overridden"]) == ("container", "ovh", True)
    assert result["capabilities"]["systemd"] is False
    assert result["capabilities"]["root"] is True
    assert [problem.split(",")[0] for problem in result["problems"]] == [
        "panel_features.ngnix: unknown feature; did you mean nginx?",
        "panel_features.nginx is true",
    ]
    assert result["features"]["redis"]["reason"] == "switched off by request"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "server"}, "value of kind must be one of"),
        ({"provider": "Big Cloud"}, "argument provider: invalid name 'Big Cloud'"),
        ({"capabilities": {"sudo": True}}, "Unsupported parameters"),
    ],
)
def test_invalid_arguments(arguments: dict, message: str, hetzner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in run(capsys, root=str(hetzner), **arguments)["msg"]


def test_invalid_variable_on_the_target(
    hetzner: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPANEL_ENVIRONMENT_KIND", "server")
    message = run(capsys, root=str(hetzner))["msg"]
    assert message.startswith("environment AAPANEL_ENVIRONMENT_KIND: unknown kind 'server'; valid kinds: replit, ci,")
