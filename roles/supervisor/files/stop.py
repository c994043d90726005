#!/usr/bin/env python3
# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop supervisord and its program, even if one of them has outlived the other.

A killed supervisord leaves its program running, which keeps the port and is not restarted when it fails. Its socket and
pid file are stale then, so the processes are found by their command lines in /proc (proc_pid_cmdline(5)).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
_POLL = 0.1  # seconds

_Wanted = Callable[[list[str]], bool]


def find(wanted: _Wanted, proc: Path = PROC) -> list[int]:
    """Return the pids of this user's processes whose command line is wanted; zombies have no command line.

    :param wanted: whether a command line, as a list of words, is wanted.
    """
    pids = []
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            command = (folder / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        except OSError:  # it ended meanwhile
            continue
        if wanted(command):
            pids.append(int(folder.name))
    return pids


def stop(wanted: _Wanted, seconds: float) -> list[int]:
    """Terminate the wanted processes, and kill those that are left after `seconds`.

    :returns: the pids of all processes that were terminated.
    """
    asked = find(wanted)
    _signal(asked, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while left := find(wanted):
        late = [pid for pid in left if pid not in asked]  # a worker that was started meanwhile
        _signal(late, signal.SIGTERM)
        asked += late
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
        time.sleep(_POLL)
    return asked


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has already ended
            os.kill(pid, number)


def main(arguments: list[str]) -> int:
    """Stop supervisord, then the program, which supervisord would restart; print what was stopped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", required=True, help="configuration file that supervisord was started with")
    parser.add_argument("--program", required=True, help="executable that the program was started with")
    parser.add_argument("--seconds", type=float, default=60, help="seconds until a process is killed (default 60)")
    options = parser.parse_args(arguments)
    config, executable = str(options.config), str(options.program)

    def supervisord(command: list[str]) -> bool:
        # If supervisord is a script, the first word is the interpreter.
        return config in command and any(Path(word).name == "supervisord" for word in command[:2])

    def program(command: list[str]) -> bool:
        return command[0] == executable

    stopped = False
    for name, wanted in (("supervisord", supervisord), ("the program", program)):
        pids = stop(wanted, options.seconds)
        if pids:
            stopped = True
            sys.stdout.write(f"Stopped {name} (pid {', '.join(map(str, pids))}).\n")
    if not stopped:
        sys.stdout.write("Nothing runs.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
