# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Endpoints that are slow, stream or fail, to test a proxy, draining and rollback."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Blueprint, Response, abort, jsonify, request

blueprint = Blueprint("trials", __name__)
LONGEST = 300.0
LARGEST = 1024 * 1024
LOWEST_ERROR, HIGHEST_ERROR = 400, 599


def _number(name: str, default: float, highest: float) -> float:
    text = request.args.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= highest:  # The comparison is false for NaN too.
        abort(400, f"{name}: {text[:40]!r}: expected a number from 0 to {highest:g}.")
    return value


@blueprint.get("/slow")
def slow() -> Response:
    """Answer after `?seconds=` (default 1)."""
    seconds = _number("seconds", 1, LONGEST)
    time.sleep(seconds)
    return jsonify(slept=seconds)


@blueprint.get("/stream")
def stream() -> Response:
    """Send `?chunk=` (default 1024) bytes ten times a second for `?seconds=` (default 1); the last line is `end`."""
    seconds, size = _number("seconds", 1, LONGEST), int(_number("chunk", 1024, LARGEST))

    def chunks() -> Iterator[bytes]:
        for number in range(max(1, round(seconds * 10))):
            yield f"{number} ".encode().ljust(size, b".") + b"\n"
            time.sleep(0.1)
        yield b"end\n"

    return Response(chunks(), mimetype="text/plain", headers={"Cache-Control": "no-store"})


@blueprint.get("/api/fail")
def fail() -> tuple[Response, int]:
    """Fail with `?status=` (default 500)."""
    status = request.args.get("status", 500, int)
    if not LOWEST_ERROR <= status <= HIGHEST_ERROR:
        abort(400, f"status: {status}: expected a number from {LOWEST_ERROR} to {HIGHEST_ERROR}.")
    return jsonify(error="on demand", status=status), status
