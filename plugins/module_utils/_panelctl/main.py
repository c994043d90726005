# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The command panelctl: backups are the words of one package, all the rest those of another."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_BACKUP = "backup"
_BACKUP_CLI = "_backup.cli.main"


def main(config_dir: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param config_dir: folder with the settings of this host.
    :returns: the exit status.
    """
    given = sys.argv[1:] if arguments is None else arguments
    config = Path(config_dir)
    if given[:1] == [_BACKUP]:
        return int(_cli(_BACKUP_CLI).main(str(config / "backup.json"), given[1:]))
    traffic = _cli("_panelctl.traffic")
    others = {_BACKUP: traffic.Other("make backups, prove them, bring them back", lambda: _cli(_BACKUP_CLI).words())}
    return int(traffic.main(str(config / "panelctl.json"), given, others))


def _cli(module: str) -> ModuleType:
    # One of them, where it is asked for: the host's own timer asks every few seconds.
    return importlib.import_module(f"..{module}", __package__)
