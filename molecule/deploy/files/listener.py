#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record every POST as one JSON line: the sender's address, the path, the content type and the body."""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Listener(BaseHTTPRequestHandler):
    """Accepts every POST."""

    file: Path

    def do_POST(self) -> None:
        """Record the request, and answer 204."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("utf-8", "replace")
        record = {"from": self.client_address[0], "path": self.path, "type": self.headers["Content-Type"], "body": body}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        self.send_response(204)
        self.end_headers()


def main() -> None:
    """Listen until the process is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True)
    options = parser.parse_args()
    options.file.touch()
    Listener.file = options.file
    ThreadingHTTPServer(("", options.port), Listener).serve_forever()


if __name__ == "__main__":
    main()
