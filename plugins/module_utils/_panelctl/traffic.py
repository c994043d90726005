# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""panelctl: which release serves, switch, roll back; on the host itself, without network or controller."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._rehearsal import rehearsal
from .._traffic import status, stop_start, switch, unattended
from .._traffic.engine import Engine
from .._traffic.errors import BusyError, LostError, RefusedError, TrafficError, UnhealthyError
from .._traffic.machine import Host
from .._traffic.operation_lock import Operation, Owner
from .._traffic.settings import load
from . import render

#: What panelctl's exit status says.
EXIT = {"ok": 0, "failed": 1, "usage": 2, "unhealthy": 3, "refused": 4, "busy": 5}
_ENDINGS: tuple[tuple[type[TrafficError], str], ...] = (
    (UnhealthyError, "unhealthy"),
    (RefusedError, "refused"),
    (BusyError, "busy"),
    (LostError, "busy"),
    (TrafficError, "failed"),
)
_EPILOG = """\
exit status: 0 done, or nothing to do; 1 it failed; 2 wrong usage; 3 unhealthy (traffic is where it was); 4 refused;
5 somebody else is at work. `panelctl COMMAND --help` tells more."""


@dataclass(frozen=True)
class Other:
    """A command that is not this package's; for the help and the completion.

    :param words: gives what may follow it.
    """

    help: str
    words: Callable[[], Sequence[str]]


def main(config: str, arguments: Sequence[str] | None = None, others: Mapping[str, Other] | None = None) -> int:
    """Run a command.

    :param config: path of the settings of this host.
    :param others: commands that the caller runs itself.
    :returns: the exit status, see `EXIT`.
    """
    others = others or {}
    options = _parser(others).parse_args(arguments)
    if options.command == "completion":
        sys.stdout.write(render.completion({**_words(), **{name: other.words() for name, other in others.items()}}))
        return EXIT["ok"]
    try:
        settings = load(Path(config))
        if not os.access(settings.state_dir.parent, os.W_OK):
            raise TrafficError(f"{settings.state_dir} is not yours to write: run panelctl as root (sudo panelctl …)")
        return _COMMANDS[options.command](Engine(settings, Host(settings)), options)
    except TrafficError as error:
        ending = next(ending for kind, ending in _ENDINGS if isinstance(error, kind))
        if options.json:
            _print({"result": ending, "error": str(error)})
        else:
            sys.stderr.write(f"panelctl: {error}\n")
        return EXIT[ending]
    except OSError as error:
        sys.stderr.write(f"panelctl: {error.filename or 'the host'}: {error.strerror or error}\n")
        return EXIT["failed"]
    except KeyboardInterrupt:
        sys.stderr.write("panelctl: interrupted; traffic is where `panelctl status` says\n")
        return EXIT["failed"]


