# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of each environment: development, staging and production."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import Field, SecretStr, field_validator
from pydantic.fields import FieldInfo

from .base import SECRET_KEY_LENGTH, BaseSettings
from .variable import invalid

NEW_KEY = "Generate one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
_MIN_DIFFERENT = 10
_PLACEHOLDER = re.compile(r"change.?me|your.?secret|example|placeholder|^secret|development only", re.IGNORECASE)


class DevelopmentSettings(BaseSettings):
    """Settings for a developer's machine: no variable is required."""

    environment: Literal["development"] = "development"


class _DeployedSettings(BaseSettings):
    secret_key: SecretStr = cast(
        "SecretStr",
        Field(
            description=BaseSettings.model_fields["secret_key"].description,
            json_schema_extra=cast("dict[str, Any]", BaseSettings.model_fields["secret_key"].json_schema_extra),
        ),
    )

    @field_validator("secret_key")
    @classmethod
    def _check_secret_key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value()
        if len(key) < SECRET_KEY_LENGTH:
            raise invalid(f"has {len(key)} characters, but needs at least {SECRET_KEY_LENGTH}.", NEW_KEY)
        if _PLACEHOLDER.search(key):
            raise invalid("is a placeholder.", NEW_KEY)
        if len(set(key)) < _MIN_DIFFERENT:
            raise invalid(f"has fewer than {_MIN_DIFFERENT} different characters.", NEW_KEY)
        return value


class StagingSettings(_DeployedSettings):
    """Settings for staging: the rules of production, but DEBUG is allowed."""

    environment: Literal["staging"] = "staging"


class ProductionSettings(_DeployedSettings):
    """Settings for production: the strictest rules."""

    environment: Literal["production"] = "production"

    @field_validator("debug")
    @classmethod
    def _check_debug(cls, value: bool) -> bool:
        if value:
            raise invalid("is on in production, where it shows code and data to visitors.", "Set it to false.")
        return value


CLASSES: Mapping[str, type[BaseSettings]] = {
    "development": DevelopmentSettings,
    "staging": StagingSettings,
    "production": ProductionSettings,
}
FIELDS: Mapping[str, FieldInfo] = {name.upper(): field for name, field in BaseSettings.model_fields.items()}


def extra(name: str) -> dict[str, Any]:
    """Return the ``expects``, ``group`` and ``secret`` of a variable's declaration."""
    return cast("dict[str, Any]", FIELDS[name].json_schema_extra)


def secret_values(environ: Mapping[str, str]) -> set[str]:
    """Return the values of the secret variables in *environ*."""
    return {environ[name] for name in FIELDS if extra(name)["secret"] and environ.get(name)}
