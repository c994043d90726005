# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The command panelctl: backups are the words of one package, all the rest those of another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ._traffic import cli as traffic

_BACKUP = "backup"
_OTHERS = {_BACKUP: traffic.Other("make backups, prove them, bring them back", lambda: _backup().words())}


def main(config_dir: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param config_dir: folder with the settings of this host.
    :returns: the exit status.
    """
    given = sys.argv[1:] if arguments is None else arguments
    config = Path(config_dir)
    if given[:1] == [_BACKUP]:
        status: int = _backup().main(str(config / "backup.json"), given[1:])
        return status
    return traffic.main(str(config / "panelctl.json"), given, _OTHERS)


def _backup() -> ModuleType:
    # Where it is asked for: the host's own timer asks for something else every few seconds.
    from ._backup import cli  # noqa: PLC0415

    return cli