def _parser(others: Mapping[str, Other]) -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON")
    waiting = argparse.ArgumentParser(add_help=False)
    waiting.add_argument("--wait", type=float, default=10.0, metavar="S", help="seconds to wait for others (10)")
    acting = argparse.ArgumentParser(add_help=False, parents=[waiting])
    acting.add_argument("--force", action="store_true", help="even to a release that is marked bad")
    acting.add_argument("--reason", default="", help="for the journal")
    parser = argparse.ArgumentParser(prog="panelctl", description=__doc__, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    looking = commands.add_parser("status", parents=[shared], help="what serves, how healthy it is, what is pending")
    looking.add_argument("--history", type=int, default=5, metavar="N", help="how many of the last operations (5)")
    switching = commands.add_parser("switch", parents=[shared, acting], help="make another slot live, if it is healthy")
    switching.add_argument("target", choices=switch.TARGETS)
    switching.add_argument(
        "--unconfirmed", action="store_true", help="go back by itself unless `panelctl confirm` follows"
    )
    commands.add_parser("rollback", parents=[shared, acting], help="back to the release before; marks this one as bad")
    commands.add_parser("confirm", parents=[shared], help="keep a switch that waits for its confirmation")
    history = commands.add_parser("history", parents=[shared], help="what was done, by whom, and how it ended")
    history.add_argument("--lines", "-n", type=int, default=20, metavar="N", help="how many of the last (20; 0: all)")
    pause = commands.add_parser("maintenance", parents=[shared], help="a page of ours for visitors; health stays open")
    pause.add_argument("wish", choices=("on", "off", "show"), nargs="?", default="show")
    commands.add_parser(
        "stop",
        parents=[shared, waiting],
        help="stop the panel until `start`, over a reboot, too; visitors see the same page",
    )
    commands.add_parser("start", parents=[shared, waiting], help="start it, and wait until it is healthy")
    for name, other in others.items():
        commands.add_parser(name, help=other.help)
    commands.add_parser("completion", parents=[shared], help="print completions for bash")
    # For the host's own units.
    commands.add_parser("settle", parents=[shared], help="end what a dead owner left, or nobody confirmed")
    commands.add_parser("boot", parents=[shared], help="before nginx, at boot: settle, and start the live colour")
    practice = commands.add_parser("rehearse", parents=[shared], help="for drills: the live release on restored data")
    practice.add_argument("--database", action="append", default=[], metavar="PRESENT=RESTORED")
    retire = commands.add_parser("retire", parents=[shared], help="watch, drain and stop a colour that was left")
    retire.add_argument("slot", choices=("blue", "green"))
    return parser


def _status(engine: Engine, options: argparse.Namespace) -> int:
    found = status.describe(engine, options.history)
    if options.json:
        _print(found)
    else:
        sys.stdout.write(render.status(found))
    return EXIT["ok" if found["healthy"] else "unhealthy"]


def _switch(engine: Engine, options: argparse.Namespace) -> int:
    wanted = switch.SwitchRequest(
        "switch", options.target, options.reason, options.force, confirm=not options.unconfirmed
    )
    return _moved(engine, switch.switch(engine, wanted, _owner(), wait=options.wait), options)


def _rollback(engine: Engine, options: argparse.Namespace) -> int:
    wanted = switch.SwitchRequest("rollback", "previous", options.reason or "asked for", options.force)
    return _moved(engine, switch.switch(engine, wanted, _owner(), wait=options.wait), options)


def _confirm(engine: Engine, options: argparse.Namespace) -> int:
    return _moved(engine, switch.confirm(engine), options)


def _moved(engine: Engine, operation: Operation | None, options: argparse.Namespace) -> int:
    if operation is None:
        result: dict[str, Any] = {"result": "unchanged", "live": engine.observe().live}
        line = f"{result['live']} is live already"
    elif (pending := engine.operation_lock.current()) is not None and pending.token == operation.token:
        result = {**render.plain(operation), "result": "unconfirmed"}
        line = (
            f"{operation.target.slot} is live; `panelctl confirm` within {engine.settings.confirm_seconds:g} s keeps it"
        )
    else:
        result = dict(engine.history.read()[-1])
        live = engine.observe()
        line = f"{live.live} is live, with release {live.slots[str(live.live)].release}"
    if options.json:
        _print(result)
    else:
        sys.stdout.write(f"{line}\n")
    return EXIT["ok"]


def _history(engine: Engine, options: argparse.Namespace) -> int:
    records = engine.history.read()[-options.lines if options.lines else None :]
    if options.json:
        _print(records)
    else:
        sys.stdout.write(render.history(records))
    return EXIT["ok"]


def _maintenance(engine: Engine, options: argparse.Namespace) -> int:
    file = engine.settings.maintenance_file
    if options.wish == "on":
        file.touch(mode=0o644)
    elif options.wish == "off":
        file.unlink(missing_ok=True)
    _tell(options, {"maintenance": file.exists()}, f"maintenance is {'on' if file.exists() else 'off'}")
    return EXIT["ok"]


def _stop(engine: Engine, options: argparse.Namespace) -> int:
    stopped = stop_start.stop(engine, _owner(), wait=options.wait)
    _tell(options, {"stopped": stopped}, "stopped" if stopped else "nothing is live")
    return EXIT["ok"]


def _start(engine: Engine, options: argparse.Namespace) -> int:
    live = stop_start.start(engine, _owner(), wait=options.wait)
    _tell(options, {"live": live}, f"{live} is live and healthy" if live else "nothing is live")
    return EXIT["ok"]


def _rehearse(engine: Engine, options: argparse.Namespace) -> int:
    reason = rehearsal.rehearse(engine.settings, dict(pair.split("=", 1) for pair in options.database))
    _tell(options, {"reason": reason}, f"not asked: {reason}" if reason else "healthy")
    return EXIT["ok"]


def _settle(engine: Engine, _options: argparse.Namespace) -> int:
    if why := engine.settle():
        sys.stdout.write(f"settled: {why}\n")
    return EXIT["ok"]


def _boot(engine: Engine, _options: argparse.Namespace) -> int:
    live = unattended.boot(engine)
    sys.stdout.write(f"{live or 'nothing'} is to start\n")
    if live is not None:
        engine.machine.start_in_background(live)
    return EXIT["ok"]


def _retire(engine: Engine, options: argparse.Namespace) -> int:
    sys.stdout.write(f"{options.slot}: {unattended.retire(engine, options.slot)}\n")
    return EXIT["ok"]


_COMMANDS = {
    "status": _status,
    "switch": _switch,
    "rollback": _rollback,
    "confirm": _confirm,
    "history": _history,
    "maintenance": _maintenance,
    "stop": _stop,
    "start": _start,
    "rehearse": _rehearse,
    "settle": _settle,
    "boot": _boot,
    "retire": _retire,
}


def _words() -> dict[str, list[str]]:
    """Each command's words, for the completion."""
    parser = _parser({})
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    words = {}
    for name, command in commands.choices.items():
        words[name] = [
            word for action in command._actions for word in (*action.option_strings, *(action.choices or ()))
        ]
    return words


def _owner() -> Owner:
    """Who asked, for the journal: the person behind sudo, where there is one."""
    name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    return Owner(f"{name} with panelctl")


def _tell(options: argparse.Namespace, value: Mapping[str, Any], line: str) -> None:
    if options.json:
        _print(value)
    else:
        sys.stdout.write(f"{line}\n")


def _print(value: Mapping[str, Any] | Sequence[Any]) -> None:
    json.dump(value, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")
