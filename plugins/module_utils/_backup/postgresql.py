# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import BackupError
from .manifest import Source
from .programs import Session, run
from .writer import Writer

POSTGRESQL = "postgresql"
# All in one statement, and so in one snapshot even where nobody began a transaction.
_COUNT = """
SELECT coalesce(json_object_agg(name, rows), '{}')
FROM (SELECT name, (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || name, false, true, '')))[1]
             ::text::bigint AS rows
      FROM (SELECT format('%I.%I', n.nspname, c.relname) AS name
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema'))
           AS names) AS counts;
"""
_PSQL = ("psql", "--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")


@dataclass(frozen=True)
class Postgresql:
    """A database of a PostgreSQL server, dumped by pg_dump in its own format.

    Rows are counted in the very moment that the dump shows, by a session that exports its snapshot to pg_dump.
    https://www.postgresql.org/docs/current/app-pgdump.html

    :param host: a folder with a socket, or a name; empty for the folder of Debian.
    :param passfile: as libpq reads it; empty where the server asks for no password.
    """

    name: str
    database: str
    user: str
    host: str = ""
    port: int = 5432
    passfile: Path | None = None

    def size(self) -> int:
        """As the server says; what is dumped has no indexes and is smaller."""
        with Session(_PSQL, self._env, "\\echo {}") as session:
            return int(session.ask("SELECT pg_database_size(current_database());")[0])

    def add(self, out: Writer, scratch: Path) -> Source:
        """Dump it, see that the dump can be read, count its rows."""
        member = f"{POSTGRESQL}/{self.name}.dump"
        with tempfile.TemporaryFile(dir=scratch) as spool:
            with Session(_PSQL, self._env, "\\echo {}") as session:
                begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();"
                snapshot = session.ask(begin)[0]
                rows = {str(name): int(count) for name, count in json.loads("".join(session.ask(_COUNT))).items()}
                # Compressed with all the rest.
                options = ["--format=custom", "--compress=0", "--no-password", f"--snapshot={snapshot}"]
                run(["pg_dump", *options], self._env, stdout=spool)
            if ";" not in run(["pg_restore", "--list"], self._env, stdin=spool):
                raise BackupError(f"{self.name}: pg_restore finds nothing in the dump of {self.database}")
            spool.seek(0)
            out.file(member, spool.fileno())
        return Source(POSTGRESQL, self.name, member, run(["pg_dump", "--version"], self._env).strip(), rows)

    @property
    def _env(self) -> dict[str, str]:
        # In the environment rather than in arguments, where all programs of libpq find it.
        env = {"PGDATABASE": self.database, "PGUSER": self.user, "PGPORT": str(self.port), "PGCONNECT_TIMEOUT": "10"}
        env |= {"PGHOST": self.host} if self.host else {}
        return env | ({"PGPASSFILE": str(self.passfile)} if self.passfile else {})
