#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Visit pages again and again, half of the time on a connection that is kept, until standard input closes.

Prints a JSON line whenever the answer of a page changes: `at` (CLOCK_BOOTTIME in seconds, the same in all containers of
a machine), `path`, `status` (0: no answer, with `why`), `release`, `slot`. The last line has `visits` and `failed`:
answers of 400 and above, and no answer. The exit status is 1 if any visit failed. Standard library only.

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
ERROR = 400


class Visitor:
    """Visits pages on one address, with new connections and with one that is kept."""

    def __init__(self, url: str, host: str) -> None:
        """Remember the address; the first visit connects."""
        self._address, self._host = urlsplit(url).netloc, host
        self._kept = self._connect()

    def visit(self, path: str, *, fresh: bool) -> dict[str, Any]:
        """Visit a page once, and return the answer."""
        connection = self._connect() if fresh else self._kept
        headers = {"Host": self._host, "Connection": "close" if fresh else "keep-alive"}
        try:
            connection.request("GET", path, headers=headers)
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


def report(value: dict[str, Any]) -> None:
    """Print an object on a line of its own, at once."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Visit until standard input closes; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="address to connect to: http://host[:port]")
    parser.add_argument("--host-header", required=True, help="value of the Host header")
    parser.add_argument("--path", action="append", required=True, help="path of a page; may be repeated")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two rounds (default: 0.05)")
    parser.add_argument("--fresh", action="store_true", help="use a new connection for each visit")
    options = parser.parse_args()
    ended = threading.Event()

    def wait_for_end_of_input() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=wait_for_end_of_input, daemon=True).start()
    visitor = Visitor(options.url, options.host_header)
    before: dict[str, dict[str, Any]] = {}
    rounds = visits = failed = 0
    while True:
        for path in options.path:
            answer = visitor.visit(path, fresh=options.fresh or bool(rounds % 2))
            visits += 1
            failed += not 0 < answer["status"] < ERROR
            if answer != before.get(path):
                report({"at": time.clock_gettime(time.CLOCK_BOOTTIME), "path": path, **answer})
            before[path] = answer
        rounds += 1
        if ended.wait(options.pause):
            break
    report({"visits": visits, "failed": failed})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
