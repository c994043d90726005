# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Back up and restore MySQL and MariaDB databases."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..._host import durable
from ..archive.manifest import SourceRecord
from ..archive.writer import Writer
from ..errors import BackupError
from ..programs import run
from .source import CANARY, check_loaded, kept_path, record_absence, was_absent

MYSQL = "mysql"
_CHUNK = 1 << 20  # bytes
_NAME_MAX = 4 * 64 + 64  # bytes of the beginning of a line that names a table
_TRAILER = re.compile(rb"\n-- Dump completed(?: on [0-9: -]+)?\n\Z")
_TRAILER_ROOM = 256  # bytes at the end of a dump
# MariaDB's dumps have one row per line since version 10.7; line ends in values are escaped. Rows count only between
# LOCK TABLES and UNLOCK TABLES: lines of routines may look like rows.
_ROWS = re.compile(rb"\n(?:LOCK TABLES `((?:[^`]|``)+)` WRITE;|(\()|UNLOCK TABLES;)")
_TABLES = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() "
    "AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
)
_VERSIONED = f"{_TABLES} AND table_type = 'SYSTEM VERSIONED'"
_NOT_INNODB = f"{_TABLES} AND engine NOT IN ('InnoDB', 'SEQUENCE')"
_CHARSET = (
    "SELECT concat('CHARACTER SET ', default_character_set_name, ' COLLATE ', default_collation_name) "
    "FROM information_schema.schemata WHERE schema_name = {}"
)
_WRITE_CANARY = (
    "CREATE TABLE IF NOT EXISTS {0} (id varchar(64) NOT NULL PRIMARY KEY) ENGINE=InnoDB; "
    "START TRANSACTION; DELETE FROM {0}; INSERT INTO {0} (id) VALUES ({1}); COMMIT;"
)
_COUNT = "SELECT count(*) FROM {}"
_SIZE = (
    "SELECT coalesce(sum(data_length + index_length), 0) FROM information_schema.tables WHERE table_schema = DATABASE()"
)


