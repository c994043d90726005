#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Visits a page again and again, half of the time on a connection that is kept, until standard input closes.

Prints a JSON line whenever the answer is another one than before: `at` (CLOCK_BOOTTIME, which all containers of a
machine share, in seconds), `status` (0: no answer, and `why`), `release`, `slot`; the last line has `visits` and
`failed`, which counts answers of 500 and above and none at all. Standard library only.

    visitor.py --url http://10.0.0.2 --host-header panel.test --path /version
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 10.0  # seconds
SERVER_ERROR = 500


class Visitor:
    """Asks on a fresh and on a kept connection in turns."""

    def __init__(self, url: str, host: str, path: str) -> None:
        """Keep what to ask for; connects at the first visit."""
        self._address, self._host, self._path = urlsplit(url).netloc, host, path
        self._kept = self._connect()

    def visit(self, *, fresh: bool) -> dict[str, Any]:
        """Ask once; returns what came."""
        connection = self._connect() if fresh else self._kept
        headers = {"Host": self._host, "Connection": "close" if fresh else "keep-alive"}
        try:
            connection.request("GET", self._path, headers=headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return {"status": 0, "why": f"{type(error).__name__}: {error}"}
        finally:
            if fresh:
                connection.close()
        return {"status": answer.status, "release": answer.headers["X-Release"], "slot": answer.headers["X-Slot"]}

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=TIMEOUT)


def say(value: dict[str, Any]) -> None:
    """Print an object on a line of its own, at once."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Visit until standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="where to connect: http://host[:port]")
    parser.add_argument("--host-header", required=True, help="the Host to ask for")
    parser.add_argument("--path", default="/version")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two visits (0.05)")
    options = parser.parse_args()
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    visitor = Visitor(options.url, options.host_header, options.path)
    before: dict[str, Any] = {}
    visits = failed = 0
    while not ended.wait(options.pause):
        came = visitor.visit(fresh=bool(visits % 2))
        visits += 1
        failed += not came["status"] or came["status"] >= SERVER_ERROR
        if came != before:
            say({"at": time.clock_gettime(time.CLOCK_BOOTTIME), **came})
        before = came
    say({"visits": visits, "failed": failed})


if __name__ == "__main__":
    main()
