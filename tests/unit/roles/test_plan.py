# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All roles have the same structure: defaults match argument specs, and variables have the prefix of their role."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PREFIXES = {role.name for role in ROLES}
# antsibull-docs, which builds the published pages, converts a default to its option's type, and accepts Jinja for these
# types only.
TYPES_WITH_JINJA = {"str", "path", "list"}
# Finds the names in Jinja expressions; attributes and strings are not names.
EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
STRING = re.compile(r"'[^']*'|\"[^\"]*\"")
NAME = re.compile(r"(?<![\w.'\"])([a-z][a-z0-9]*_[a-z0-9_]+)\b(?!\s*[=(])")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def by_name(role: Path) -> str:
    return role.name


def must_be_omitted(default: object, option: dict[str, Any]) -> bool:
    """Return whether the argument spec of an option has to omit its default."""
    return isinstance(default, str) and bool(EXPRESSION.search(default)) and option["type"] not in TYPES_WITH_JINJA


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_defaults_and_argument_specs_agree(role: Path) -> None:
    defaults = read(role / "defaults/main.yml")
    options = read(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert list(options) == list(defaults)
    omitted = {name for name in defaults if must_be_omitted(defaults[name], options[name])}
    assert {name for name, option in options.items() if "default" not in option} == omitted
    assert {name: option["default"] for name, option in options.items() if "default" in option} == {
        name: default for name, default in defaults.items() if name not in omitted
    }


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_an_omitted_default_is_described(role: Path) -> None:
    options = read(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    told = {name: "".join(option["description"]) for name, option in options.items() if "default" not in option}
    assert [name for name, text in told.items() if "efault" not in text] == []


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_public_variables_have_the_prefix_of_their_role(role: Path) -> None:
    names = read(role / "defaults/main.yml")
    assert [name for name in names if not name.startswith(f"{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_private_variables_have_the_prefix_of_their_role(role: Path) -> None:
    names = [name for path in role.glob("vars/**/*.yml") for name in read(path)]
    assert [name for name in names if not name.startswith(f"__{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_every_public_variable_has_a_comment(role: Path) -> None:
    lines = (role / "defaults/main.yml").read_text(encoding="utf-8").splitlines()
    blocks = "\n".join(lines).split("\n\n")
    bare = [block for block in blocks if re.search(r"^\w+:", block, re.MULTILINE) and "#" not in block.split(":")[0]]
    assert bare == []


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_uses_only_variables_of_its_own_and_of_the_panel(role: Path) -> None:
    foreign = PREFIXES - {role.name, "panel"}
    found = []
    for path in sorted(role.rglob("*")):
        if path.suffix not in {".yml", ".j2"} or "files" in path.relative_to(role).parts:
            continue
        for expression in EXPRESSION.findall(path.read_text(encoding="utf-8")):
            names = NAME.findall(STRING.sub("", expression))
            found += [f"{path.relative_to(ROOT)}: {name}" for name in names if name.split("_")[0] in foreign]
    assert found == []


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_tasks_follow_the_common_structure(role: Path) -> None:
    imports = [task.get("ansible.builtin.import_tasks") for task in read(role / "tasks/main.yml")]
    files = [Path(name).stem for name in imports if name]
    assert files[0] in {"assert", "detect"}
    assert set(files) <= {"detect", "assert", "install", "configure", "service", "provision", "plan"}
    assert (role / "meta/main.yml").exists()
