# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.errors import BackupError, BusyError
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.programs import ProgramError, run, stream
from ansible_collections.aapanel.pipeline.plugins.module_utils._backup.storage import locks


def call(command):
    return run(command, {})


def read(command):
    return b"".join(stream(command, {})).decode()


@pytest.mark.parametrize("start", [call, read])
def test_errors_are_those_of_backups(start):
    with pytest.raises(ProgramError, match="sh failed with status 3: out of luck") as failed:
        start(["sh", "-c", "echo out of luck >&2; exit 3"])
    assert (failed.value.program, failed.value.code, failed.value.stderr) == ("sh", 3, "out of luck\n")
    assert isinstance(failed.value, BackupError)
    with pytest.raises(BackupError, match="cannot run no-such-program"):
        start(["no-such-program"])


@pytest.mark.parametrize("start", [call, read])
def test_the_servers_of_the_operator_are_not_used(start, monkeypatch):
    for name in ("PGHOST", "MYSQL_HOST", "RCLONE_CONFIG", "AWS_PROFILE"):
        monkeypatch.setenv(name, "elsewhere")
    assert start(["sh", "-c", "echo $PGHOST $MYSQL_HOST $RCLONE_CONFIG $AWS_PROFILE."]) == ".\n"


def test_an_error_of_the_feed_is_raised_unchanged():
    def feed():
        yield b"x"
        raise ValueError("out of luck")

    with pytest.raises(ValueError, match="out of luck"):
        list(stream(["cat"], {}, feed()))


def test_a_held_lock_names_the_operation(tmp_path):
    with (
        locks.held(tmp_path / "lock", 0, "drill"),
        pytest.raises(BusyError, match=r"^another drill is in progress \(process [0-9]+\); try again when it ends$"),
        locks.held(tmp_path / "lock", 0, "drill"),
    ):
        pass
