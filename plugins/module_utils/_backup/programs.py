# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Other programs, which find what they need to know in their environment or in files, not in arguments."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from typing import IO, BinaryIO, cast

from .errors import BackupError

_LINES = 5  # of what a program complained about that a message shows
_CHUNK = 1 << 20  # bytes
# What an operator set for his own use of these programs is none of a backup's.
_NOT_OURS = ("PG", "MYSQL", "RCLONE_", "AWS_")

#: Content that comes piece by piece; closed where nobody wants the rest.
Stream = Generator[bytes, None, None]


class ProgramError(BackupError):
    """A program failed.

    :param code: its exit status.
    :param printed: what it printed all the same.
    """

    def __init__(self, program: str, code: int, complaints: IO[bytes], printed: bytes | None = None) -> None:
        super().__init__(f"{program} failed with status {code}: {_last_words(complaints)}")
        self.program = program
        self.code = code
        complaints.seek(0)
        #: All that it complained about.
        self.said = complaints.read().decode("utf-8", "replace")
        self.printed = (printed or b"").decode("utf-8", "replace")


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> str:
    """Run a program to its end; returns what it printed, unless that goes into a file.

    :param env: added to what this process has.
    :param stdin: a file to read from its beginning.
    :raises BackupError: it failed, or is not there; with its last words.
    """
    if stdin is not None:
        stdin.seek(0)
    with tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                command,
                env=_environment(env),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE if stdout is None else stdout,
                stderr=complaints,
                check=False,
            )
        except OSError as error:
            raise BackupError(f"cannot run {command[0]}: {error.strerror}") from None
        if done.returncode:
            raise ProgramError(command[0], done.returncode, complaints, done.stdout)
    return "" if done.stdout is None else done.stdout.decode("utf-8", "replace")


def stream(
    command: Sequence[str], env: Mapping[str, str], feed: Stream | None = None, *, stdin: BinaryIO | None = None
) -> Stream:
    """Run a program, and give what it prints while it reads what *feed* gives; a chain of these is a pipeline.

    Where the feed fails, the program is killed before it could take that for the end and finish its work.

    :param stdin: a file to read from its beginning, instead of a feed.
    :raises BackupError: it failed, or is not there; with its last words.
    :raises Exception: what the feed raised.
    """
    if stdin is not None:
        stdin.seek(0)
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                command,
                env=_environment(env),
                stdin=subprocess.PIPE if feed is not None else subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE,
                stderr=complaints,
            )
        except OSError as error:
            raise BackupError(f"cannot run {command[0]}: {error.strerror}") from None
        feeder = _Feeder(process, feed)
        feeder.start()
        try:
            out = cast(IO[bytes], process.stdout).fileno()
            while data := os.read(out, _CHUNK):
                yield data
            process.wait()
        finally:
            process.kill()
            process.wait()
            feeder.join()
            cast(IO[bytes], process.stdout).close()
        if feeder.error is not None:
            raise feeder.error
        if process.returncode:
            raise ProgramError(command[0], process.returncode, complaints)


class _Feeder(threading.Thread):
    def __init__(self, process: subprocess.Popen[bytes], feed: Stream | None) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self._process = process
        self._feed = feed

    def run(self) -> None:
        if self._feed is None:
            return
        sink = cast(IO[bytes], self._process.stdin)
        try:
            for data in self._feed:
                sink.write(data)
            sink.flush()
        except BrokenPipeError:
            pass  # It has ended, and says why itself.
        except BaseException as error:  # noqa: BLE001 (raised again where somebody can catch it)
            self.error = error
            self._process.kill()
        finally:
            self._feed.close()
            with contextlib.suppress(BrokenPipeError):
                sink.close()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    # Messages in one language.
    mine = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
    return {**mine, "LC_ALL": "C.UTF-8", **more}


def _last_words(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode("utf-8", "replace").split("\n")
    return "; ".join([line.strip() for line in lines if line.strip()][-_LINES:]) or "it said nothing"
