# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of the settings, and the example file made of it."""

from __future__ import annotations

import json
import re
from unittest import mock

import pytest
from aapanel_runtime.check import check
from aapanel_runtime.settings import FIELDS, examine
from aapanel_runtime.settings.envfile import parse
from aapanel_runtime.settings.schema import describe, render
from runtime_server import PROJECT

KEY = "q8RkP2vXz7LmN4tYw9BcD3fGh6JsA1eU"


@pytest.fixture(autouse=True)
def _empty_environment():
    with mock.patch.dict("os.environ", clear=True):
        yield


def test_the_example_file_is_up_to_date():
    assert (PROJECT / ".env.example").read_text() == render("env"), (
        "run: python -m aapanel_runtime schema > .env.example"
    )


def test_the_uncommented_example_file_is_valid():
    text = re.sub(r"^#(?=[A-Z_]+=)", "", (PROJECT / ".env.example").read_text(), flags=re.MULTILINE)
    environ = parse(text)
    assert set(environ) == set(FIELDS)
    assert check({**environ, "SECRET_KEY": KEY}, whole=True) == []


def test_each_variable_is_described_and_documented_defaults_are_the_real_ones():
    for variable in describe():
        assert variable["description"].endswith("."), variable["name"]
        assert variable["expects"], variable["name"]
    settings, _ = examine({v["name"]: v["default"] for v in describe() if v["default"]} | {"SECRET_KEY": KEY})
    defaults, _ = examine({"SECRET_KEY": KEY})
    assert settings == defaults
    for output_format in ("json", "markdown"):
        assert all(name in render(output_format) for name in FIELDS)
    assert {v["name"] for v in json.loads(render("json")) if v["required_in"]} == {"SECRET_KEY"}
