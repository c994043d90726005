#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move money from account to account until the input closes: the sum is the same in every moment that a database shows.

usage: writer.py {postgresql DATABASE OWNER|mysql DATABASE|sqlite FILE}
"""

from __future__ import annotations

import importlib
import random
import sys
import threading
from typing import Any

ACCOUNTS, EACH = 50, 100
ENOUGH = 100  # transactions until somebody may look
PAUSE = 0.003  # seconds between two transactions


class Database:
    """A connection, to which the three engines' modules give the same methods."""

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
            # What the panel has belongs to its account.
            self.do(f"SET ROLE {owner}")

    def do(self, statement: str, *values: int) -> None:
        """Run a statement, in the transaction that it may begin."""
        self._cursor.execute(statement.replace("?", self._mark), values)

    def commit(self) -> None:
        """End the transaction."""
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
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    count = 0
    while not over.is_set():
        for account, amount in zip(random.sample(range(ACCOUNTS), 2), (-1, 1), strict=True):
            database.do("UPDATE accounts SET amount = amount + ? WHERE id = ?", amount, account)
            database.do("INSERT INTO moves VALUES (?, ?)", account, amount)
        database.commit()
        count += 1
        if count == ENOUGH:
            say("writing")
        # Leave processor time to the backup and to the panel.
        over.wait(PAUSE)
    say(str(count))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
