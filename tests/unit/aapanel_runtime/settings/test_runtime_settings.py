# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings: classes, precedence, validation, and messages without secrets."""

from __future__ import annotations

import json
import traceback
from unittest import mock

import pytest
from aapanel_runtime import (
    BaseSettings,
    DevelopmentSettings,
    ProductionSettings,
    SettingsError,
    StagingSettings,
    get_settings,
)
from aapanel_runtime.check import check, render
from aapanel_runtime.settings import examine
from hypothesis import example, given
from hypothesis import strategies as st

KEY = "q8RkP2vXz7LmN4tYw9BcD3fGh6JsA1eU"


def errors(environ: dict[str, str]) -> dict[str, str]:
    return {problem.name: problem.what for problem in examine(environ)[1] if problem.level == "error"}


@pytest.fixture(autouse=True)
def _empty_environment():
    with mock.patch.dict("os.environ", clear=True):
        yield


def test_environment_selects_the_class_and_arguments_override_it():
    with mock.patch.dict("os.environ", {"ENVIRONMENT": "staging", "SECRET_KEY": KEY, "PORT": "8000"}):
        assert type(get_settings()) is StagingSettings
        assert type(get_settings("development")) is DevelopmentSettings
        production = get_settings("production", port=9000)
    assert type(production) is ProductionSettings
    assert (production.environment, production.port) == ("production", 9000)


def test_the_default_environment_is_production():
    with pytest.raises(SettingsError, match="SECRET_KEY: is not set"):
        get_settings()


def test_names_are_exact_and_an_empty_value_is_unset():
    with mock.patch.dict("os.environ", {"ENVIRONMENT": "development", "port": "1", "HOST": "", "DB_PORT": ""}):
        settings = get_settings()
    assert (settings.port, settings.host, settings.db_port) == (5000, "127.0.0.1", None)


def test_an_unknown_override_raises_type_error():
    with pytest.raises(TypeError, match="prot"):
        get_settings("development", prot=1)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("x" * 31, "has 31 characters"),
        ("change-me-change-me-change-me-change-me", "placeholder"),
        ("a" * 64, "different characters"),
        ("", "is not set"),
    ],
)
@pytest.mark.parametrize("environment", ["staging", "production"])
def test_a_weak_key_is_refused_except_in_development(environment, key, what):
    assert what in errors({"ENVIRONMENT": environment, "SECRET_KEY": key})["SECRET_KEY"]
    assert "SECRET_KEY" not in errors({"ENVIRONMENT": "development", "SECRET_KEY": key})


def test_debug_is_refused_in_production_only():
    assert "DEBUG" in errors({"ENVIRONMENT": "production", "SECRET_KEY": KEY, "DEBUG": "true"})
    assert not errors({"ENVIRONMENT": "staging", "SECRET_KEY": KEY, "DEBUG": "true"})


def test_every_problem_is_reported_at_once():
    assert set(
        errors(
            {
                "ENVIRONMENT": "produktion",
                "PORT": "0",
                "DOMAIN": "https://panel.example.com/",
                "CORS_ORIGINS": "https://a.example,b.example",
                "DB_ENGINE": "oracle",
                "DB_PASSWORD": "x",
                "REDIS_URL": "http://h",
                "AAPANEL_APP": "BTPanel",
                "AAPANEL_RELEASE": "r\r\nSet-Cookie: a=b",
                "AAPANEL_SOCKET": "/" + "s" * 107,
                "AAPANEL_HOME": "relative",
                "AAPANEL_APP_ROUTES": "live,metric",
                "AAPANEL_HEALTH_TIMEOUT": "nan",
                "LOG_LEVEL": "loud",
            }
        )
    ) == {
        "ENVIRONMENT", "SECRET_KEY", "PORT", "DOMAIN", "CORS_ORIGINS", "DB_ENGINE", "DB_NAME", "REDIS_URL", "LOG_LEVEL",
        "AAPANEL_APP", "AAPANEL_RELEASE", "AAPANEL_SOCKET", "AAPANEL_HOME", "AAPANEL_APP_ROUTES",
        "AAPANEL_HEALTH_TIMEOUT",
    }  # fmt: skip


def test_incomplete_database_variables_are_refused():
    base = {"ENVIRONMENT": "development"}
    assert set(errors({**base, "DB_PASSWORD": "x"})) == {"DB_ENGINE"}
    assert set(errors({**base, "DB_ENGINE": "mysql"})) == {"DB_NAME", "DB_USER"}
    assert not errors({**base, "DB_ENGINE": "sqlite", "DB_NAME": "/data/x.db"})
    settings, problems = examine({**base, "DATABASE_URL": "sqlite:///x", "DB_NAME": "y"})
    assert settings is not None
    assert [(problem.name, problem.level) for problem in problems] == [("DATABASE_URL", "warning")]


SECRET = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40).map(
    lambda x: f"zQ9{x}§Kw"
)


@given(SECRET, st.sampled_from(["development", "staging", "production", "nonsense"]), st.booleans())
@example("zQ9:pass@host/§Kw", "production", True)
@example("zQ9[::1]%zz#§Kw", "production", False)
def test_no_report_contains_a_secret(secret, environment, weak):
    environ = {
        "ENVIRONMENT": environment,
        "SECRET_KEY": secret if weak else secret * 8,
        "DB_PASSWORD": secret,
        "DATABASE_URL": f"postgres://user:{secret}@host/name",
        "REDIS_URL": f"redis://:{secret}@host/{'0' if weak else secret}",
        "PORT": f"postgres://user:{secret}@host/name",
        "HOST": f"{secret}",
        "AAPANEL_HOME": secret,
        "AAPANEL_SECRT": secret,
    }
    problems = check(environ)
    texts = [render(problems, as_json=False), json.loads(render(problems, as_json=True)).__repr__()]
    settings, _ = examine({**environ, "PORT": "", "HOST": "", "AAPANEL_HOME": ""})
    if settings is not None:
        texts += [
            repr(settings),
            str(settings),
            settings.model_dump_json(),
            repr(settings.database),
            repr(settings.redis),
        ]
        texts += [part.display for part in (settings.database, settings.redis) if part]
    try:
        BaseSettings(database_url=f"nonsense://{secret}", redis_url=secret, port=1)
    except ValueError:
        texts.append(traceback.format_exc())
    for text in texts:
        assert secret not in text
        assert "§Kw" not in text


def test_direct_use_of_a_class_hides_secrets_in_its_errors():
    with pytest.raises(ValueError, match="database_url") as caught:
        ProductionSettings(secret_key="hidden-key", database_url="x://hidden-pw")
    assert "hidden" not in str(caught.value)


def test_unknown_variables_are_reported_with_a_suggestion():
    problems = check(
        {
            "ENVIRONMENT": "development",
            "AAPANEL_WORKRES": "2",
            "AAPANEL_QQQQ": "",
            "AAPANEL_PORT": "1",
            "SECRET_KEI": "x",
            "PATH": "/",
        }
    )
    assert [str(p) for p in problems] == [
        "AAPANEL_PORT: is not a known variable. Did you mean PORT?",
        "AAPANEL_QQQQ: is not a known variable. Remove it.",
        "AAPANEL_WORKRES: is not a known variable. Did you mean AAPANEL_WORKERS?",
    ]
    in_a_file = check({"ENVIRONMENT": "development", "SECRET_KEI": "x", "PATH": "/"}, whole=True)
    assert [(p.name, p.level) for p in in_a_file] == [("SECRET_KEI", "warning")]
