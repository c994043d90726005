# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the variables of an environment, by exact name and as text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

# None stands for the environment of this process; `check --env-file` sets the variables of a file.
_ENVIRON: ContextVar[Mapping[str, str] | None] = ContextVar("environ", default=None)


def current_environ() -> Mapping[str, str]:
    """Return the environment that settings are read from."""
    given = _ENVIRON.get()
    return os.environ if given is None else given


@contextmanager
def reading(environ: Mapping[str, str]) -> Iterator[None]:
    """Read settings from *environ* inside the ``with`` block."""
    token = _ENVIRON.set(environ)
    try:
        yield
    finally:
        _ENVIRON.reset(token)


class ExactEnvironment(PydanticBaseSettingsSource):
    """A source of settings that reads variables by their exact upper-case name, as text.

    The source of pydantic-settings also accepts ``host`` for ``HOST``, and expects JSON for lists. An empty variable
    counts as unset.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the interface
        """Return the value of a field, its name, and whether the value is JSON, as pydantic-settings requires."""
        return current_environ().get(field_name.upper()) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of all fields that are set."""
        fields = self.settings_cls.model_fields
        found = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in found.items() if value is not None}
