# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Read settings from JSON or from Ansible into a dataclass, with an error for each mistake."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

Settings = TypeVar("Settings")


class SettingsError(ValueError):
    """The settings are unreadable or invalid."""


def load(path: Path) -> dict[str, Any]:
    """Read a settings file.

    :raises SettingsError: it is missing, unreadable or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror}; run site.yml to create it, and panelctl as root"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{path} is not JSON ({error}); run site.yml to recreate it") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is not a JSON object; run site.yml to recreate it")
    return content


def build(kind: type[Settings], content: Mapping[str, Any], name: str) -> Settings:
    """Build settings from JSON or from Ansible, which may pass a number as text.

    :param kind: a dataclass with fields of the types in `_CONVERT`.
    :param name: name of the settings in errors.
    :raises SettingsError: a key is unknown or missing, or a value is invalid.
    """
    known = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type] # a dataclass
    if unknown := sorted(set(content) - set(known)):
        raise SettingsError(f"{name}: unknown key {', '.join(unknown)}; valid keys: {', '.join(known)}")
    try:
        return kind(**{key: _convert(name, key, known[key], value) for key, value in content.items()})
    except TypeError as error:
        raise SettingsError(f"{name}: {error}") from error


def _convert(name: str, key: str, kind: str, value: object) -> Any:  # noqa: ANN401 (the type of the field)
    try:
        return _CONVERT[kind](value)
    except (ValueError, TypeError, KeyError):
        raise SettingsError(f"{name}: {key} is {value!r}, but must be {_KINDS[kind]}") from None


def _path(value: object) -> Path:
    if not isinstance(value, (str, Path)) or not Path(value).is_absolute():
        raise ValueError
    return Path(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return tuple(map(_text, value))


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "Path": _path,
    "Path | None": lambda value: _path(value) if value else None,
    "str": _text,
    "int": int,
    "float": float,
    "bool": lambda value: {"true": True, "false": False}[str(value).lower()],
    "tuple[str, ...]": _texts,
}
_KINDS = {
    "Path": "an absolute path",
    "Path | None": "an absolute path, or empty",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list of text",
}
