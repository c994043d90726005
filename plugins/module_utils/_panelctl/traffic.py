# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Show the status of the panel, switch, roll back and back up, on the host, without network or controller."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._host import command_line, exit_codes
from .._host.command_line import write_json
from .._traffic import status, stop_start, switch, unattended
from .._traffic.engine import Engine
from .._traffic.errors import TrafficError
from .._traffic.machine import Host
from .._traffic.observe import SLOTS
from .._traffic.operation_lock import Operation, Owner
from .._traffic.settings import load
from . import completion, render


@dataclass(frozen=True)
class Group:
    """A command with subcommands that another package runs; here for the help and the completion.

    :param parser: returns its parser.
    """

    help: str
    parser: Callable[[], argparse.ArgumentParser]


def main(config: str, arguments: Sequence[str] | None = None, groups: Mapping[str, Group] | None = None) -> int:
    """Run a command.

    :param config: path of the settings of this host.
    :param groups: commands that the caller runs.
    :returns: the exit code, see `exit_codes`.
    """
    groups = groups or {}
    options = build_parser(groups).parse_args(arguments)
    try:
        if options.command == "completion":
            return _completion(groups, options)
        settings = load(Path(config))
        if not os.access(settings.state_dir.parent, os.W_OK):
            raise TrafficError(f"{settings.state_dir} is not writable: run panelctl as root (sudo panelctl …)")
        return _COMMANDS[options.command](Engine(settings, Host(settings)), options)
    except TrafficError as error:
        return command_line.fail(str(error), error.exit_code, as_json=options.json)
    except OSError as error:
        text = f"{error.filename or 'the host'}: {error.strerror or error}"
        return command_line.fail(text, exit_codes.FAILED, as_json=options.json)
    except KeyboardInterrupt:
        text = "interrupted; `panelctl status` shows the live slot"
        return command_line.fail(text, exit_codes.FAILED, as_json=options.json)


