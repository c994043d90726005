# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find problems in a user's ``panel_*`` variables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

PREFIX = "panel_"
#: Minimum length of a secret by ``panel_environment``. An unknown environment has the minimum of production.
MINIMUM_LENGTHS = {"production": 32, "staging": 16, "development": 1}

_SECRET_NAME = re.compile(r"_(secret_key|password|key)$")
_PUBLIC_NAME = re.compile(r"_public_key$")
# CHANGE-ME and <your domain> anywhere; any other <...> only as the whole value, to accept "Admin <admin@example.org>".
_PLACEHOLDER = re.compile(r"(?<![a-z])change[-_]?me(?![a-z])|<your\b[^<>]*>|^\s*<[^<>@]*>\s*$", re.IGNORECASE)
_GENERATE = "generate one with `openssl rand -hex 32` and store it in a vaulted file below"

_MISSING = object()
_UNEVALUABLE = object()


def find_problems(
    variables: Mapping[str, object],
    specs: Mapping[str, Mapping[str, object]],
    required: Iterable[str] = (),
    where: str = "inventories/prod/group_vars",
) -> list[str]:
    """Return the problems of a user's ``panel_*`` variables.

    Finds unknown names (and suggests the closest known one), unfilled placeholders, and secrets that are missing or
    too short for ``panel_environment``. Messages never contain the value of a secret. Never raises: a value that
    cannot be evaluated is a problem if it is required, and is ignored otherwise.

    :param specs: the options of the role's argument specification.
    :param required: names of the secrets that must be set.
    :param where: the folder that the messages refer to.
    """
    names = [name for name in variables if isinstance(name, str) and name.startswith(PREFIX)]
    environment = _environment(variables, specs)
    problems = [_unknown_variable(name, specs) for name in names if name not in specs]
    for name in names:
        value = _get(variables, name)
        secret = _is_secret(name, specs)
        found = _placeholder(value, name)
        if found is not None:
            path, marker = found
            shown = "" if secret else f" {marker.strip()}"
            problems.append(f"{path}: still holds the placeholder{shown}; fill it in below {where}")
        elif secret and name not in required:
            problems += _too_short(name, value, environment, where)
    for name in required:
        value = _get(variables, name)
        if _placeholder(value, name) is None:
            problems += _missing_secret(name, value, environment, where) or _too_short(name, value, environment, where)
    return problems


def _unknown_variable(name: str, specs: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(specs), n=1, cutoff=0.75)
    if close:
        return f"{name}: unknown variable; did you mean {close[0]}?"
    return f"{name}: unknown variable; remove it, or rename it without {PREFIX} if it is your own"


def _get(container: Any, key: str | int) -> object:  # noqa: ANN401 a mapping or a list
    try:
        return container[key]
    except KeyError:
        return _MISSING
    except Exception:  # noqa: BLE001 a lazily evaluated template can raise anything at all
        return _UNEVALUABLE


def _environment(variables: Mapping[str, object], specs: Mapping[str, Mapping[str, object]]) -> str:
    value = _get(variables, "panel_environment")
    if value is _MISSING:
        spec = specs.get("panel_environment")
        value = spec.get("default") if isinstance(spec, Mapping) else None
    return str(value) if isinstance(value, str) and str(value) in MINIMUM_LENGTHS else "production"


def _is_secret(name: str, specs: Mapping[str, object]) -> bool:
    """Return whether a variable holds a secret, by its name.

    Options of other types than ``str`` hold a file's path or a switch, not a secret.
    """
    spec = specs.get(name)
    kind = spec.get("type", "str") if isinstance(spec, Mapping) else "str"
    return kind == "str" and bool(_SECRET_NAME.search(name)) and not _PUBLIC_NAME.search(name)


def _text(value: object) -> str | None:
    """Return a scalar as text; None for null, undefined values, collections and unevaluated templates."""
    if value is None or value is _MISSING or value is _UNEVALUABLE or isinstance(value, (bool, Mapping, list, tuple)):
        return None
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 undefined values and vaulted ones without a password raise their own classes
        return None
    return None if "{{" in text or "{%" in text else text


def _missing_secret(name: str, value: object, environment: str, where: str) -> list[str]:
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        return []
    if _text(value):
        return []
    if value is _MISSING or value is None or value == "":
        minimum = MINIMUM_LENGTHS[environment]
        need = f"required for {environment}" + (f", with at least {minimum} characters" if minimum > 1 else "")
        return [f"{name}: missing; {need}; {_GENERATE} {where}"]
    return [f"{name}: cannot be evaluated; check the variable that it refers to, or the vault password"]


def _too_short(name: str, value: object, environment: str, where: str) -> list[str]:
    text = _text(value)
    minimum = MINIMUM_LENGTHS[environment]
    if not text or len(text) >= minimum:
        return []
    need = f"{environment} needs at least {minimum}"
    return [f"{name}: too short with {len(text)} characters; {need}; {_GENERATE} {where}"]


def _placeholder(value: object, path: str) -> tuple[str, str] | None:
    """Return the path of the first placeholder and its text; None if there is none."""
    if isinstance(value, Mapping):
        children = [(f"{path}.{key}", _get(value, key)) for key in _keys(value)]
    elif isinstance(value, (list, tuple)):
        children = [(f"{path}[{index}]", _get(value, index)) for index in range(len(value))]
    else:
        match = _PLACEHOLDER.search(_text(value) or "")
        return (path, match.group()) if match else None
    for child, item in children:
        found = _placeholder(item, child)
        if found is not None:
            return found
    return None


def _keys(value: Mapping[str, object]) -> list[str]:
    try:
        return list(value)
    except Exception:  # noqa: BLE001 a lazily evaluated dictionary can raise anything at all
        return []
