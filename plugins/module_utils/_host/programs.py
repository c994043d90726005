# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.
# pylint: disable=ansible-bad-function  # panelctl runs this too, without AnsibleModule

"""Run programs: to their end, or as a stream that is written and read at the same time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from typing import IO, BinaryIO, cast

from .errors import HostError

_LINES = 5  # last lines of standard error that a message shows
_CHUNK = 1 << 20  # bytes

#: Content in pieces; close it if the rest is not needed.
Stream = Generator[bytes, None, None]


class ProgramError(HostError):
    """A program failed.

    :param code: its exit status.
    :param errors: its standard error.
    :param output: its standard output, where that was captured.
    """

    def __init__(self, program: str, code: int, errors: IO[bytes], output: bytes | None = None) -> None:
        errors.seek(0)
        self.stderr = errors.read().decode("utf-8", "replace")
        self.stdout = (output or b"").decode("utf-8", "replace")
        self.program = program
        self.code = code
        super().__init__(f"{program} failed with status {code}: {_last_lines(self.stderr)}")


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    unset: tuple[str, ...] = (),
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> str:
    """Run a program to its end; return its standard output, or nothing if that goes into a file.

    :param env: added to the environment of this process.
    :param unset: prefixes of the variables of this process that the program does not get.
    :param stdin: a file to read from its beginning; otherwise the program reads from `/dev/null`.
    :param stdout: a file that takes the output.
    :raises ProgramError: it failed.
    :raises HostError: it cannot be started.
    """
    if stdin is not None:
        stdin.seek(0)
    with tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                command,
                env=_environment(env, unset),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE if stdout is None else stdout,
                stderr=errors,
                check=False,
            )
        except OSError as error:
            raise HostError(f"cannot run {command[0]}: {error.strerror}") from None
        if done.returncode:
            raise ProgramError(command[0], done.returncode, errors, done.stdout)
    return "" if done.stdout is None else done.stdout.decode("utf-8", "replace")


def stream(
    command: Sequence[str],
    env: Mapping[str, str],
    feed: Stream | None = None,
    *,
    unset: tuple[str, ...] = (),
    stdin: BinaryIO | None = None,
) -> Stream:
    """Run a program, and yield its output while it reads the feed; chain several of these into a pipeline.

    If the feed fails, the program is killed: otherwise it would take that for the end of its input.

    :param env: as in `run`.
    :param unset: as in `run`.
    :param feed: what the program reads.
    :param stdin: a file to read from its beginning, instead of a feed.
    :raises ProgramError: it failed.
    :raises HostError: it cannot be started.
    :raises Exception: what the feed raised.
    """
    if stdin is not None:
        stdin.seek(0)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                env=_environment(env, unset),
                stdin=subprocess.PIPE if feed is not None else subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise HostError(f"cannot run {command[0]}: {error.strerror}") from None
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
            raise ProgramError(command[0], process.returncode, errors)


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
            pass  # The program has ended; its exit status and standard error say why.
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that reads)
            self.error = error
            self._process.kill()
        finally:
            self._feed.close()
            with contextlib.suppress(BrokenPipeError):
                sink.close()


def _environment(more: Mapping[str, str], unset: tuple[str, ...]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    # Messages are in one language, whatever the locale of the caller.
    return {**inherited, "LC_ALL": "C.UTF-8", **more}


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return "; ".join(lines[-_LINES:]) or "no message on standard error"