def build_parser(groups: Mapping[str, Group], *, nested: bool = False) -> argparse.ArgumentParser:
    """Return the parser of panelctl.

    :param groups: see `main`.
    :param nested: whether to include the subcommands of the groups, which loads their packages.
    """
    shared, waiting = command_line.json_option(), command_line.wait_option()
    switching = argparse.ArgumentParser(add_help=False, parents=[shared, waiting])
    switching.add_argument("--force", action="store_true", help="switch even to a release that is marked bad")
    switching.add_argument("--reason", default="", help="reason for the history")
    parser = argparse.ArgumentParser(prog="panelctl", description=__doc__, epilog=command_line.EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shown = commands.add_parser(
        "status", parents=[shared], help="show the live release, both slots, and the current and last operations"
    )
    shown.add_argument("--history", type=int, default=5, metavar="N", help="show the last N operations (5)")
    switched = commands.add_parser("switch", parents=[switching], help="make another slot live if it is healthy")
    switched.add_argument("target", choices=switch.TARGETS, help="slot to switch to")
    switched.add_argument("--unconfirmed", action="store_true", help="revert unless `panelctl confirm` follows in time")
    commands.add_parser(
        "rollback", parents=[switching], help="switch to the previous release, and mark the live one as bad"
    )
    commands.add_parser("confirm", parents=[shared], help="confirm a switch")
    listed = commands.add_parser("history", parents=[shared], help="list the last operations")
    listed.add_argument(
        "--lines", "-n", type=int, default=20, metavar="N", help="list the last N operations (20; 0: all)"
    )
    page = commands.add_parser(
        "maintenance", parents=[shared], help="serve the maintenance page; health endpoints stay reachable"
    )
    page.add_argument("mode", choices=("on", "off", "show"), nargs="?", default="show", help="what to do (show)")
    commands.add_parser(
        "stop", parents=[shared, waiting], help="stop the panel until `panelctl start`; serve the maintenance page"
    )
    commands.add_parser("start", parents=[shared, waiting], help="start the panel, and wait until it is healthy")
    for name, group in groups.items():
        if nested:
            commands.add_parser(name, parents=[group.parser()], add_help=False, help=group.help)
        else:
            commands.add_parser(name, help=group.help)
    printed = commands.add_parser("completion", parents=[shared], help="print a completion script")
    printed.add_argument("shell", choices=("bash",), nargs="?", default="bash", help="shell that reads it (bash)")
    # The units of the host run the following commands.
    commands.add_parser("settle", parents=[shared], help="end an interrupted or unconfirmed operation (for a timer)")
    commands.add_parser("boot", parents=[shared], help="settle, and start the live slot (for the start of the host)")
    rehearsed = commands.add_parser(
        "rehearse", parents=[shared], help="start the live release on restored data (for `panelctl backup drill`)"
    )
    rehearsed.add_argument(
        "--database",
        action="append",
        default=[],
        type=_pair,
        metavar="LIVE=RESTORED",
        help="use another database instead of a live one; repeatable",
    )
    retired = commands.add_parser("retire", parents=[shared], help="check, drain and stop a slot (for a unit)")
    retired.add_argument("slot", choices=SLOTS, help="the previous slot")
    return parser


def _pair(text: str) -> tuple[str, str]:
    live, mark, restored = text.partition("=")
    if not mark:
        raise argparse.ArgumentTypeError(f"{text!r} is not LIVE=RESTORED")
    return live, restored


def _completion(groups: Mapping[str, Group], options: argparse.Namespace) -> int:
    script = completion.bash(build_parser(groups, nested=True))
    _show(options, {"shell": options.shell, "script": script}, script.removesuffix("\n"))
    return exit_codes.SUCCESS


def _status(engine: Engine, options: argparse.Namespace) -> int:
    found = status.describe(engine, options.history)
    _show(options, found, render.status(found))
    return exit_codes.SUCCESS if found["healthy"] else exit_codes.UNHEALTHY


def _switch(engine: Engine, options: argparse.Namespace) -> int:
    request = switch.SwitchRequest(
        "switch", options.target, options.reason, options.force, confirm=not options.unconfirmed
    )
    return _show_operation(engine, switch.switch(engine, request, _owner(), wait=options.wait), options)


def _rollback(engine: Engine, options: argparse.Namespace) -> int:
    request = switch.SwitchRequest("rollback", "previous", options.reason or "on request", options.force)
    return _show_operation(engine, switch.switch(engine, request, _owner(), wait=options.wait), options)


def _confirm(engine: Engine, options: argparse.Namespace) -> int:
    return _show_operation(engine, switch.confirm(engine), options)


def _show_operation(engine: Engine, operation: Operation | None, options: argparse.Namespace) -> int:
    if operation is None:
        result: dict[str, Any] = {"result": "unchanged", "live": engine.observe().live}
        line = f"{result['live']} is live already"
    elif (pending := engine.operation_lock.current()) is not None and pending.token == operation.token:
        result = {**render.plain(operation), "result": "unconfirmed"}
        seconds = engine.settings.confirm_seconds
        line = f"{operation.target.slot} is live; run `panelctl confirm` within {seconds:g} s, or it is reverted"
    else:
        result = dict(engine.history.read()[-1])
        traffic = engine.observe()
        line = f"{traffic.live} is live with release {traffic.slots[str(traffic.live)].release}"
    _show(options, result, line)
    return exit_codes.SUCCESS


def _history(engine: Engine, options: argparse.Namespace) -> int:
    records = engine.history.read()[-options.lines if options.lines else None :]
    _show(options, records, render.history(records))
    return exit_codes.SUCCESS


def _maintenance(engine: Engine, options: argparse.Namespace) -> int:
    file = engine.settings.maintenance_file
    if options.mode == "on":
        file.touch(mode=0o644)
    elif options.mode == "off":
        file.unlink(missing_ok=True)
    _show(options, {"maintenance": file.exists()}, f"maintenance is {'on' if file.exists() else 'off'}")
    return exit_codes.SUCCESS


def _stop(engine: Engine, options: argparse.Namespace) -> int:
    stopped = stop_start.stop(engine, _owner(), wait=options.wait)
    _show(options, {"stopped": stopped}, "stopped" if stopped else "nothing is live")
    return exit_codes.SUCCESS


def _start(engine: Engine, options: argparse.Namespace) -> int:
    live = stop_start.start(engine, _owner(), wait=options.wait)
    _show(options, {"live": live}, f"{live} is live and healthy" if live else "nothing is live")
    return exit_codes.SUCCESS


def _rehearse(engine: Engine, options: argparse.Namespace) -> int:
    # Only drills need it.
    from .._rehearsal import rehearsal  # noqa: PLC0415

    reason = rehearsal.rehearse(engine.settings, dict(options.database))
    _show(options, {"reason": reason}, f"skipped: {reason}" if reason else "healthy")
    return exit_codes.SUCCESS


def _settle(engine: Engine, options: argparse.Namespace) -> int:
    reason = engine.settle()
    result = {"result": "settled" if reason else "unchanged", "reason": reason}
    # Without anything to settle it prints nothing, because a timer runs it every few seconds.
    _show(options, result, f"settled: {reason}" if reason else "")
    return exit_codes.SUCCESS


def _boot(engine: Engine, options: argparse.Namespace) -> int:
    live = unattended.boot(engine)
    _show(options, {"live": live}, f"starting {live}" if live else "nothing to start")
    if live is not None:
        engine.machine.start_in_background(live)
    return exit_codes.SUCCESS


def _retire(engine: Engine, options: argparse.Namespace) -> int:
    outcome = unattended.retire(engine, options.slot)
    _show(options, {"slot": options.slot, "outcome": outcome}, f"{options.slot}: {outcome}")
    return exit_codes.SUCCESS


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


def _owner() -> Owner:
    """Return the account that runs the command, behind sudo if there is one."""
    name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    return Owner(f"{name} with panelctl")


def _show(options: argparse.Namespace, value: Mapping[str, Any] | Sequence[Any], text: str) -> None:
    if options.json:
        write_json(value)
    elif text:
        sys.stdout.write(f"{text}\n")
