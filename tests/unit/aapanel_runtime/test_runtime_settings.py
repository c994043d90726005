# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings: which class, which value wins, what is refused, and that no secret gets out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
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
from aapanel_runtime.cli import main
from aapanel_runtime.envfile import EnvironmentFileError, parse
from aapanel_runtime.schema import describe
from aapanel_runtime.schema import render as render_schema
from aapanel_runtime.settings import FIELDS, examine
from hypothesis import example, given
from hypothesis import strategies as st
from runtime_server import PROJECT, clean_environ

KEY = "q8RkP2vXz7LmN4tYw9BcD3fGh6JsA1eU"


def errors(environ: dict[str, str]) -> dict[str, str]:
    return {problem.name: problem.what for problem in examine(environ)[1] if problem.level == "error"}


@pytest.fixture(autouse=True)
def _empty_environment():
    with mock.patch.dict("os.environ", clear=True):
        yield


def test_the_class_follows_the_environment_and_an_argument_wins():
    with mock.patch.dict("os.environ", {"ENVIRONMENT": "staging", "SECRET_KEY": KEY, "PORT": "8000"}):
        assert type(get_settings()) is StagingSettings
        assert type(get_settings("development")) is DevelopmentSettings
        production = get_settings("production", port=9000)
    assert type(production) is ProductionSettings
    assert (production.environment, production.port) == ("production", 9000)


def test_a_forgotten_environment_means_the_strict_one():
    with pytest.raises(SettingsError, match="SECRET_KEY: is not set"):
        get_settings()


def test_only_exact_names_count_and_an_empty_value_is_unset():
    with mock.patch.dict("os.environ", {"ENVIRONMENT": "development", "port": "1", "HOST": "", "DB_PORT": ""}):
        settings = get_settings()
    assert (settings.port, settings.host, settings.db_port) == (5000, "127.0.0.1", None)


def test_an_override_that_does_not_exist_is_a_mistake_of_the_caller():
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
def test_a_weak_key_is_refused_where_it_counts(environment, key, what):
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


def test_database_parts_make_a_whole_or_are_refused():
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
def test_no_secret_appears_in_any_report_or_text(secret, environment, weak):
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


def test_unknown_variables_are_found_with_the_name_that_was_meant():
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


def test_the_example_file_is_up_to_date():
    assert (PROJECT / ".env.example").read_text() == render_schema("env"), (
        "run: python -m aapanel_runtime schema > .env.example"
    )


def test_the_example_file_with_every_line_active_is_a_valid_environment():
    text = re.sub(r"^#(?=[A-Z_]+=)", "", (PROJECT / ".env.example").read_text(), flags=re.MULTILINE)
    environ = parse(text)
    assert set(environ) == set(FIELDS)
    assert check({**environ, "SECRET_KEY": KEY}, whole=True) == []


def test_every_variable_is_described_and_defaults_are_what_they_say():
    for variable in describe():
        assert variable["description"].endswith("."), variable["name"]
        assert variable["expects"], variable["name"]
    settings, _ = examine({v["name"]: v["default"] for v in describe() if v["default"]} | {"SECRET_KEY": KEY})
    plain, _ = examine({"SECRET_KEY": KEY})
    assert settings == plain
    for form in ("json", "markdown"):
        assert all(name in render_schema(form) for name in FIELDS)
    assert {v["name"] for v in json.loads(render_schema("json")) if v["required_in"]} == {"SECRET_KEY"}


ENVIRONMENT_FILE = r"""
# comment
; comment
PLAIN=a b # no comment   
SPACED =  x
EMPTY=
DOUBLE="  keeps \"quotes\", \\ and \n$HOME "
SINGLE='raw \ "x" '
GLUED="a"'b'c
LATE=don't
ESCAPED=a\ b\\c\ 
CONTINUED=one\
two
PASSWORD=p@ss$word#1
"""  # noqa: W291 - trailing white space is what is tested


def test_an_environment_file_is_read_as_systemd_reads_it():
    # What `systemd-run --property=EnvironmentFile=… env` printed for this file, on systemd 252 and 257.
    assert parse(ENVIRONMENT_FILE) == {
        "PLAIN": "a b # no comment",
        "SPACED": "x",
        "EMPTY": "",
        "DOUBLE": '  keeps "quotes", \\ and \\n$HOME ',
        "SINGLE": 'raw \\ "x" ',
        "GLUED": "abc",
        "LATE": "don't",
        "ESCAPED": "a b\\c ",
        "CONTINUED": "onetwo",
        "PASSWORD": "p@ss$word#1",
    }


@pytest.mark.parametrize(
    "text", ["A=1\nno setting here: hunter2", "A=1\nexport B=hunter2", "A=1\nB='hunter2", "A=1\n=hunter2"]
)
def test_a_line_that_systemd_would_drop_is_refused_without_quoting_it(text):
    with pytest.raises(EnvironmentFileError, match="2") as caught:
        parse(text)
    assert "hunter2" not in str(caught.value)


def test_the_check_command_has_an_exit_status_and_json(tmp_path, capsys):
    file = tmp_path / "x.env"
    file.write_text(f"ENVIRONMENT=production\nSECRET_KEY={KEY}\nPORT=80a\n")
    assert main(["check", "--env-file", str(file), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "ok": False,
        "problems": [
            {
                "name": "PORT",
                "what": "'80a' cannot be used.",
                "cure": "Set it to a TCP port, 1 to 65535.",
                "level": "error",
            }
        ],
    }
    file.write_text(f"ENVIRONMENT=production\nSECRET_KEY={KEY}\n")
    assert main(["check", "--env-file", str(file)]) == 0
    assert capsys.readouterr().out == "The environment is fine.\n"
    assert main(["check", "--env-file", str(tmp_path / "missing")]) == 2


def test_check_can_ask_the_servers(tmp_path, closed_port, capsys):
    file = tmp_path / "x.env"
    file.write_text(
        f"ENVIRONMENT=development\nDATABASE_URL=postgresql://u:hunter2@127.0.0.1:{closed_port}/x\n"
        f"REDIS_URL=redis://:hunter2@127.0.0.1:{closed_port}/0\n"
    )
    assert main(["check", "--env-file", str(file)]) == 0
    assert main(["check", "--env-file", str(file), "--connect"]) == 1
    shown = capsys.readouterr()
    assert "DATABASE_URL: is set, but the database does not answer" in shown.out
    assert "REDIS_URL: is set, but the redis does not answer" in shown.out
    assert "hunter2" not in shown.out + shown.err


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "aapanel_runtime", "check"]
    done = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The environment is fine.\n", "")
