#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move money between accounts until standard input closes; the sum is the same in every consistent copy.

Prints a JSON line with the number of `transactions` after the first hundred, and another one at the end.

usage: writer.py {postgresql DATABASE OWNER|mysql DATABASE|sqlite FILE}
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import threading
from typing import Any

ACCOUNTS, EACH = 50, 100
FIRST = 100  # transactions before the first line
PAUSE = 0.003  # seconds between two transactions


class Database:
    """A connection to a database, with the same methods for the three engines."""

    def __init__(self, engine: str, name: str, owner: str = "") -> None:
        module, options = {
            "postgresql": ("psycopg2", {"dbname": name}),
            "mysql": ("pymysql", {"unix_socket": "/run/mysqld/mysqld.sock", "user": "root", "database": name}),
            "sqlite": ("sqlite3", {"database": name, "timeout": 30}),
        }[engine]
        self._mark = "?" if engine == "sqlite" else "%s"
        self._connection: Any = importlib.import_module(module).connect(**options)
        self._cursor = self._connection.cursor()
        if owner:
            # The panel's tables belong to the role of its account.
            self.do(f"SET ROLE {owner}")

    def do(self, statement: str, *values: int) -> None:
        """Run a statement in the current transaction, or in a new one."""
        self._cursor.execute(statement.replace("?", self._mark), values)

    def commit(self) -> None:
        """Commit the transaction."""
        self._connection.commit()


def main() -> None:
    database = Database(*sys.argv[1:])
    for table in ("moves", "accounts"):
        database.do(f"DROP TABLE IF EXISTS {table}")
    database.do("CREATE TABLE accounts (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL)")
    database.do("CREATE TABLE moves (account INTEGER NOT NULL, amount INTEGER NOT NULL)")
    for number in range(ACCOUNTS):
        database.do("INSERT INTO accounts VALUES (?, ?)", number, EACH)
    database.commit()
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    count = 0
    while not ended.is_set():
        for account, amount in zip(random.sample(range(ACCOUNTS), 2), (-1, 1), strict=True):
            database.do("UPDATE accounts SET amount = amount + ? WHERE id = ?", amount, account)
            database.do("INSERT INTO moves VALUES (?, ?)", account, amount)
        database.commit()
        count += 1
        if count == FIRST:
            report(count)
        # Leave processor time to the backup and the panel.
        ended.wait(PAUSE)
    report(count)


def report(count: int) -> None:
    sys.stdout.write(json.dumps({"transactions": count}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