@dataclass(frozen=True)
class Mysql:
    """A database on a MariaDB or MySQL server, dumped as SQL in one transaction.

    https://mariadb.com/kb/en/mariadb-dump/

    :param defaults_file: option file with user, password and socket, readable by root only.
    """

    name: str
    database: str
    defaults_file: Path

    kind = MYSQL
    folder = ""
    optional = False
    is_database = True
    in_place = True

    def size(self) -> int:
        """Return the size of data and indexes, according to the server."""
        return int(self._query(_SIZE, self.database))

    def write_canary(self, canary: str) -> None:
        """Write the canary into a table of its own."""
        self._query(_WRITE_CANARY.format(CANARY, _quote_text(canary)), self.database)

    def add(self, out: Writer, scratch: Path) -> SourceRecord:
        """Dump the database, check that the dump is complete, and count its rows."""
        if others := self._query(_NOT_INNODB, self.database).split():
            out.warn(
                f"{self.name}: {', '.join(others)} may be inconsistent: without InnoDB, tables have no transactions",
                partial=True,
            )
        if others := self._query(_VERSIONED, self.database).split():
            out.warn(
                f"{self.name}: the dump has only the current rows of {', '.join(others)}, not their history",
                partial=True,
            )
        with tempfile.TemporaryFile(dir=scratch) as spool:
            tool = self._dump(spool)
            rows = _count(spool) if "MariaDB" in tool else {}
            spool.seek(0)
            member = self._member(Path())
            out.file(str(member), spool.fileno())
        return SourceRecord(MYSQL, self.name, str(member), tool, rows)

    def exists(self) -> bool:
        """Tell whether the server has the database."""
        return bool(self._charset())

    def staging_folder(self, default: Path) -> Path:
        """Return the default: a dump can be loaded from any folder."""
        return default

    def load(self, record: SourceRecord, staging: Path) -> None:
        """Load the dump into the scratch database, and compare rows and canary."""
        self._load(self._member(staging), self.scratch, self._charset())
        rows = self._rows()
        has_canary = record.canary and CANARY in rows
        canary = self._query(f"SELECT id FROM {CANARY}", self.scratch) if has_canary else ""  # noqa: S608 (a constant)
        # The rows in dumps of MySQL cannot be counted.
        check_loaded(self.name, record, rows if "MariaDB" in record.tool else record.rows, canary)

    def swap(self, staging: Path) -> None:
        """Dump the live database, and load the backup into its place: these servers cannot rename a database."""
        if self.exists():
            self._keep(staging)
        else:
            record_absence(self.name, staging)
        self._load(self._member(staging), self.database, self._charset())

    def swap_back(self, staging: Path) -> list[str]:
        """Load the dump of the previous database."""
        if self._kept(staging).exists():
            # From the file: the database may be gone, so the server cannot be asked.
            charset = self._kept_charset(staging).read_text(encoding="utf-8")
            self._load(self._kept(staging), self.database, charset)
        elif was_absent(self.name, staging):
            self._query(f"DROP DATABASE IF EXISTS {_quote_name(self.database)}")
        return []

    def discard_previous(self) -> None:
        """Do nothing: the dump is in the staging folder."""

    def discard_loaded(self) -> None:
        """Drop the scratch database."""
        self._query(f"DROP DATABASE IF EXISTS {_quote_name(self.scratch)}")

    @property
    def scratch(self) -> str:
        """Name of the scratch database, which `load` fills."""
        return f"{self.database}_scratch"

    def _member(self, staging: Path) -> Path:
        return staging / MYSQL / f"{self.name}.sql"

    def _kept(self, staging: Path) -> Path:
        return kept_path(staging, f"{self.name}.sql")

    def _kept_charset(self, staging: Path) -> Path:
        return kept_path(staging, f"{self.name}.charset")

    def _keep(self, staging: Path) -> None:
        durable.write(self._kept_charset(staging), self._charset())
        unfinished = kept_path(staging, f"{self.name}.new")
        with unfinished.open("w+b") as dump:
            self._dump(dump)
            os.fsync(dump.fileno())
        unfinished.rename(self._kept(staging))
        durable.sync(unfinished.parent)

    def _dump(self, out: BinaryIO) -> str:
        """Dump the live database; return the dump program with its version."""
        dump = _program("mariadb-dump", "mysqldump")
        options = ["--single-transaction", "--quick", "--routines", "--events", "--triggers", "--no-tablespaces"]
        run([dump, self._defaults, *options, "--default-character-set=utf8mb4", self.database], {}, stdout=out)
        if not _is_complete(out):
            raise BackupError(
                f"{self.name}: the dump of {self.database} is incomplete: its last line is missing; try again"
            )
        return run([dump, "--version"], {}).strip()

    def _load(self, file: Path, database: str, charset: str) -> None:
        """Create a database anew, and load a dump into it.

        :param charset: from `_charset`.
        """
        like = charset or "CHARACTER SET utf8mb4"
        self._query(f"DROP DATABASE IF EXISTS {_quote_name(database)}; CREATE DATABASE {_quote_name(database)} {like}")
        with file.open("rb") as dump:
            client = [_program("mariadb", "mysql"), self._defaults, "--batch", "--binary-mode"]
            run([*client, "--default-character-set=utf8mb4", database], {}, stdin=dump)

    def _charset(self) -> str:
        """Return the character set and collation of the live database; empty if it does not exist."""
        return self._query(_CHARSET.format(_quote_text(self.database)))

    def _rows(self) -> dict[str, int]:
        """Return the number of rows by table of the scratch database."""
        tables = self._query(_TABLES, self.scratch).splitlines()
        with tempfile.TemporaryFile() as queries:
            # One client for all queries, which may be too many for its arguments.
            queries.write("".join(f"{_COUNT.format(_quote_name(table))};\n" for table in tables).encode("utf-8"))
            counts = run([*self._client, self.scratch], {}, stdin=queries).split()
        return dict(zip(tables, map(int, counts), strict=True))

    def _query(self, query: str, database: str = "") -> str:
        return run([*self._client, "-e", query, *([database] if database else [])], {}).strip()

    @property
    def _client(self) -> list[str]:
        return [_program("mariadb", "mysql"), self._defaults, "--batch", "--skip-column-names"]

    @property
    def _defaults(self) -> str:
        # The client accepts this as its first argument only.
        return f"--defaults-file={self.defaults_file}"


def _program(*names: str) -> str:
    return next((name for name in names if shutil.which(name)), names[0])


def _is_complete(spool: BinaryIO) -> bool:
    size = spool.seek(0, os.SEEK_END)
    spool.seek(max(size - _TRAILER_ROOM, 0))
    return _TRAILER.search(spool.read()) is not None


def _count(spool: BinaryIO) -> dict[str, int]:
    """Return the number of rows of each table that is not empty, from the lines of the dump."""
    rows: dict[str, int] = {}
    table = ""
    for piece in _pieces(spool):
        for found in _ROWS.finditer(piece):
            if found[1] is not None:
                table = found[1].replace(b"``", b"`").decode("utf-8", "replace")
            elif found[2] is None:
                # Until the next table, lines may be of routines and look like rows.
                table = ""
            elif table:
                rows[table] = rows.get(table, 0) + 1
    return rows


def _pieces(spool: BinaryIO) -> Iterator[bytes]:
    """Yield a file in pieces that begin with a line end; the beginning of a line, with its table, is never split."""
    spool.seek(0)
    rest = b"\n"
    while data := spool.read(_CHUNK):
        data = rest + data
        # Keep the beginning of the last line, if it may be incomplete, for the next piece.
        cut = data.rfind(b"\n", len(data) - _NAME_MAX)
        cut = len(data) if cut < 0 else cut
        yield data[:cut]
        rest = data[cut:]
    yield rest


def _quote_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _quote_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
