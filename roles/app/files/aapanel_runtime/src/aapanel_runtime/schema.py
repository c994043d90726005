# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema as an example file, as JSON, or as a table for the manual."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticUndefined

from .settings import CLASSES, FIELDS, extra

_WIDTH = 100


def describe() -> list[dict[str, Any]]:
    """Return every variable: name, group, description, what it expects, default, secret, where it is required."""
    return [
        {
            "name": name,
            "group": extra(name)["group"],
            "description": field.description,
            "expects": extra(name)["expects"],
            "default": None if extra(name)["secret"] else _text(field.default),
            "secret": extra(name)["secret"],
            "required_in": [
                environment for environment, cls in CLASSES.items() if cls.model_fields[name.lower()].is_required()
            ],
        }
        for name, field in FIELDS.items()
    ]


def render(form: str) -> str:
    """Return the schema as ``env``, ``json`` or ``markdown``."""
    forms = {"env": _as_env, "json": _as_json, "markdown": _as_markdown}
    return forms[form](describe())


def _text(default: object) -> str | None:
    """Write a default as a variable would hold it."""
    if default is None or default is PydanticUndefined:
        return None
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default)


def _grouped(variables: list[dict[str, Any]]) -> Mapping[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for variable in variables:
        groups.setdefault(variable["group"], []).append(variable)
    return groups


def _as_env(variables: list[dict[str, Any]]) -> str:
    lines = [
        "# Every variable, with its default. Generated: python -m aapanel_runtime schema > .env.example",
        "# Check a copy with: python -m aapanel_runtime check --env-file .env",
    ]
    for group, members in _grouped(variables).items():
        lines += ["", f"# --- {group} {'-' * (_WIDTH - len(group) - 7)}"]
        for variable in members:
            required = f" Required in {' and '.join(variable['required_in'])}." if variable["required_in"] else ""
            text = f"{variable['description']}{required} Expects {variable['expects']}."
            lines += ["", *textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")]
            lines.append(f"#{variable['name']}={variable['default'] or ''}")
    return "\n".join(lines) + "\n"


def _as_json(variables: list[dict[str, Any]]) -> str:
    return json.dumps(variables, indent=2, ensure_ascii=False) + "\n"


def _as_markdown(variables: list[dict[str, Any]]) -> str:
    lines: list[str] = []
    for group, members in _grouped(variables).items():
        lines += [f"### {group}", "", "| variable | default | meaning |", "| --- | --- | --- |"]
        for variable in members:
            default = (
                f"`{variable['default']}`" if variable["default"] else "required" if variable["required_in"] else ""
            )
            text = f"{variable['description']} Expects {variable['expects']}.".replace("|", "\\|")
            lines.append(f"| `{variable['name']}` | {default} | {text} |")
        lines.append("")
    return "\n".join(lines)
