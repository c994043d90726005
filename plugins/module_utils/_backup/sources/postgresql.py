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

from ..archive.manifest import Source
from ..archive.writer import Writer
from ..errors import BackupError
from ..programs import ProgramError, run, stream
from .source import CANARY, compare, note_absence, was_absent

POSTGRESQL = "postgresql"
#: Where one asks for things of the whole server.
_SERVER = "postgres"
_JOBS = 4  # connections that load
_LOCK_WAIT = 60  # seconds that pg_dump waits for who changes a table
# Of each table alone, without those that inherit from it. Of a partitioned one with all its partitions: pg_dump may
# load them through their root, which is its own one. Of what an extension has no rows are told: they are its own.
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
# How the rows of a table begin in what pg_restore prints of a dump; each row begins with the end of a line.
_COPY = re.compile(
    rb'\nCOPY ((?:"(?:[^"]|"")+"|[^" .]+)\.(?:"(?:[^"]|"")+"|[^" ]+)) (?:\((?:"(?:[^"]|"")+"|[^"\n)])*\))? ?'
    rb"FROM stdin;(?=\n)"
)
_COPIED = b"\n\\.\n"
# Whose table it is decides what is run when somebody writes to it, with the rights of who does. So it is ours; the
# owner, who may back the database up himself, is let in. Restores make it his, and he may have made it before.
_MARK = """
DO $mark$
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
END $mark$;
DELETE FROM {canary}.{canary};
INSERT INTO {canary}.{canary} (id) VALUES ({word});
"""
_DISCONNECT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pg_has_role(usesysid, 'MEMBER') AND datname = {};"
)
# As JSON, because the columns are not the same in all versions.
_DESCRIBE = (
    "SELECT to_jsonb(d) || jsonb_build_object('encoding', pg_encoding_to_char(d.encoding)) FROM pg_database d "
    "WHERE datname = {};"
)
# What belongs to a database, and pg_restore brings only to one of the same name. Each value is set here and then taken
# from here, so that it need not be quoted again; by the owner, who may give himself what others may not.
_CARRY = """
SET ROLE {owner};
DO $carry$
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
    SELECT a.privilege_type AS privilege, coalesce(quote_ident(r.rolname), 'PUBLIC') AS who,
           CASE WHEN a.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END AS more
    FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
         LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE d.datname = {present} AND a.grantee <> d.datdba
  LOOP
    EXECUTE format('GRANT %s ON DATABASE %I TO %s %s', one.privilege, {loaded}, one.who, one.more);
  END LOOP;
END $carry$;
"""
# pg_restore sets this since version 17, of whatever server: https://www.postgresql.org/docs/17/release-17.html
_NEW_SETTING = "transaction_timeout"
_NOT_KNOWN = re.compile(rf"^pg_restore: error: .*\nCommand was: SET {_NEW_SETTING} = 0;$", re.MULTILINE)
_AT_ITS_END = re.compile(r"^pg_restore: warning: errors ignored on restore: [0-9]+\s*\Z", re.MULTILINE)
# What we ask for is no news, and takes its time, whatever a database sets for its app; and nobody has us call functions
# of his own by the names of the server's.
_OPTIONS = (
    "client_min_messages=warning",
    "statement_timeout=0",
    "default_transaction_read_only=off",
    "search_path=pg_catalog",
)
_PSQL = ("psql", "--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")


