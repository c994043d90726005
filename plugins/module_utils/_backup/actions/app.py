# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The panel itself, which has to stand still while its data is exchanged, and says whether it is healthy on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BackupError
from ..programs import ProgramError, run


class App:
    """What panelctl can do with the panel.

    :param panelctl: the program; None where no panel runs on this host, so that there is nothing to do.
    """

    def __init__(self, panelctl: Path | None) -> None:
        self._panelctl = panelctl

    def stop(self) -> bool:
        """Show visitors the maintenance page, and stop the panel; False where none runs.

        :raises BackupError: it cannot be stopped.
        """
        return bool(self._run("stop")["stopped"])

    def start(self) -> None:
        """Start it, and wait until it is healthy.

        :raises BackupError: it does not become so; visitors see the maintenance page still.
        """
        self._run("start")

    def rehearse(self, databases: Mapping[str, str]) -> str:
        """Start the live release beside itself, on what a drill has loaded, ask for its health, and stop it again.

        :param databases: the database that was loaded for each one that the panel has.
        :returns: why it was not asked, where it cannot be on this host; empty where it is healthy.
        :raises BackupError: it does not become healthy; with its last lines.
        """
        return str(self._run("rehearse", *(f"--database={old}={new}" for old, new in databases.items()))["reason"])

    def _run(self, *arguments: str) -> dict[str, Any]:
        if self._panelctl is None:
            return {"stopped": False, "reason": "no panel runs on this host"}
        try:
            answer = run([str(self._panelctl), *arguments, "--json"], {})
            return dict(json.loads(answer))
        except ProgramError as error:
            raise BackupError(_reported_error(error.stdout) or str(error)) from None
        except ValueError:
            raise BackupError(f"{self._panelctl} {arguments[0]} answered with no JSON: {answer[:200]}") from None


def _reported_error(printed: str) -> str:
    """Return what panelctl tells as JSON of why it failed; empty where it tells nothing."""
    try:
        return str(json.loads(printed)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
