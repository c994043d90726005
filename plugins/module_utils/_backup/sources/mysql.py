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
from ..archive.manifest import Source
from ..archive.writer import Writer
from ..errors import BackupError
from ..programs import run
from .source import CANARY, compare, kept, note_absence, was_absent

MYSQL = "mysql"
_CHUNK = 1 << 20  # bytes
_NAME_MAX = 4 * 64 + 64  # bytes that a line may need until one knows which table it is about
_TRAILER = re.compile(rb"\n-- Dump completed(?: on [0-9: -]+)?\n\Z")
_TRAILER_ROOM = 256  # bytes at the end of a dump
# One row a line, since MariaDB 10.7; in a value a line's end is written as two characters.
# What looks like one outside of what a table has locked is a routine's.
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
_MARK = (
    "CREATE TABLE IF NOT EXISTS {0} (id varchar(64) NOT NULL PRIMARY KEY) ENGINE=InnoDB; "
    "START TRANSACTION; DELETE FROM {0}; INSERT INTO {0} (id) VALUES ({1}); COMMIT;"
)
_COUNT = "SELECT count(*) FROM {}"
_SIZE = (
    "SELECT coalesce(sum(data_length + index_length), 0) FROM information_schema.tables WHERE table_schema = DATABASE()"
)


@dataclass(frozen=True)
class Mysql:
    """A database of a MariaDB or MySQL server, dumped as SQL in one transaction.

    https://mariadb.com/kb/en/mariadb-dump/

    :param defaults_file: an option file with user, password and socket, which only root can read.
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
        """As the server says."""
        return int(self._ask(_SIZE, self.database))

    def mark(self, canary: str) -> None:
        """Write the word into a table of its own."""
        self._ask(_MARK.format(CANARY, _text(canary)), self.database)

    def add(self, out: Writer, scratch: Path) -> Source:
        """Dump it, see that the dump is whole, count its rows."""
        if others := self._ask(_NOT_INNODB, self.database).split():
            out.warn(
                f"{self.name}: {', '.join(others)} may be torn: they are not InnoDB, so no transaction keeps them",
                partial=True,
            )
        if others := self._ask(_VERSIONED, self.database).split():
            out.warn(f"{self.name}: of {', '.join(others)} the dump has no history, only what is now", partial=True)
        with tempfile.TemporaryFile(dir=scratch) as spool:
            tool = self._dump(spool)
            rows = _count(spool) if "MariaDB" in tool else {}
            spool.seek(0)
            member = self._member(Path())
            out.file(str(member), spool.fileno())
        return Source(MYSQL, self.name, str(member), tool, rows)

    def present(self) -> bool:
        """Whether the server has it."""
        return bool(self._charset())

    def staging(self, default: Path) -> Path:
        """Return any folder: it is loaded from there."""
        return default

    def load(self, source: Source, staging: Path) -> None:
        """Load it into another database, and compare."""
        self._load(self._member(staging), self.scratch, self._charset())
        rows = self._rows()
        looks = source.canary and CANARY in rows
        canary = self._ask(f"SELECT id FROM {CANARY}", self.scratch) if looks else ""  # noqa: S608 (ours)
        # Those of MySQL's dumps cannot be counted.
        compare(self.name, source, rows if "MariaDB" in source.tool else source.rows, canary)

    def swap(self, staging: Path) -> None:
        """Dump the present one, and load the other in its place: no server of this kind can rename a database."""
        if self.present():
            self._keep(staging)
        else:
            note_absence(self.name, staging)
        self._load(self._member(staging), self.database, self._charset())

    def put_back(self, staging: Path) -> list[str]:
        """Load what was dumped of the present one."""
        if self._kept(staging).exists():
            # Of the one that is gone, perhaps; nobody could be asked any more.
            charset = self._kept_charset(staging).read_text(encoding="utf-8")
            self._load(self._kept(staging), self.database, charset)
        elif was_absent(self.name, staging):
            self._ask(f"DROP DATABASE IF EXISTS {_name(self.database)}")
        return []

    def forget(self) -> None:
        """Do nothing: its dump is in the staging."""

    def drop(self) -> None:
        """Remove what was loaded beside it."""
        self._ask(f"DROP DATABASE IF EXISTS {_name(self.scratch)}")

    @property
    def scratch(self) -> str:
        """Name of the database that it is loaded into."""
        return f"{self.database}_scratch"

    def _member(self, staging: Path) -> Path:
        return staging / MYSQL / f"{self.name}.sql"

    def _kept(self, staging: Path) -> Path:
        return kept(staging, f"{self.name}.sql")

    def _kept_charset(self, staging: Path) -> Path:
        return kept(staging, f"{self.name}.charset")

    def _keep(self, staging: Path) -> None:
        durable.write(self._kept_charset(staging), self._charset())
        unfinished = kept(staging, f"{self.name}.new")
        with unfinished.open("w+b") as dump:
            self._dump(dump)
            os.fsync(dump.fileno())
        unfinished.rename(self._kept(staging))
        durable.sync(unfinished.parent)

    def _dump(self, out: BinaryIO) -> str:
        """Dump the present one; returns what with."""
        dump = _program("mariadb-dump", "mysqldump")
        options = ["--single-transaction", "--quick", "--routines", "--events", "--triggers", "--no-tablespaces"]
        run([dump, self._defaults, *options, "--default-character-set=utf8mb4", self.database], {}, stdout=out)
        if not _is_whole(out):
            raise BackupError(f"{self.name}: the dump of {self.database} does not end as one that is whole")
        return run([dump, "--version"], {}).strip()

    def _load(self, file: Path, database: str, charset: str) -> None:
        """Fill a database, which is made anew, from a dump.

        :param charset: as `_charset` returns it.
        """
        like = charset or "CHARACTER SET utf8mb4"
        self._ask(f"DROP DATABASE IF EXISTS {_name(database)}; CREATE DATABASE {_name(database)} {like}")
        with file.open("rb") as dump:
            client = [_program("mariadb", "mysql"), self._defaults, "--batch", "--binary-mode"]
            run([*client, "--default-character-set=utf8mb4", database], {}, stdin=dump)

    def _charset(self) -> str:
        """Return the character set and collation of the present one; empty where there is none."""
        return self._ask(_CHARSET.format(_text(self.database)))

    def _rows(self) -> dict[str, int]:
        """Count those of all tables that were loaded."""
        tables = self._ask(_TABLES, self.scratch).splitlines()
        with tempfile.TemporaryFile() as queries:
            # One client for all, which there may be more of than arguments can say.
            queries.write("".join(f"{_COUNT.format(_name(table))};\n" for table in tables).encode("utf-8"))
            counts = run([*self._client, self.scratch], {}, stdin=queries).split()
        return dict(zip(tables, map(int, counts), strict=True))

    def _ask(self, query: str, database: str = "") -> str:
        return run([*self._client, "-e", query, *([database] if database else [])], {}).strip()

    @property
    def _client(self) -> list[str]:
        return [_program("mariadb", "mysql"), self._defaults, "--batch", "--skip-column-names"]

    @property
    def _defaults(self) -> str:
        # Has to be the first argument.
        return f"--defaults-file={self.defaults_file}"


def _program(*names: str) -> str:
    return next((name for name in names if shutil.which(name)), names[0])


def _is_whole(spool: BinaryIO) -> bool:
    size = spool.seek(0, os.SEEK_END)
    spool.seek(max(size - _TRAILER_ROOM, 0))
    return _TRAILER.search(spool.read()) is not None


def _count(spool: BinaryIO) -> dict[str, int]:
    """Return the rows of each table that has any, by the lines of the dump."""
    rows: dict[str, int] = {}
    table = ""
    for piece in _pieces(spool):
        for found in _ROWS.finditer(piece):
            if found[1] is not None:
                table = found[1].replace(b"``", b"`").decode("utf-8", "replace")
            elif found[2] is None:
                # What follows is of no table: a routine may have lines that look like rows.
                table = ""
            elif table:
                rows[table] = rows.get(table, 0) + 1
    return rows


def _pieces(spool: BinaryIO) -> Iterator[bytes]:
    """Read a file in pieces that begin with a line's end, and so that no line is torn where its table stands."""
    spool.seek(0)
    rest = b"\n"
    while data := spool.read(_CHUNK):
        data = rest + data
        # The last line's beginning may not be whole yet.
        cut = data.rfind(b"\n", len(data) - _NAME_MAX)
        cut = len(data) if cut < 0 else cut
        yield data[:cut]
        rest = data[cut:]
    yield rest


def _name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
