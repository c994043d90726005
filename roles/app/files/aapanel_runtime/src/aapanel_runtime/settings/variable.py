# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declares a variable of the schema; converts and checks its text."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_core import PydanticCustomError

from ..database.url import KINDS

#: Type of the errors made by :func:`invalid`, to tell them from those of pydantic.
ERROR_TYPE = "aapanel"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def variable(  # noqa: PLR0913 - one declaration, read as a table row
    default: object,
    description: str,
    expects: str,
    group: str,
    *,
    secret: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    pattern: str | None = None,
) -> Any:  # noqa: ANN401 - as pydantic's Field, it stands where a value of the field's type is expected
    """Declare a variable.

    :param description: what the variable does, in sentences.
    :param expects: the accepted values, to complete "Set it to …".
    :param group: heading of the variable in the reference.
    :param secret: whether messages must not show the value.
    """
    extra: dict[str, Any] = {"expects": expects, "group": group, "secret": secret}
    return Field(default, description=description, json_schema_extra=extra, ge=ge, gt=gt, le=le, pattern=pattern)


def invalid(what: str, cure: str) -> PydanticCustomError:
    """Return the error of a validator.

    :param what: what is wrong, as a sentence without its subject.
    :param cure: what to do, as a sentence.
    """
    # Passed as values: in a template pydantic would replace the braces of a sentence.
    return PydanticCustomError(ERROR_TYPE, "{what} {cure}", {"what": what, "cure": cure})


def split(value: object) -> object:
    """Split a comma-separated text into a tuple."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def upper(value: object) -> object:
    """Convert text to upper case."""
    return value.upper() if isinstance(value, str) else value


def lower(value: object) -> object:
    """Convert text to lower case."""
    return value.lower() if isinstance(value, str) else value


def database_kind(value: object) -> object:
    """Replace an alias of a database (``postgres``, ``mariadb``) by its kind."""
    return KINDS.get(value.lower(), value) if isinstance(value, str) else value


def is_host_name(text: str) -> bool:
    """Return whether *text* is a host name, without scheme, port or path."""
    return _HOST_NAME.fullmatch(text) is not None


def is_origin(text: str) -> bool:
    """Return whether *text* is scheme://host[:port] without a path."""
    try:
        parts = urlsplit(text)
        return bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0) and not (
            parts.path or parts.query or parts.fragment or "@" in parts.netloc
        )
    except ValueError:
        return False
