# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The completion of panelctl for bash."""

from __future__ import annotations

import argparse

from .._host.command_line import subcommands

_SCRIPT = """\
# bash completion for panelctl, printed by `panelctl completion bash`. It does not start panelctl.
_panelctl() {
  local word=${COMP_WORDS[COMP_CWORD]} command='' words=''
  if [ "$COMP_CWORD" -gt 1 ]; then
    command=${COMP_WORDS[1]}
  fi
  if [ "$COMP_CWORD" -gt 2 ]; then
    case $command in
      %(groups)s) command="$command ${COMP_WORDS[2]}" ;;
    esac
  fi
  case $command in
%(cases)s
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _panelctl panelctl
"""


def bash(parser: argparse.ArgumentParser) -> str:
    """Return a bash script that completes commands, options and choices.

    :param parser: the parser of panelctl, with the parsers of all commands.
    """
    words = _words(parser, "")
    groups = sorted({command.partition(" ")[0] for command in words if " " in command})
    cases = "\n".join(f"    '{command}') words='{' '.join(found)}' ;;" for command, found in words.items())
    return _SCRIPT % {"groups": "|".join(groups) or "''", "cases": cases}


def _words(parser: argparse.ArgumentParser, command: str) -> dict[str, list[str]]:
    """Return the words that may follow a command, and those that may follow each of its subcommands."""
    actions = parser._actions
    found = {command: [word for action in actions for word in (*action.option_strings, *(action.choices or ()))]}
    for name, subparser in subcommands(parser):
        found |= _words(subparser, f"{command} {name}".strip())
    return found
