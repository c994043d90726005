#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that a database server refuses attempts; fail if one is allowed, or refused with an unexpected message.

Reads JSON from standard input: "engine", "user", "password" and "database" of the account, "says" (a regular expression
for the message), and "attempts". Each attempt replaces any of these, or sets "sql" or "host" (an address, or the folder
of a socket).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable


def psql(attempt: dict[str, str]) -> list[str]:
    """Return the command line of PostgreSQL's client."""
    line = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
    line += [f"--host={attempt['host']}", f"--username={attempt['user']}", f"--dbname={attempt['database']}"]
    return [*line, f"--command={attempt['sql']}"]


def mariadb(attempt: dict[str, str]) -> list[str]:
    """Return the command line of MariaDB's client."""
    line = ["mariadb", "--no-defaults", "--batch", "--protocol=tcp", "--host=localhost", f"--user={attempt['user']}"]
    return [*line, f"--database={attempt['database']}", f"--execute={attempt['sql']}"]


CLIENTS: dict[str, tuple[Callable[[dict[str, str]], list[str]], str]] = {
    "postgresql": (psql, "PGPASSWORD"),
    "mysql": (mariadb, "MYSQL_PWD"),
}


def main() -> int:
    """Make each attempt, print those that were not refused as expected, and return the exit status."""
    given = json.load(sys.stdin)
    client, variable = CLIENTS[given["engine"]]
    defaults = {"host": "127.0.0.1", "sql": "SELECT 1", **given}
    wrong = 0
    for attempt in given["attempts"]:
        complete = {**defaults, **attempt}
        done = subprocess.run(
            client(complete),
            env={**os.environ, variable: complete["password"]},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 or not re.search(complete["says"], done.stderr):
            wrong += 1
            shown = {key: value for key, value in attempt.items() if key != "password"}
            sys.stdout.write(f"{shown}: status {done.returncode}: {done.stderr.strip()}\n")
    total = len(given["attempts"])
    sys.stdout.write(f"{total - wrong} of {total} attempts were refused as expected\n")
    return 1 if wrong or not total else 0


if __name__ == "__main__":
    sys.exit(main())
