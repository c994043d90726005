# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The command panelctl. `_backup.cli` has the commands of `panelctl backup`, `_panelctl.traffic` all others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_BACKUP = "backup"
_BACKUP_HELP = "create, verify, restore and prune backups"


def main(config_dir: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param config_dir: directory of the settings of this host.
    :returns: the exit code, see `exit_codes`.
    """
    given = sys.argv[1:] if arguments is None else arguments
    config = Path(config_dir)
    if given[:1] == [_BACKUP]:
        return int(_backup().main(str(config / "backup.json"), given[1:]))
    traffic = _load("_panelctl.traffic")
    groups = {_BACKUP: traffic.Group(_BACKUP_HELP, lambda: _backup().build_parser())}
    return int(traffic.main(str(config / "panelctl.json"), given, groups))


def _backup() -> ModuleType:
    return _load("_backup.cli.main")


def _load(module: str) -> ModuleType:
    # Loads one of the two only: the host's own timer runs panelctl every few seconds.
    return importlib.import_module(f"..{module}", __package__)