@dataclass(frozen=True)
class Postgresql:
    """A database of a PostgreSQL server, dumped by pg_dump in its own format.

    Rows are counted in the dump. A session that counts them beside pg_dump would have to hold each table, and whoever
    wants to change one meanwhile would wait for it, and pg_dump for him, for ever.
    https://www.postgresql.org/docs/current/app-pgdump.html

    :param user: has to be able to read all of it and, to bring it back, to create databases and to be a member of the
        owner.
    :param owner: role that owns the database and what is in it; empty for the user.
    :param host: a folder with a socket, or a name; empty for the folder of Debian.
    :param passfile: as libpq reads it; empty where the server asks for no password.
    :param ca: who vouches for the server, which has to use TLS then, and to prove its name; empty for TLS if it offers
        that.
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
        """As the server says; what is dumped has no indexes and is smaller."""
        return int(self._ask(self.database, "SELECT pg_database_size(current_database());"))

    def mark(self, canary: str) -> None:
        """Write the word into a table of a schema of its own, which the owner can read and write, too."""
        owner = self.owner or self.user
        self._ask(self.database, _MARK.format(canary=CANARY, word=_text(canary), owner=_text(owner)))

    def add(self, out: Writer, scratch: Path) -> Source:
        """Dump it, read the dump to its end, count its rows."""
        member = f"{POSTGRESQL}/{self.name}.dump"
        env = self._env(self.database)
        with tempfile.TemporaryFile(dir=scratch) as spool:
            # Compressed with all the rest.
            options = ["--format=custom", "--compress=0", "--no-password", f"--lock-wait-timeout={_LOCK_WAIT * 1000}"]
            run(["pg_dump", *options], env, stdout=spool)
            with contextlib.closing(stream(["pg_restore", "--data-only", "--file=-"], env, stdin=spool)) as text:
                rows = count_rows(text)
            spool.seek(0)
            out.file(member, spool.fileno())
        return Source(POSTGRESQL, self.name, member, run(["pg_dump", "--version"], env).strip(), rows)

    def present(self) -> bool:
        """Whether the server has it."""
        return self._exists(self.database)

    def staging(self, default: Path) -> Path:
        """Return any folder: it is loaded from there."""
        return default

    def load(self, source: Source, staging: Path) -> None:
        """Load it into another database, have the server analyze that, and compare."""
        if self._exists(self._kept):
            raise BackupError(
                f"{self.name}: there is a database {self._kept} already, and the present one would be kept there: look "
                "at it, and drop it"
            )
        self.drop()
        owner = _name(self.owner or self.user)
        self._ask(_SERVER, f"CREATE DATABASE {_name(self.scratch)} OWNER {owner} TEMPLATE template0 {self._like()};")
        self._ask(_SERVER, f"REVOKE ALL ON DATABASE {_name(self.scratch)} FROM PUBLIC;")
        self._restore(staging / source.member)
        carry = _CARRY.format(owner=owner, present=_text(self.database), loaded=_text(self.scratch))
        self._ask(self.scratch, carry)
        self._ask(self.scratch, "ANALYZE;")
        counted = json.loads(self._ask(self.scratch, _COUNT))
        ours, rows = comparable(source.rows, counted)
        canary = self._ask(self.scratch, f"SELECT id FROM {CANARY}.{CANARY};") if source.canary else ""  # noqa: S608 (ours)
        compare(self.name, replace(source, rows=ours), rows, canary)

    def swap(self, staging: Path) -> None:
        """Exchange the names of the two databases, in one transaction."""
        if self.present():
            self._rename((self.database, self._kept), (self.scratch, self.database))
        else:
            note_absence(self.name, staging)
            self._rename((self.scratch, self.database))

    def put_back(self, staging: Path) -> list[str]:
        """Exchange them again, if they were."""
        if self._exists(self._kept):
            loaded = [(self.database, self.scratch)] if self.present() else []
            self._rename(*loaded, (self._kept, self.database))
        elif was_absent(self.name, staging) and self.present():
            self._rename((self.database, self.scratch))
        return []

    def forget(self) -> None:
        """Remove the one that was there before."""
        self._remove(self._kept)

    def drop(self) -> None:
        """Remove the one that was loaded."""
        self._remove(self.scratch)

    @property
    def scratch(self) -> str:
        """Name of the database that it is loaded into."""
        return f"{self.database}_scratch"

    @property
    def _kept(self) -> str:
        return f"{self.database}_before"

    def _restore(self, dump: Path) -> None:
        options = ["--no-owner", f"--role={self.owner or self.user}", "--no-password", f"--dbname={self.scratch}"]
        options += [f"--jobs={min(os.cpu_count() or 1, _JOBS)}"]
        # A server elsewhere may be older than what there is to ask it with.
        knows = self._ask(_SERVER, f"SELECT 1 FROM pg_settings WHERE name = '{_NEW_SETTING}';")  # noqa: S608 (ours)
        options += ["--exit-on-error"] if knows else []
        try:
            run(["pg_restore", *options, str(dump)], self._env(self.scratch))
        except ProgramError as error:
            if knows or error.code != 1 or not only_new_setting(error.said):
                raise

    def _rename(self, *names: tuple[str, str]) -> None:
        for name, _ in names:
            self._disconnect(name)
        # Sent together they are one transaction.
        self._ask(_SERVER, " ".join(f"ALTER DATABASE {_name(old)} RENAME TO {_name(new)};" for old, new in names))

    def _remove(self, name: str) -> None:
        if self._exists(name):
            # FORCE fails beside autovacuum, whose processes are nobody's; without, the server ends these by itself.
            self._disconnect(name)
            self._ask(_SERVER, f"DROP DATABASE {_name(name)};")

    def _disconnect(self, name: str) -> None:
        # Whom we may not disconnect is named by the server, when it refuses what comes next.
        self._ask(_SERVER, _DISCONNECT.format(_text(name)))

    def _exists(self, name: str) -> bool:
        return bool(self._ask(_SERVER, f"SELECT 1 FROM pg_database WHERE datname = {_text(name)};"))  # noqa: S608 (quoted)

    def _like(self) -> str:
        """Encoding and locale of the present one, so that what is loaded sorts as it did."""
        found = self._ask(_SERVER, _DESCRIBE.format(_text(self.database)))
        if not found:
            return "ENCODING 'UTF8'"
        like = json.loads(found)
        options = f"ENCODING {_text(like['encoding'])}"
        options += f" LC_COLLATE {_text(like['datcollate'])} LC_CTYPE {_text(like['datctype'])}"
        if like.get("datlocprovider") == "i":
            options += f" LOCALE_PROVIDER icu ICU_LOCALE {_text(like.get('datlocale') or like.get('daticulocale'))}"
        return options

    def _ask(self, database: str, query: str) -> str:
        return run([*_PSQL, "--command", query], self._env(database)).strip()

    def _env(self, database: str) -> dict[str, str]:
        # In the environment rather than in arguments, where all programs of libpq find it.
        env = {"PGDATABASE": database, "PGUSER": self.user, "PGPORT": str(self.port), "PGCONNECT_TIMEOUT": "10"}
        env |= {"PGOPTIONS": " ".join(f"-c {option}" for option in _OPTIONS)}
        env |= {"PGHOST": self.host} if self.host else {}
        env |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(self.ca)} if self.ca else {}
        return env | ({"PGPASSFILE": str(self.passfile)} if self.passfile else {})


def only_new_setting(said: str) -> bool:
    """Whether pg_restore came to its end, and all it complained about is the setting that an older server lacks."""
    rest, count = _NOT_KNOWN.subn("", said)
    return count > 0 and "pg_restore: error: " not in rest and _AT_ITS_END.search(said) is not None


def count_rows(text: Iterable[bytes]) -> dict[str, int]:
    """Return the rows of each table, by the lines of what pg_restore prints of a dump's data.

    :param text: in pieces, wherever they are cut.
    :raises BackupError: it ends in the middle of a table.
    """
    rows: dict[str, int] = {}
    table, rest = "", b"\n"
    for piece in text:
        rest += piece
        while True:
            if not table:
                found = _COPY.search(rest)
                if found is None:
                    # A line that is not whole yet may be the beginning of one.
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
                    # A row, whatever is in it: it need not be kept.
                    rest = b"\nrow"
                break
            rows[table] += rest.count(b"\n", 0, end)
            table, rest = "", rest[end + len(_COPIED) - 1 :]
    if table:
        raise BackupError(f"the dump ends in the middle of {table}")
    return rows


def comparable(
    before: Mapping[str, int], counted: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the rows that there were, and those that there are, of those tables that both can tell of.

    :param before: as `count_rows` returns them.
    :param counted: by the server; of each table its ``rows``, null where they are an extension's, the ``root`` that it
        is a partition of, null for none, and whether it is a ``leaf``, with rows of its own.
    """
    names = {name: _plain(name) for name in counted}
    there_were = {_plain(name): rows for name, rows in before.items()}
    theirs = {names[name] for name, found in counted.items() if found["rows"] is None}
    there_are = {}
    for name, found in counted.items():
        root = _plain(found["root"]) if found["root"] else ""
        # Where the rows went in through the root, it is the root that tells.
        tells = names[name] == root if root in there_were else found["leaf"]
        if tells and found["rows"] is not None:
            there_are[names[name]] = int(found["rows"])
    return {name: rows for name, rows in there_were.items() if name not in theirs}, there_are


def _plain(name: str) -> str:
    """Return a name without quotes: which words need some is not the same in all versions."""
    return re.sub(r'"((?:[^"]|"")*)"', lambda found: found[1].replace('""', '"'), name)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
