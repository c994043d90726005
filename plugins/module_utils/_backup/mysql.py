# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import BackupError
from .manifest import Source
from .programs import run
from .writer import Writer

MYSQL = "mysql"
_CHUNK = 1 << 20  # bytes
_NAME_MAX = 4 * 64 + 64  # bytes that a line may need until one knows which table it is about
_TRAILER = b"-- Dump completed"
_TRAILER_ROOM = 256  # bytes at the end of a dump
# One row a line, since MariaDB 10.7; in a value a line's end is written as two characters.
_ROWS = re.compile(rb"\n(?:INSERT INTO `((?:[^`]|``)+)` VALUES|(\()|UNLOCK TABLES;)")
_INNODB_ONLY = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' "
    "AND engine NOT IN ('InnoDB', 'SEQUENCE')"
)
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

    def size(self) -> int:
        """As the server says."""
        return int(self._ask(_SIZE))

    def add(self, out: Writer, scratch: Path) -> Source:
        """Dump it, see that the dump is whole, count its rows."""
        member = f"{MYSQL}/{self.name}.sql"
        if others := self._ask(_INNODB_ONLY).split():
            out.warn(
                f"{self.name}: {', '.join(others)} may be torn: they are not InnoDB, so no transaction keeps them",
                partial=True,
            )
        dump = _program("mariadb-dump", "mysqldump")
        options = ["--single-transaction", "--quick", "--routines", "--events", "--triggers", "--no-tablespaces"]
        with tempfile.TemporaryFile(dir=scratch) as spool:
            run([dump, self._defaults, *options, "--default-character-set=utf8mb4", self.database], {}, stdout=spool)
            if not _is_whole(spool):
                raise BackupError(f"{self.name}: the dump of {self.database} does not end as one that is whole")
            tool = run([dump, "--version"], {}).strip()
            rows = _count(spool) if "MariaDB" in tool else {}
            spool.seek(0)
            out.file(member, spool.fileno())
        return Source(MYSQL, self.name, member, tool, rows)

    def _ask(self, query: str) -> str:
        client = _program("mariadb", "mysql")
        return run([client, self._defaults, "--batch", "--skip-column-names", "-e", query, self.database], {}).strip()

    @property
    def _defaults(self) -> str:
        # Has to be the first argument.
        return f"--defaults-file={self.defaults_file}"


def _program(*names: str) -> str:
    return next((name for name in names if shutil.which(name)), names[0])


def _is_whole(spool: BinaryIO) -> bool:
    size = spool.seek(0, os.SEEK_END)
    spool.seek(max(size - _TRAILER_ROOM, 0))
    return _TRAILER in spool.read().rpartition(b"\n\n")[2]


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
