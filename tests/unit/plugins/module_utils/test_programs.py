# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import tempfile
import threading
import time

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._host.errors import HostError
from ansible_collections.aapanel.pipeline.plugins.module_utils._host.programs import ProgramError, run, stream


def test_a_failed_program_reports_status_and_output():
    with pytest.raises(ProgramError, match="sh failed with status 3: out of luck") as failed:
        run(["sh", "-c", "echo printed; echo out of luck >&2; exit 3"], {})
    assert (failed.value.stdout, failed.value.stderr) == ("printed\n", "out of luck\n")
    with pytest.raises(ProgramError, match="no message on standard error"):
        run(["false"], {})
    with pytest.raises(HostError, match="cannot run no-such-program"):
        run(["no-such-program"], {})


def test_variables_with_a_prefix_are_not_inherited(monkeypatch):
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert run(["sh", "-c", "echo $PGHOST $MINE"], {"MINE": "mine"}) == "elsewhere mine\n"
    assert run(["sh", "-c", "echo $PGHOST $MINE"], {"MINE": "mine"}, unset=("PG",)) == "mine\n"


def test_a_file_is_read_from_its_beginning():
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        assert run(["cat"], {}, stdin=file) == "content"


def pieces(*given, error=None):
    yield from given
    if error is not None:
        raise error


def test_streams_form_a_pipeline():
    content = [os.urandom(300_000) for _ in range(10)]
    assert b"".join(stream(["cat"], {}, stream(["cat"], {}, pieces(*content)))) == b"".join(content)
    assert b"".join(stream(["echo", "x"], {})) == b"x\n"
    with pytest.raises(HostError, match="cannot run no-such-program"):
        list(stream(["no-such-program"], {}))


@pytest.mark.parametrize("last", [["sh", "-c", "cat; exit 3"], ["sh", "-c", "exit 3"]])
def test_a_failed_stream_reports_its_status(last):
    with pytest.raises(ProgramError, match="sh failed with status 3"):
        list(stream(last, {}, pieces(*[b"x" * 100_000] * 10)))
    with pytest.raises(ProgramError, match="sh failed with status 3"):
        list(stream(["cat"], {}, stream(last, {}, pieces(b"x"))))


def test_a_program_does_not_take_a_failed_feed_for_the_end_of_its_input(tmp_path):
    writer = ["sh", "-c", f"cat > {tmp_path}/half; touch {tmp_path}/whole"]
    list(stream(writer, {}, pieces(b"x")))
    (tmp_path / "whole").unlink()
    with pytest.raises(ValueError, match="out of luck"):
        list(stream(writer, {}, pieces(b"x", error=ValueError("out of luck"))))
    time.sleep(0.2)
    assert not (tmp_path / "whole").exists()


def test_closing_a_stream_ends_its_programs():
    forever = stream(["cat"], {}, stream(["cat", "/dev/zero"], {}))
    assert set(next(forever)) == {0}
    forever.close()
    assert not [thread for thread in threading.enumerate() if thread.daemon and thread.name.startswith("_Feeder")]
