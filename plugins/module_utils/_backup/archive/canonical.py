# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Canonical JSON: each value has one encoding, so that signed values can be compared byte by byte.

Sorted keys, no whitespace, ASCII only, integers only. (RFC 8785 has floats and sorts by UTF-16: not needed here, and
hard to get right.)
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..errors import NotAuthenticError

_PLAIN = frozenset((str, int, bool, type(None)))
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def encode(value: object) -> bytes:
    """Encode a value.

    :raises ValueError: it contains a float, which has several encodings.
    """
    _refuse_floats(value)
    return _ENCODER.encode(value).encode("ascii")


def decode(data: bytes) -> Any:  # noqa: ANN401 (as json.loads has it)
    """Decode a value.

    :raises NotAuthenticError: the encoding is not canonical: it comes from another tool, or is meant to be ambiguous.
    """
    try:
        value = _DECODER.decode(data.decode("ascii"))
        same = encode(value) == data
    except (ValueError, RecursionError) as error:
        raise NotAuthenticError(f"not canonical JSON: {error}") from None
    if not same:
        raise NotAuthenticError("JSON, but not in the canonical encoding")
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not an integer")


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise ValueError(f"{value!r} is a float")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not a string")
            if type(item) not in _PLAIN:
                _refuse_floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_floats(item)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates, parse_float=_refuse_number, parse_constant=_refuse_number
)
