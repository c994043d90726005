# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""Options and output that all panelctl commands have in common."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .exit_codes import MEANINGS

#: The end of the help.
EPILOG = "exit codes: " + "; ".join(f"{code} {meaning.text}" for code, meaning in MEANINGS.items()) + "."
#: The end of an error after a question that nobody answered.
NON_INTERACTIVE = "Pass --yes in a non-interactive run."


def json_option() -> argparse.ArgumentParser:
    """Return a parent parser with `--json`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def wait_option() -> argparse.ArgumentParser:
    """Return a parent parser with `--wait`, in seconds."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--wait", type=float, default=10.0, metavar="S", help="seconds to wait for another operation (10)"
    )
    return parser


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the name and the parser of each subcommand, in the order of the help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def write_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print the result of a command as JSON."""
    json.dump(value, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


def fail(text: str, code: int, *, as_json: bool) -> int:
    """Report on stderr why a command failed, and on stdout too where JSON was requested.

    :returns: the exit code.
    """
    if as_json:
        write_json({"result": MEANINGS[code].result, "error": text})
    sys.stderr.write(f"panelctl: {text}\n")
    return code
