# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The errors of backups."""

from __future__ import annotations

from .._host import exit_codes


class BackupError(Exception):
    """Anything the operator can act on; the module turns it into fail_json, panelctl into a line on stderr."""

    #: Exit code of panelctl.
    status = exit_codes.FAILED


class UsageError(BackupError):
    """The arguments of a command do not fit together."""

    status = exit_codes.USAGE


class NotConfirmedError(BackupError):
    """A question was not answered with yes."""

    status = exit_codes.REFUSED


class AbsentError(BackupError):
    """What is to be backed up is not there."""


class NotAuthenticError(BackupError):
    """Something is not what the holder of a key made, or is not where or when it belongs."""

    status = exit_codes.REFUSED


class AlteredError(NotAuthenticError):
    """The content of an archive is not what was signed, which only who reads all of it can tell."""


class UnhealthyError(BackupError):
    """The data is in its place, but the panel does not become healthy on it."""


class BusyError(BackupError):
    """Another backup, restore or prune is at work."""

    status = exit_codes.BUSY
