# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand, to test deploys of a broken release.

A JSON file `FAULTS` in the root of a release has any of these keys:

| key               | value   | effect                                                                 |
| ----------------- | ------- | ---------------------------------------------------------------------- |
| import_error      | text    | importing the app raises RuntimeError(text)                            |
| boot_seconds      | seconds | importing the app takes this long                                      |
| healthy_seconds   | seconds | this long after the import, every request is answered 500              |
| latency_seconds   | seconds | every request takes this much longer                                   |
| leak_kib          | KiB     | every request leaks this much memory                                   |
| exit_seconds      | seconds | this long after the import, the worker exits with status 70            |

Example: {"boot_seconds": 5, "healthy_seconds": 20}. Without the file there are no faults.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

from flask import Flask, abort
from panel_store import paths

_KNOWN = {"import_error", "boot_seconds", "healthy_seconds", "latency_seconds", "leak_kib", "exit_seconds"}
_leaked: list[bytes] = []


def _read() -> dict[str, Any]:
    try:
        wanted: dict[str, Any] = json.loads((paths.RELEASE / "FAULTS").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    unknown = sorted(set(wanted) - _KNOWN)
    if unknown:
        raise ValueError(f"FAULTS: {', '.join(unknown)}: unknown; expected {', '.join(sorted(_KNOWN))}.")
    return wanted


def at_import() -> None:
    """Delay the import or raise an error, as `FAULTS` says."""
    wanted = _read()
    time.sleep(wanted.get("boot_seconds", 0))
    if "import_error" in wanted:
        raise RuntimeError(wanted["import_error"])


def at_requests(app: Flask) -> None:
    """Make requests of `app` fail, take longer or leak memory, as `FAULTS` says."""
    wanted = _read()
    if not wanted:
        return
    born = time.monotonic()
    if "exit_seconds" in wanted:
        timer = threading.Timer(wanted["exit_seconds"], os._exit, (70,))
        timer.daemon = True
        timer.start()

    @app.before_request
    def misbehave() -> None:
        time.sleep(wanted.get("latency_seconds", 0))
        if "leak_kib" in wanted:
            _leaked.append(os.urandom(1024) * int(wanted["leak_kib"]))
        if time.monotonic() - born > wanted.get("healthy_seconds", float("inf")):
            abort(500, "FAULTS: healthy_seconds is over.")
