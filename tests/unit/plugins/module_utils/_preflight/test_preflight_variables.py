# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._preflight.variables import find_problems
from hypothesis import given
from hypothesis import strategies as st

SPECS: dict[str, dict[str, object]] = {
    "panel_domain": {"type": "str"},
    "panel_environment": {"type": "str", "default": "production"},
    "panel_secret_key": {"type": "str"},
    "panel_database_password": {"type": "str"},
    "panel_admin_ssh_public_key": {"type": "str"},
    "panel_tls_key": {"type": "path"},
    "panel_settings": {"type": "dict"},
}
GOOD = "0123456789abcdef0123456789abcdef"


class Broken(dict):
    """A dictionary with variables that raise when they are evaluated, like Ansible's lazy one."""

    def __getitem__(self, key: str) -> object:
        value = super().__getitem__(key)
        if isinstance(value, Exception):
            raise value
        return value


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("panel_domian", "did you mean panel_domain?"),
        ("panel_secretkey", "did you mean panel_secret_key?"),
        ("panel_zzz", "remove it, or rename it without panel_ if it is your own"),
    ],
)
def test_unknown_variable(name: str, remedy: str) -> None:
    assert find_problems({name: "x"}, SPECS) == [f"{name}: unknown variable; {remedy}"]


def test_other_names_are_ignored() -> None:
    assert find_problems({"nginx_x": "CHANGE-ME", "__panel_x": 1, "panel": 1, 7: "panel_"}, SPECS) == []


@pytest.mark.parametrize(
    "value",
    [
        "CHANGE-ME",
        "change-me.example.com",
        "https://CHANGE_ME/",
        "changeme",
        "<your domain>",
        "x <your-domain> y",
        " <domain> ",
    ],
)
def test_placeholder(value: str) -> None:
    (problem,) = find_problems({"panel_domain": value}, SPECS)
    assert problem.startswith("panel_domain: still holds the placeholder ")
    assert problem.endswith("; fill it in below inventories/prod/group_vars")


@pytest.mark.parametrize(
    "value",
    [
        "panel.example.com",
        "Ada <ada@example.org>",
        "a < b > c",
        "exchange-me.org",
        "change-methods",
        "{{ x }}",
        None,
        5,
        True,
        "",
    ],
)
def test_no_placeholder(value: object) -> None:
    assert find_problems({"panel_domain": value}, SPECS) == []


def test_nested_placeholder() -> None:
    value = {"mail": [{"to": "ok"}, {"to": "ops@<your domain>", "password": "hunter2 <your domain>"}]}
    assert find_problems({"panel_settings": value}, SPECS, where="inventories/x") == [
        "panel_settings.mail[1].to: still holds the placeholder <your domain>; fill it in below inventories/x"
    ]


def test_placeholder_is_found_beside_an_unevaluable_value() -> None:
    value = Broken(a=RuntimeError("undefined"), b="CHANGE-ME")
    (problem,) = find_problems({"panel_settings": value}, SPECS)
    assert problem.startswith("panel_settings.b: ")


@pytest.mark.parametrize(
    ("environment", "length", "problem"),
    [
        ("production", 31, "production needs at least 32"),
        ("production", 32, ""),
        ("staging", 15, "staging needs at least 16"),
        ("staging", 16, ""),
        ("development", 1, ""),
        # A misspelled environment has the minimum of production.
        ("prod", 31, "production needs at least 32"),
        (None, 31, "production needs at least 32"),
        ("{{ x }}", 31, "production needs at least 32"),
    ],
)
def test_length_of_secrets(environment: object, length: int, problem: str) -> None:
    variables = {"panel_environment": environment, "panel_secret_key": "s" * length}
    for required in ([], ["panel_secret_key"]):
        found = find_problems(variables, SPECS, required)
        assert len(found) == bool(problem)
        assert problem in "".join(found)
        assert "ss" not in "".join(found).replace("password", "").replace("openssl", "")


def test_environment_defaults_to_the_specification() -> None:
    specs = {**SPECS, "panel_environment": {"default": "development"}}
    assert find_problems({"panel_secret_key": "short"}, specs) == []


@pytest.mark.parametrize("value", [None, ""])
def test_missing_secret(value: object) -> None:
    for variables in ({}, {"panel_secret_key": value}):
        (problem,) = find_problems(variables, SPECS, ["panel_secret_key"])
        assert problem.startswith("panel_secret_key: missing; required for production, with at least 32 characters;")
        assert "openssl rand" in problem
    assert find_problems({"panel_secret_key": value}, SPECS) == []


def test_missing_secret_is_reported_in_development() -> None:
    (problem,) = find_problems({"panel_environment": "development"}, SPECS, ["panel_secret_key"])
    assert problem.startswith("panel_secret_key: missing; required for development;")


@pytest.mark.parametrize("value", [RuntimeError("'vault_x' is undefined: hunter2"), ["list"], {"a": 1}, True])
def test_secret_that_cannot_be_evaluated(value: object) -> None:
    (problem,) = find_problems(Broken(panel_secret_key=value), SPECS, ["panel_secret_key"])
    assert problem.startswith("panel_secret_key: cannot be evaluated;")
    assert "hunter2" not in problem


def test_template_that_was_not_evaluated_is_not_judged() -> None:
    assert find_problems({"panel_secret_key": "{{ vault_secret }}"}, SPECS, ["panel_secret_key"]) == []


def test_paths_and_public_keys_are_not_secrets() -> None:
    variables = {"panel_tls_key": "/etc/k.pem", "panel_admin_ssh_public_key": "ssh-ed25519 AAAA"}
    assert find_problems(variables, SPECS) == []


def test_placeholder_in_a_secret_is_reported_once_without_the_value() -> None:
    value = "CHANGE-ME-hunter2"
    for required in ([], ["panel_secret_key"]):
        assert find_problems({"panel_secret_key": value}, SPECS, required) == [
            "panel_secret_key: still holds the placeholder; fill it in below inventories/prod/group_vars"
        ]


def test_misspelt_secret_is_not_printed() -> None:
    found = find_problems({"panel_secert_key": "hunter2<your>", "panel_pass": "CHANGE-ME hunter2"}, SPECS)
    assert "hunter2" not in "".join(found)
    assert len(found) == 4


def test_valid_production_variables() -> None:
    variables = {"panel_domain": "panel.example.com", "panel_secret_key": GOOD, "panel_database_password": GOOD}
    assert find_problems(variables, SPECS, ["panel_secret_key", "panel_database_password"]) == []


class RaisingMapping(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("undefined")

    def __len__(self) -> int:
        return 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.builds(object) | st.builds(RaisingMapping),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=4,
)


@given(
    variables=st.dictionaries(st.sampled_from(list(SPECS)) | st.text().map("panel_".__add__), values, max_size=4),
    required=st.lists(st.sampled_from(list(SPECS)), unique=True),
)
def test_never_fails(variables: dict, required: list[str]) -> None:
    assert all(isinstance(problem, str) for problem in find_problems(variables, SPECS, required))


@given(secret=st.text(alphabet="QXZJ0123456789", min_size=6, max_size=31))
def test_never_prints_a_secret(secret: str) -> None:
    variables = {"panel_secret_key": secret, "panel_database_password": f"CHANGE-ME-{secret}"}
    found = find_problems(variables, SPECS, ["panel_secret_key"])
    assert len(found) == 2
    assert secret not in "".join(found)
