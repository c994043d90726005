# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Run programs with the settings of backups: `_host.programs` with the errors of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from .._host import programs
from .._host.errors import HostError
from .errors import BackupError

#: Prefixes of variables that an operator may set for these programs: they must not send a backup to another server.
_UNSET = ("PG", "MYSQL", "RCLONE_", "AWS_")

Stream = programs.Stream


class ProgramError(BackupError):
    """A program failed."""

    def __init__(self, error: programs.ProgramError) -> None:
        super().__init__(str(error))
        self.program = error.program
        self.code = error.code
        self.stdout = error.stdout
        self.stderr = error.stderr


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> str:
    """Run a program to its end; see `_host.programs.run`.

    :raises ProgramError: it failed.
    :raises BackupError: it cannot be started.
    """
    try:
        return programs.run(command, env, unset=_UNSET, stdin=stdin, stdout=stdout)
    except HostError as error:
        raise _own_error(error) from None


def stream(
    command: Sequence[str], env: Mapping[str, str], feed: Stream | None = None, *, stdin: BinaryIO | None = None
) -> Stream:
    """Run a program, and yield its output while it reads the feed; see `_host.programs.stream`.

    :raises ProgramError: it failed.
    :raises BackupError: it cannot be started.
    :raises Exception: what the feed raised.
    """
    try:
        yield from programs.stream(command, env, feed, unset=_UNSET, stdin=stdin)
    except HostError as error:
        raise _own_error(error) from None


def _own_error(error: HostError) -> BackupError:
    return ProgramError(error) if isinstance(error, programs.ProgramError) else BackupError(str(error))
