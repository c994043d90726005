# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The panel, as a restore and a drill use it: stop it, start it, and rehearse its live release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BackupError
from ..programs import ProgramError, run


class App:
    """Controls the panel through panelctl.

    :param panelctl: the program; None if no panel runs on this host, then every method does nothing.
    """

    def __init__(self, panelctl: Path | None) -> None:
        self._panelctl = panelctl

    def stop(self) -> bool:
        """Serve the maintenance page and stop the panel.

        :returns: whether a panel was running.
        :raises BackupError: it cannot be stopped.
        """
        return bool(self._run("stop")["stopped"])

    def start(self) -> None:
        """Start the panel and wait until it is healthy.

        :raises BackupError: it does not become healthy; visitors still get the maintenance page.
        """
        self._run("start")

    def rehearse(self, databases: Mapping[str, str]) -> str:
        """Start the live release on the restored data, beside the live slot; check its health, and stop it.

        :param databases: the name of the restored database for each database name of the panel.
        :returns: why this host cannot rehearse; empty if the release is healthy.
        :raises BackupError: the release does not become healthy; the message has its last log lines.
        """
        return str(self._run("rehearse", *(f"--database={old}={new}" for old, new in databases.items()))["reason"])

    def _run(self, *arguments: str) -> dict[str, Any]:
        if self._panelctl is None:
            return {"stopped": False, "reason": "no panel runs on this host"}
        try:
            output = run([str(self._panelctl), *arguments, "--json"], {})
            return dict(json.loads(output))
        except ProgramError as error:
            raise BackupError(_reported_error(error.stdout) or str(error)) from None
        except ValueError:
            raise BackupError(f"{self._panelctl} {arguments[0]} did not print JSON: {output[:200]}") from None


def _reported_error(printed: str) -> str:
    """Return the error that panelctl reported as JSON; empty if it reported none."""
    try:
        return str(json.loads(printed)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
