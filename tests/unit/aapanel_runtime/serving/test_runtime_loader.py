# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading the application."""

from __future__ import annotations

import sys

import pytest
from aapanel_runtime import SettingsError, get_settings
from aapanel_runtime.serving.loader import load


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuchmodule:app", "AAPANEL_APP: names module nosuchmodule, which does not exist"),
        ("wsgiref.util:missing", "names missing, which does not exist in module wsgiref.util"),
        ("wsgiref:__name__", "which is not callable"),
    ],
)
def test_a_missing_application_is_reported(name, message):
    with pytest.raises(SettingsError, match=message):
        load(get_settings("development", aapanel_app=name))


def test_a_missing_import_of_the_application_is_raised_unchanged(tmp_path, monkeypatch):
    (tmp_path / "broken_sample.py").write_text("import nosuchdependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nosuchdependency"):
        load(get_settings("development", aapanel_app="broken_sample:app", aapanel_home=str(tmp_path)))


def test_a_factory_is_called_and_a_missing_home_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "factory_sample.py").write_text("def create():\n    return print\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    settings = get_settings("development", aapanel_app="factory_sample:create()", aapanel_home=str(tmp_path))
    assert load(settings) is print
    with pytest.raises(SettingsError, match="AAPANEL_HOME: '/no/such/home' cannot be entered: No such file"):
        load(get_settings("development", aapanel_home="/no/such/home"))
