# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Back up and restore PostgreSQL databases."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..archive.manifest import SourceRecord
from ..archive.writer import Writer
from ..errors import BackupError
from ..programs import ProgramError, run, stream
from .source import CANARY, check_loaded, record_absence, was_absent

POSTGRESQL = "postgresql"
#: The database for queries about the whole server.
_SERVER = "postgres"
_JOBS = 4  # connections of pg_restore
_LOCK_WAIT = 60  # seconds that pg_dump waits for the lock of a table
# The rows of each table, without those of tables that inherit from it. A partitioned table has the rows of all its
# partitions, because a dump may load them through their root; a root is its own root. Tables of an extension
# have no number: their rows belong to the extension.
_COUNT = """
SELECT coalesce(json_object_agg(name, json_build_object('rows', rows, 'root', root, 'leaf', leaf)), '{}')
FROM (SELECT name, root, leaf,
             CASE WHEN NOT extension
                  THEN (xpath('/row/n/text()', query_to_xml(query, false, true, '')))[1]::text::bigint END AS rows
      FROM (SELECT names.name, root, leaf, extension,
                   'SELECT count(*) AS n FROM ' || CASE WHEN leaf THEN 'ONLY ' ELSE '' END || names.name AS query
            FROM (SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind = 'r' AS leaf,
                         (SELECT format('%I.%I', rn.nspname, rc.relname)
                          FROM pg_class rc JOIN pg_namespace rn ON rn.oid = rc.relnamespace
                          WHERE rc.oid = pg_partition_root(c.oid)) AS root,
                         EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                 AND d.deptype = 'e') AS extension
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
                        AND n.nspname NOT IN ('pg_catalog', 'information_schema')) AS names) AS queries) AS counts;
"""
# The line before the rows of a table in the output of pg_restore. Each row is counted by the line end before it.
_COPY = re.compile(
    rb'\nCOPY ((?:"(?:[^"]|"")+"|[^" .]+)\.(?:"(?:[^"]|"")+"|[^" ]+)) (?:\((?:"(?:[^"]|"")+"|[^"\n)])*\))? ?'
    rb"FROM stdin;(?=\n)"
)
_COPIED = b"\n\\.\n"
# A write to a table runs the triggers of its owner with the rights of the writer. So the table belongs to the backup
# user; the owner of the database has access, because it may make backups, too. A restored table belongs to the owner of
# the database, who may also have created one: such a table is replaced.
_WRITE_CANARY = """
DO $canary$
BEGIN
  IF {owner} <> current_user AND EXISTS (
    SELECT FROM pg_namespace WHERE nspname = '{canary}' AND pg_get_userbyid(nspowner) <> current_user
  ) THEN
    DROP SCHEMA {canary} CASCADE;
  END IF;
  IF to_regclass('{canary}.{canary}') IS NULL THEN
    CREATE SCHEMA {canary};
    CREATE TABLE {canary}.{canary} (id text NOT NULL);
    EXECUTE format('GRANT USAGE ON SCHEMA {canary} TO %I', {owner});
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON {canary}.{canary} TO %I', {owner});
  END IF;
END $canary$;
DELETE FROM {canary}.{canary};
INSERT INTO {canary}.{canary} (id) VALUES ({word});
"""
_DISCONNECT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pg_has_role(usesysid, 'MEMBER') AND datname = {};"
)
# As JSON, because the columns differ between versions.
_DESCRIBE = (
    "SELECT to_jsonb(d) || jsonb_build_object('encoding', pg_encoding_to_char(d.encoding)) FROM pg_database d "
    "WHERE datname = {};"
)
# Copies the settings and privileges of a database, which pg_restore restores only under the same name. Each value is
# set in this session, and then taken FROM CURRENT, so that it need not be quoted again. It runs as the owner, who may
# grant what others may not.
_COPY_SETTINGS = """
SET ROLE {owner};
DO $copy$
DECLARE one record; command text;
BEGIN
  FOR one IN
    SELECT r.rolname AS role, split_part(setting, '=', 1) AS key, substr(setting, strpos(setting, '=') + 1) AS value
    FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid LEFT JOIN pg_roles r ON r.oid = s.setrole,
         unnest(s.setconfig) AS setting
    WHERE d.datname = {present}
  LOOP
    BEGIN
      command := CASE WHEN one.role IS NULL THEN format('ALTER DATABASE %I SET %I FROM CURRENT', {loaded}, one.key)
                      ELSE format('ALTER ROLE %I IN DATABASE %I SET %I FROM CURRENT', one.role, {loaded}, one.key) END;
      PERFORM set_config(one.key, one.value, true);
      EXECUTE command;
      PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE EXCEPTION '% has the setting % for %, which % may not give: reset it, and set it again after the restore',
                      {present}, one.key, coalesce(one.role, 'everybody'), current_user;
    END;
  END LOOP;
  FOR one IN
    SELECT a.privilege_type AS privilege, coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee,
           CASE WHEN a.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END AS more
    FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
         LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE d.datname = {present} AND a.grantee <> d.datdba
  LOOP
    EXECUTE format('GRANT %s ON DATABASE %I TO %s %s', one.privilege, {loaded}, one.grantee, one.more);
  END LOOP;
END $copy$;
"""
# Set by pg_restore since version 17, for servers of any version: https://www.postgresql.org/docs/17/release-17.html
_NEW_SETTING = "transaction_timeout"
_UNKNOWN_SETTING = re.compile(rf"^pg_restore: error: .*\nCommand was: SET {_NEW_SETTING} = 0;$", re.MULTILINE)
_COMPLETED = re.compile(r"^pg_restore: warning: errors ignored on restore: [0-9]+\s*\Z", re.MULTILINE)
# These override what a database sets for its app: notices and time limits do not disturb a backup, and no function of a
# user runs in place of one of the server with the same name.
_OPTIONS = (
    "client_min_messages=warning",
    "statement_timeout=0",
    "default_transaction_read_only=off",
    "search_path=pg_catalog",
)
_PSQL = ("psql", "--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")


