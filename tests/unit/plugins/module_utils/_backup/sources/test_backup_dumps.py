# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import io
import os
import tracemalloc

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.sources import mysql, postgresql
from hypothesis import given
from hypothesis import strategies as st

# As in dumps of mariadb-dump: one row per line, and line ends in values are escaped.
values = st.text(alphabet="ab()`,'\\", max_size=400).map(lambda text: text.encode())
tables = st.lists(
    st.tuples(st.text(alphabet="ab`é ", min_size=1, max_size=64), st.lists(values, max_size=8)), max_size=5
)


@given(tables, st.integers(400, 4000))
def test_rows_of_a_mariadb_dump_are_counted_in_pieces_of_any_size(found, chunk):
    dump, expected = b"-- MariaDB dump\n", {}
    for name, rows in found:
        quoted = name.replace("`", "``").encode()
        dump += b"LOCK TABLES `%s` WRITE;\n" % quoted
        if rows:
            dump += b"INSERT INTO `%s` VALUES\n" % quoted + b",\n".join(b"(" + row + b")" for row in rows) + b";\n"
            expected[name] = expected.get(name, 0) + len(rows)
        dump += b"UNLOCK TABLES;\n"
    dump += b"CREATE PROCEDURE p() BEGIN\nINSERT INTO `a` VALUES\n(1),\n(2);\nEND ;;\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mysql, "_CHUNK", chunk)
        assert mysql._count(io.BytesIO(dump)) == expected


# Output of pg_restore 17 for a server of version 15, whose messages may be in any language.
_UNKNOWN = """pg_restore: error: could not execute query: FEHLER:  unbekannter Parameter »transaction_timeout«
Command was: SET transaction_timeout = 0;
"""
_END = "pg_restore: warning: errors ignored on restore: 2\n"


@pytest.mark.parametrize(
    ("stderr", "harmless"),
    [
        (_UNKNOWN * 2 + _END, True),
        # Killed before it completed.
        (_UNKNOWN, False),
        (_UNKNOWN + _END + _UNKNOWN, False),
        ("", False),
        (_END, False),
        ("pg_restore: error: could not open input file\n", False),
        (
            _UNKNOWN + "pg_restore: error: could not execute query: ERROR:  x\nCommand was: CREATE TABLE x;\n" + _END,
            False,
        ),
        (_UNKNOWN + "pg_restore: error: COPY failed for table x: ERROR:  disk full\n" + _END, False),
        # The server was stopped meanwhile.
        (_UNKNOWN + "pg_restore: error: could not execute query: server closed the connection\n", False),
    ],
)
def test_only_the_unknown_setting_of_an_older_server_is_ignored(stderr, harmless):
    assert postgresql.only_new_setting(stderr) is harmless


# Replace the programs, for a server that does not know the setting; each test gives the exit status of pg_restore.
_PROGRAMS = {
    "psql": "exit 0",
    "pg_restore": f"cat >&2 <<'END'\n{_UNKNOWN}{_END}END\n",
    "pg_dump": 'case "$*" in *--version*) echo pg_dump 17;; *) printf "" ;; esac',
    "mariadb": "exit 0",
}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a function that puts scripts first in PATH, under the names of programs."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(**scripts):
        for name, script in scripts.items():
            file = folder / name.replace("_dump", "-dump") if name.startswith("mariadb") else folder / name
            file.write_text(f"#!/bin/sh\n{script}\n")
            file.chmod(0o755)

    write(**_PROGRAMS)
    return write


@pytest.mark.parametrize(("ends", "well"), [("exit 1", True), ("kill -9 $$", False), ("exit 2", False)])
def test_a_killed_pg_restore_has_not_restored(ends, well, programs, tmp_path):
    database = postgresql.Postgresql("database", "aapanel", "aapanel")
    programs(pg_restore=_PROGRAMS["pg_restore"] + ends)
    with contextlib.nullcontext() if well else pytest.raises(BackupError, match="pg_restore failed"):
        database._restore(tmp_path / "dump")


class Recorder:
    """Records the members that would be written to an archive."""

    def __init__(self):
        self.members = []

    def file(self, member, descriptor):
        self.members.append(member)

    def warn(self, *_, **__):
        pass


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("exit 0", "is incomplete"),
        ("printf '%s\\n' '-- MariaDB dump' 'CREATE TABLE x (n int);'", "is incomplete"),
        # The text in a row is not the end of the dump.
        (
            "printf '%s\\n' '-- MariaDB dump' \"INSERT INTO x VALUES ('-- Dump completed on 2026-01-01');\"",
            "is incomplete",
        ),
        ("printf '%s\\n' '-- MariaDB dump'; echo Lost connection >&2; exit 3", "Lost connection"),
        ("echo 'Access denied for user' >&2; exit 2", "Access denied"),
        ("echo 'Table definition has changed, please retry transaction' >&2; exit 3", "retry transaction"),
    ],
)
def test_an_incomplete_mariadb_dump_is_refused(does, why, programs, tmp_path):
    programs(mariadb_dump=does)
    out = Recorder()
    with pytest.raises(BackupError, match=why):
        mysql.Mysql("database", "aapanel", tmp_path / "cnf").add(out, tmp_path)
    assert out.members == []


