# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import os
import tempfile
import threading
import time

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup import mysql, postgresql
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.programs import Session, run, stream
from hypothesis import given
from hypothesis import strategies as st


def test_a_program_that_fails_says_why():
    with pytest.raises(BackupError, match="sh failed with status 3: out of luck"):
        run(["sh", "-c", "echo out of luck >&2; exit 3"], {})
    with pytest.raises(BackupError, match="cannot run no-such-program"):
        run(["no-such-program"], {})


def test_what_the_operator_configured_for_himself_does_not_count(monkeypatch):
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("MYSQL_HOST", "elsewhere")
    assert run(["sh", "-c", "echo $PGHOST $MYSQL_HOST $MINE"], {"MINE": "mine"}) == "mine\n"


def test_a_file_is_read_from_its_beginning():
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        assert run(["cat"], {}, stdin=file) == "content"


def test_a_session_is_asked_one_thing_after_the_other():
    with Session(["sh"], {}, "echo {}") as session:
        assert session.ask("x=1; echo a; echo b") == ["a", "b"]
        assert session.ask("echo $x") == ["1"]
        assert session.ask(":") == []
        with pytest.raises(BackupError, match="sh ended, status 4: broken"):
            session.ask("echo broken >&2; exit 4")


def pieces(*given, error=None):
    yield from given
    if error is not None:
        raise error


def test_streams_are_a_pipeline():
    content = [os.urandom(300_000) for _ in range(10)]
    assert b"".join(stream(["cat"], {}, stream(["cat"], {}, pieces(*content)))) == b"".join(content)
    assert b"".join(stream(["echo", "x"], {})) == b"x\n"
    with pytest.raises(BackupError, match="cannot run no-such-program"):
        list(stream(["no-such-program"], {}))


@pytest.mark.parametrize("last", [["sh", "-c", "cat; exit 3"], ["sh", "-c", "exit 3"]])
def test_a_stream_that_fails_says_why(last):
    with pytest.raises(BackupError, match="sh failed with status 3"):
        list(stream(last, {}, pieces(*[b"x" * 100_000] * 10)))
    with pytest.raises(BackupError, match="sh failed with status 3"):
        list(stream(["cat"], {}, stream(last, {}, pieces(b"x"))))


def test_a_feed_that_fails_is_not_taken_for_its_end(tmp_path):
    """What has read half a file must not believe that it was all of it."""
    writer = ["sh", "-c", f"cat > {tmp_path}/half; touch {tmp_path}/whole"]
    list(stream(writer, {}, pieces(b"x")))
    (tmp_path / "whole").unlink()
    with pytest.raises(BackupError, match="out of luck"):
        list(stream(writer, {}, pieces(b"x", error=BackupError("out of luck"))))
    time.sleep(0.2)
    assert not (tmp_path / "whole").exists()


def test_a_stream_that_nobody_reads_to_its_end_ends():
    forever = stream(["cat"], {}, stream(["cat", "/dev/zero"], {}))
    assert set(next(forever)) == {0}
    forever.close()
    assert not [thread for thread in threading.enumerate() if thread.daemon and thread.name.startswith("_Feeder")]


# As mariadb-dump writes them: a row a line, and line ends inside of values as two characters.
values = st.text(alphabet="ab()`,'\\", max_size=400).map(lambda text: text.encode())
tables = st.lists(
    st.tuples(st.text(alphabet="ab`é ", min_size=1, max_size=64), st.lists(values, max_size=8)), max_size=5
)


@given(tables, st.integers(400, 4000))
def test_rows_are_counted_in_the_dump_wherever_it_is_cut(found, chunk):
    dump, expected = b"-- MariaDB dump\n", {}
    for name, rows in found:
        quoted = name.replace("`", "``").encode()
        dump += b"LOCK TABLES `%s` WRITE;\n" % quoted
        if rows:
            dump += b"INSERT INTO `%s` VALUES\n" % quoted + b",\n".join(b"(" + row + b")" for row in rows) + b";\n"
            expected[name] = expected.get(name, 0) + len(rows)
        dump += b"UNLOCK TABLES;\n"
    dump += b"CREATE PROCEDURE p() SELECT\n(1)\n;;\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mysql, "_CHUNK", chunk)
        assert mysql._count(io.BytesIO(dump)) == expected


# As pg_restore 17 says it of a server of version 15, whose words may be in any language.
_UNKNOWN = """pg_restore: error: could not execute query: FEHLER:  unbekannter Parameter »transaction_timeout«
Command was: SET transaction_timeout = 0;
"""
_END = "pg_restore: warning: errors ignored on restore: 2\n"


@pytest.mark.parametrize(
    ("said", "harmless"),
    [
        (_UNKNOWN * 2 + _END, True),
        ("", False),
        (_END, False),
        ("pg_restore: error: could not open input file\n", False),
        (
            _UNKNOWN + "pg_restore: error: could not execute query: ERROR:  x\nCommand was: CREATE TABLE x;\n" + _END,
            False,
        ),
        (_UNKNOWN + "pg_restore: error: COPY failed for table x: ERROR:  disk full\n" + _END, False),
        # A server that was stopped in the middle.
        (_UNKNOWN + "pg_restore: error: could not execute query: server closed the connection\n", False),
    ],
)
def test_an_older_server_may_not_know_a_setting_and_nothing_else(said, harmless):
    assert postgresql.only_new_setting(said) is harmless