@dataclass(frozen=True)
class Postgresql:
    """A database on a PostgreSQL server, dumped by pg_dump in its custom format.

    Rows are counted in the dump. A session that counted them beside pg_dump would hold a lock on each table. A client
    that alters one would wait for that session, and pg_dump would wait for the client: a deadlock.
    https://www.postgresql.org/docs/current/app-pgdump.html

    :param user: role that can read everything; for restores it must be able to create databases, and be a member of the
        owner.
    :param owner: role that owns the database and its content; empty for the user.
    :param host: folder of a socket, or host name; empty for Debian's folder.
    :param passfile: password file of libpq; empty if the server asks for no password.
    :param ca: CA certificate of the server; TLS is then required, and the server's name is verified. Empty to use TLS
        only if the server offers it.
    """

    name: str
    database: str
    user: str
    owner: str = ""
    host: str = ""
    port: int = 5432
    passfile: Path | None = None
    ca: Path | None = None

    kind = POSTGRESQL
    folder = ""
    optional = False
    is_database = True
    in_place = True

    def size(self) -> int:
        """Return the size according to the server; a dump has no indexes, and is smaller."""
        return int(self._query(self.database, "SELECT pg_database_size(current_database());"))

    def write_canary(self, canary: str) -> None:
        """Write the canary into a table in a schema of its own, which the owner can read and write, too."""
        owner = self.owner or self.user
        self._query(
            self.database, _WRITE_CANARY.format(canary=CANARY, word=_quote_text(canary), owner=_quote_text(owner))
        )

    def add(self, out: Writer, scratch: Path) -> SourceRecord:
        """Dump the database, read the dump to its end, and count its rows."""
        member = f"{POSTGRESQL}/{self.name}.dump"
        env = self._env(self.database)
        with tempfile.TemporaryFile(dir=scratch) as spool:
            # Not compressed: the archive is.
            options = ["--format=custom", "--compress=0", "--no-password", f"--lock-wait-timeout={_LOCK_WAIT * 1000}"]
            run(["pg_dump", *options], env, stdout=spool)
            with contextlib.closing(stream(["pg_restore", "--data-only", "--file=-"], env, stdin=spool)) as text:
                rows = count_rows(text)
            spool.seek(0)
            out.file(member, spool.fileno())
        return SourceRecord(POSTGRESQL, self.name, member, run(["pg_dump", "--version"], env).strip(), rows)

    def exists(self) -> bool:
        """Tell whether the server has the database."""
        return self._exists(self.database)

    def staging_folder(self, default: Path) -> Path:
        """Return the default: a dump can be loaded from any folder."""
        return default

    def load(self, record: SourceRecord, staging: Path) -> None:
        """Load the dump into the scratch database, run ANALYZE, and compare rows and canary."""
        if self._exists(self._kept):
            raise BackupError(
                f"{self.name}: the database {self._kept} exists already, but the live one would be kept under this "
                "name: check what it is, and drop it"
            )
        self.discard_loaded()
        owner = _quote_name(self.owner or self.user)
        self._query(
            _SERVER,
            f"CREATE DATABASE {_quote_name(self.scratch)} OWNER {owner} TEMPLATE template0 {self._locale_options()};",
        )
        self._query(_SERVER, f"REVOKE ALL ON DATABASE {_quote_name(self.scratch)} FROM PUBLIC;")
        self._restore(staging / record.member)
        copy_settings = _COPY_SETTINGS.format(
            owner=owner, present=_quote_text(self.database), loaded=_quote_text(self.scratch)
        )
        self._query(self.scratch, copy_settings)
        self._query(self.scratch, "ANALYZE;")
        counted = json.loads(self._query(self.scratch, _COUNT))
        dumped, rows = comparable(record.rows, counted)
        canary = self._query(self.scratch, f"SELECT id FROM {CANARY}.{CANARY};") if record.canary else ""  # noqa: S608 (a constant)
        check_loaded(self.name, replace(record, rows=dumped), rows, canary)

    def swap(self, staging: Path) -> None:
        """Swap the names of the two databases, in one transaction."""
        if self.exists():
            self._rename((self.database, self._kept), (self.scratch, self.database))
        else:
            record_absence(self.name, staging)
            self._rename((self.scratch, self.database))

    def swap_back(self, staging: Path) -> list[str]:
        """Swap the names back, if they were swapped."""
        if self._exists(self._kept):
            loaded = [(self.database, self.scratch)] if self.exists() else []
            self._rename(*loaded, (self._kept, self.database))
        elif was_absent(self.name, staging) and self.exists():
            self._rename((self.database, self.scratch))
        return []

    def discard_previous(self) -> None:
        """Drop the previous database."""
        self._remove(self._kept)

    def discard_loaded(self) -> None:
        """Drop the scratch database."""
        self._remove(self.scratch)

    @property
    def scratch(self) -> str:
        """Name of the scratch database, which `load` fills."""
        return f"{self.database}_scratch"

    @property
    def _kept(self) -> str:
        return f"{self.database}_before"

    def _restore(self, dump: Path) -> None:
        options = ["--no-owner", f"--role={self.owner or self.user}", "--no-password", f"--dbname={self.scratch}"]
        options += [f"--jobs={min(os.cpu_count() or 1, _JOBS)}"]
        # A remote server may be older than the programs on this host.
        known = self._query(_SERVER, f"SELECT 1 FROM pg_settings WHERE name = '{_NEW_SETTING}';")  # noqa: S608 (a constant)
        options += ["--exit-on-error"] if known else []
        try:
            run(["pg_restore", *options, str(dump)], self._env(self.scratch))
        except ProgramError as error:
            if known or error.code != 1 or not only_new_setting(error.stderr):
                raise

    def _rename(self, *names: tuple[str, str]) -> None:
        for name, _role in names:
            self._disconnect(name)
        # Statements that are sent together are one transaction.
        self._query(
            _SERVER, " ".join(f"ALTER DATABASE {_quote_name(old)} RENAME TO {_quote_name(new)};" for old, new in names)
        )

    def _remove(self, name: str) -> None:
        if self._exists(name):
            # Without FORCE, which fails while autovacuum runs in the database; the server ends autovacuum itself.
            self._disconnect(name)
            self._query(_SERVER, f"DROP DATABASE {_quote_name(name)};")

    def _disconnect(self, name: str) -> None:
        # If a session may not be terminated, the next statement fails, and the server names the session.
        self._query(_SERVER, _DISCONNECT.format(_quote_text(name)))

    def _exists(self, name: str) -> bool:
        return bool(self._query(_SERVER, f"SELECT 1 FROM pg_database WHERE datname = {_quote_text(name)};"))  # noqa: S608 (quoted)

    def _locale_options(self) -> str:
        """Return the options for the encoding and locale of the live database, so that the loaded one sorts alike."""
        found = self._query(_SERVER, _DESCRIBE.format(_quote_text(self.database)))
        if not found:
            return "ENCODING 'UTF8'"
        like = json.loads(found)
        options = f"ENCODING {_quote_text(like['encoding'])}"
        options += f" LC_COLLATE {_quote_text(like['datcollate'])} LC_CTYPE {_quote_text(like['datctype'])}"
        if like.get("datlocprovider") == "i":
            options += (
                f" LOCALE_PROVIDER icu ICU_LOCALE {_quote_text(like.get('datlocale') or like.get('daticulocale'))}"
            )
        return options

    def _query(self, database: str, query: str) -> str:
        return run([*_PSQL, "--command", query], self._env(database)).strip()

    def _env(self, database: str) -> dict[str, str]:
        # In the environment, where all programs of libpq find it.
        env = {"PGDATABASE": database, "PGUSER": self.user, "PGPORT": str(self.port), "PGCONNECT_TIMEOUT": "10"}
        env |= {"PGOPTIONS": " ".join(f"-c {option}" for option in _OPTIONS)}
        env |= {"PGHOST": self.host} if self.host else {}
        env |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(self.ca)} if self.ca else {}
        return env | ({"PGPASSFILE": str(self.passfile)} if self.passfile else {})


