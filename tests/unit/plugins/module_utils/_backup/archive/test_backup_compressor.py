# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A compression program that dies, or does not write everything, makes no backup."""

from __future__ import annotations

import os

import pytest
from faulty_host import Host

# Each replaces igzip, and gets the content of a backup as input, between 10 kB and 8 MB.
BROKEN = {
    "is killed at once": "kill -9 $$",
    "is killed in the middle": "head -c 5000 | gzip -1; kill -9 $$",
    "is killed at the end": "gzip -1; kill -9 $$",
    "fails at the end": "gzip -1; exit 3",
    "ends well, and wrote nothing": "cat > /dev/null",
    "ends well, and read a part": "head -c 5000 | gzip -1",
    "ends well, and wrote the beginning": "gzip -1 | head -c 200; cat > /dev/null",
    "ends well, and wrote all but the last byte": "gzip -1 | head -c -1",
    "ends well, and wrote more": "gzip -1; echo more",
}


@pytest.fixture
def host(memory):
    host = Host(memory)
    host.panelctl("key-rotate")
    host.panelctl("create")
    return host


@pytest.fixture
def igzip(tmp_path):
    """Return a function that installs a script as igzip, for processes that start later."""

    def install(script):
        program = tmp_path / "bin" / "igzip"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

        def first():
            os.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"

        return first

    return install


# The largest backup ends with a stored member, so that the program ends in the middle of the archive.
@pytest.mark.parametrize("size", [10, 3_000_000, 12_000_000])
@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
def test_a_failing_compressor_makes_no_backup(script, size, host, igzip):
    (host.data / "file").write_bytes(os.urandom(size))
    before = host.names()
    done = host.run("create", before=igzip(script))
    assert (done.status, done.err.count("\n")) == (1, 1), done.err
    assert "Traceback" not in done.err
    assert host.names() == before
    assert not host.left()
    host.assert_sound(before)


def test_a_working_compressor_makes_a_backup(host, igzip):
    """Check that the test above fails for the right reason."""
    before = host.names()
    assert host.run("create", before=igzip("gzip -1")).status == 0
    assert len(host.names()) == 2
    host.assert_sound([*before, host.names()[-1]])