def test_a_mariadb_dump_is_consistent_and_complete(programs, tmp_path):
    whole = "printf '%s\\n' '-- MariaDB dump' '-- Dump completed on 2026-11-22 21:30:00'"
    programs(mariadb_dump=f'echo "$*" >>{tmp_path}/asked; {whole}')
    out = Recorder()
    mysql.Mysql("database", "aapanel", tmp_path / "cnf").add(out, tmp_path)
    assert out.members == ["mysql/database.sql"]
    defaults, *options, database = (tmp_path / "asked").read_text().splitlines()[0].split()
    assert (defaults, database) == (f"--defaults-file={tmp_path}/cnf", "aapanel")
    assert {"--single-transaction", "--quick", "--routines", "--events", "--triggers"} <= set(options)


@pytest.mark.parametrize(
    ("scripts", "why"),
    [
        ({"pg_restore": "echo 'not a valid archive' >&2; exit 1"}, "not a valid archive"),
        ({"pg_restore": "printf '%s\\n' '' 'COPY public.x (n) FROM stdin;' 1 2"}, "in the middle of public.x"),
        ({"pg_dump": "echo 'server closed the connection' >&2; exit 1"}, "server closed the connection"),
        ({"pg_dump": "echo 'password authentication failed' >&2; exit 1"}, "password authentication failed"),
    ],
)
def test_an_incomplete_postgresql_dump_is_refused(scripts, why, programs, tmp_path):
    programs(**scripts)
    out = Recorder()
    with pytest.raises(BackupError, match=why):
        postgresql.Postgresql("database", "aapanel", "aapanel").add(out, tmp_path)
    assert out.members == []


# As pg_restore prints them: one row per line; line ends, tabs and backslashes in values are escaped.
copied = st.text(alphabet="ab.;() N", max_size=200).map(lambda text: text.replace(" ", "\\\\").encode())
named = st.sampled_from(["public.a", 'public."A b"', '"odd.one"."with ""quotes"""', "s.t2"])


@given(
    st.lists(st.tuples(named, st.lists(copied, max_size=8)), max_size=5, unique_by=lambda table: table[0]),
    st.integers(1, 300),
)
def test_rows_of_a_postgresql_dump_are_counted_in_pieces_of_any_size(found, chunk):
    text = b"--\n-- PostgreSQL database dump\n--\n\nSET lock_timeout = 0;\n"
    for name, rows in found:
        text += b'\n--\n-- Data for Name: x; Type: TABLE DATA\n--\n\nCOPY %s (n, "m o") FROM stdin;\n' % name.encode()
        text += b"".join(row + b"\n" for row in rows) + b"\\.\n\n\nSELECT pg_catalog.setval('public.s', 1, false);\n"
    pieces = [text[place : place + chunk] for place in range(0, len(text), chunk)]
    assert postgresql.count_rows(pieces) == {name: len(rows) for name, rows in found}


def test_several_parts_of_a_table_are_added_up():
    """A partitioned table may be loaded through its root, in a part for each partition; columns may have any name."""
    piece = b'\nCOPY public.root (n, "a\n) b") FROM stdin;\n1\n2\n\\.\n'
    assert postgresql.count_rows([piece * 3]) == {"public.root": 6}


def table(rows, root=None, leaf=True):
    return {"rows": rows, "root": root, "leaf": leaf}


@pytest.mark.parametrize("loaded", ["leaves", "root"])
def test_only_tables_counted_on_both_sides_are_compared(loaded):
    counted = {
        "public.plain": table(3),
        "public.empty": table(0),
        'public."select"': table(1),
        "public.spatial_ref_sys": table(None),
        "public.root": table(10, "public.root", leaf=False),
        "public.middle": table(6, "public.root", leaf=False),
        "public.one": table(6, "public.root"),
        "public.two": table(4, "public.root"),
    }
    before = {"public.plain": 3, "public.select": 1, "public.spatial_ref_sys": 2}
    before |= {"public.root": 10} if loaded == "root" else {"public.one": 6, "public.two": 4}
    there_were, there_are = postgresql.comparable(before, counted)
    assert there_were == {name: rows for name, rows in before.items() if name != "public.spatial_ref_sys"}
    assert there_are == {**there_were, "public.empty": 0}


def test_long_rows_take_little_memory():
    row = [b"x" * (1 << 20)] * 200
    text = [b"\nCOPY public.a  FROM stdin;\n", *row, b"\n", *row, b"\n\\.\n"]
    tracemalloc.start()
    assert postgresql.count_rows(text) == {"public.a": 2}
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