def only_new_setting(stderr: str) -> bool:
    """Tell whether pg_restore completed, and its only errors are about the setting that an older server lacks."""
    rest, count = _UNKNOWN_SETTING.subn("", stderr)
    return count > 0 and "pg_restore: error: " not in rest and _COMPLETED.search(stderr) is not None


def count_rows(text: Iterable[bytes]) -> dict[str, int]:
    """Return the number of rows by table, from the output of pg_restore for the data of a dump.

    :param text: the output, in pieces of any size.
    :raises BackupError: it ends within a table.
    """
    rows: dict[str, int] = {}
    table, rest = "", b"\n"
    for piece in text:
        rest += piece
        while True:
            if not table:
                found = _COPY.search(rest)
                if found is None:
                    # The last line may be the incomplete beginning of a table.
                    rest = rest[rest.rfind(b"\n") :]
                    break
                table = found[1].decode("utf-8", "replace")
                rows.setdefault(table, 0)
                rest = rest[found.end() :]
            end = rest.find(_COPIED)
            if end < 0:
                last = rest.rfind(b"\n")
                rows[table] += rest.count(b"\n", 0, last)
                rest = rest[last:]
                if len(rest) >= len(_COPIED):
                    # Long enough to be a row, not the end of the table: its content need not be kept.
                    rest = b"\nrow"
                break
            rows[table] += rest.count(b"\n", 0, end)
            table, rest = "", rest[end + len(_COPIED) - 1 :]
    if table:
        raise BackupError(f"the dump is truncated: it ends in the middle of {table}; try again")
    return rows


def comparable(
    before: Mapping[str, int], counted: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of rows in the dump and in the loaded database, of the tables that can be compared.

    :param before: from `count_rows`.
    :param counted: from the server, by table: its ``rows``, null if they belong to an extension; the ``root`` that it
        is a partition of, or null; and whether it is a ``leaf``, with rows of its own.
    """
    names = {name: _plain(name) for name in counted}
    dumped = {_plain(name): rows for name, rows in before.items()}
    of_extensions = {names[name] for name, found in counted.items() if found["rows"] is None}
    loaded = {}
    for name, found in counted.items():
        root = _plain(found["root"]) if found["root"] else ""
        # If the dump loads the rows through the root, compare those of the root; otherwise those of each leaf.
        counts = names[name] == root if root in dumped else found["leaf"]
        if counts and found["rows"] is not None:
            loaded[names[name]] = int(found["rows"])
    return {name: rows for name, rows in dumped.items() if name not in of_extensions}, loaded


def _plain(name: str) -> str:
    """Return a name without quotes: which names need them differs between versions."""
    return re.sub(r'"((?:[^"]|"")*)"', lambda found: found[1].replace('""', '"'), name)


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quote_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
