# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""JSON of which there is one way only to write each value: what is signed can be compared byte by byte.

Keys are sorted; no blanks, no characters but ASCII's, no numbers but whole ones. (RFC 8785 has floats and sorts by
UTF-16: not needed here, and hard to get right.)
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..errors import NotAuthenticError

_PLAIN = frozenset((str, int, bool, type(None)))
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def encode(value: object) -> bytes:
    """Write a value down.

    :raises ValueError: it holds a float, which has more than one way.
    """
    _refuse_floats(value)
    return _ENCODER.encode(value).encode("ascii")


def decode(data: bytes) -> Any:  # noqa: ANN401 (as json.loads has it)
    """Read a value, which has to be written down in the one way.

    :raises NotAuthenticError: it is not: another tool wrote it, or somebody who hoped for two readings.
    """
    try:
        value = _DECODER.decode(data.decode("ascii"))
        same = encode(value) == data
    except (ValueError, RecursionError) as error:
        raise NotAuthenticError(f"this is not canonical JSON: {error}") from None
    if not same:
        raise NotAuthenticError("this is JSON, but not written in the canonical way")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no(text: str) -> NoReturn:
    raise ValueError(f"{text} is no whole number")


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise ValueError(f"{value!r} is a float")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no text")
            if type(item) not in _PLAIN:
                _refuse_floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_floats(item)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_no, parse_constant=_no)
