# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.errors import TrafficError
from ansible_collections.aapanel.pipeline.plugins.module_utils._traffic.settings import Settings, build, load

FOLDERS = {"base_dir": "/b", "config_dir": "/c", "data_dir": "/d", "run_dir": "/r"}


def test_four_directories_are_the_only_required_settings() -> None:
    settings = build(FOLDERS, "it")
    assert settings == Settings(Path("/b"), Path("/c"), Path("/d"), Path("/r"))
    assert settings.two_colours
    assert settings.textfile_dir is None


def test_json_values_are_converted(tmp_path: Path) -> None:
    file = tmp_path / "panelctl.json"
    given = {
        **FOLDERS,
        "domain": "panel.example",
        "http_port": 8080,
        "two_colours": False,
        "healthy_passes": 5,
        "drain_seconds": 10,
        "verify_paths": ["/", "/login"],
        "textfile_dir": "/t",
        "supervisor_bin_dir": "/s",
    }
    file.write_text(json.dumps(given))
    settings = load(file)
    assert (settings.domain, settings.http_port, settings.two_colours) == ("panel.example", 8080, False)
    assert settings.verify_paths == ("/", "/login")
    assert isinstance(settings.drain_seconds, float)
    assert settings.textfile_dir == Path("/t")
    assert settings.supervisor_bin_dir == Path("/s")


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_textfile_dir_is_none(nothing: str | None) -> None:
    assert build({**FOLDERS, "textfile_dir": nothing}, "it").textfile_dir is None


def test_paths_are_derived_from_the_directories() -> None:
    settings = build(FOLDERS, "it")
    assert settings.state_dir == Path("/d/traffic")
    assert settings.live_link == Path("/b/live")
    assert settings.maintenance_file == Path("/b/maintenance")
    assert settings.webhook_file == Path("/c/webhook")
    assert settings.slot_dir("blue") == Path("/b/slots/blue")
    assert settings.slot_env("blue") == Path("/c/blue.env")
    assert settings.slot_socket("blue") == Path("/r/blue.sock")


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(TrafficError, match=r"it: unknown key drain_secs; valid keys: .*drain_seconds"):
        build({**FOLDERS, "drain_secs": 1}, "it")


def test_a_missing_directory_is_an_error() -> None:
    with pytest.raises(TrafficError, match=r"it: .*run_dir"):
        build({key: value for key, value in FOLDERS.items() if key != "run_dir"}, "it")


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("two_colours", "maybe", "true or false"),
        ("drain_seconds", "soon", "a number"),
        ("http_port", None, "a whole number"),
        ("verify_paths", "/login", "a list of text"),
        ("verify_paths", [1], "a list of text"),
        ("domain", 5, "text"),
        ("base_dir", "", "an absolute path"),
        ("base_dir", "opt/aapanel", "an absolute path"),
        ("textfile_dir", "metrics", "an absolute path, or empty"),
    ],
)
def test_an_invalid_value_is_an_error(key: str, value: Any, kind: str) -> None:
    with pytest.raises(TrafficError, match=f"it: {key} is .*, but must be {kind}"):
        build({**FOLDERS, key: value}, "it")


def test_text_from_an_older_ansible_is_converted() -> None:
    settings = build({**FOLDERS, "two_colours": "False", "http_port": "8080", "drain_seconds": "10"}, "it")
    assert (settings.two_colours, settings.http_port, settings.drain_seconds) == (False, 8080, 10.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read"), ("{", "not JSON"), ("", "not JSON"), ("[1]", "not a JSON object")],
)
def test_an_invalid_file_is_an_error_that_says_what_to_do(tmp_path: Path, text: Any, message: str) -> None:
    file = tmp_path / "panelctl.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(TrafficError, match=message) as raised:
        load(file)
    assert str(file) in str(raised.value)
    assert "site.yml" in str(raised.value)
