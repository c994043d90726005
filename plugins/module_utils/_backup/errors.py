# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The errors of backups."""

from __future__ import annotations

from .._host import exit_codes


class BackupError(Exception):
    """An error that the operator can act on: `fail_json` in a module, a line on stderr in panelctl."""

    #: Exit code of panelctl.
    status = exit_codes.FAILED


class UsageError(BackupError):
    """The arguments of a command do not fit together."""

    status = exit_codes.USAGE


class NotConfirmedError(BackupError):
    """A question was not answered with yes."""

    status = exit_codes.REFUSED


class AbsentError(BackupError):
    """A source does not exist."""


class NotAuthenticError(BackupError):
    """A file is not signed with a key of the keyring, was changed since, or belongs to another host or time."""

    status = exit_codes.REFUSED


class AlteredError(NotAuthenticError):
    """The content of an archive is not what was signed. Only reading the whole archive shows that."""


class UnhealthyError(BackupError):
    """The data is in place, but the panel does not become healthy on it."""


class BusyError(BackupError):
    """Another backup, restore or prune is in progress."""

    status = exit_codes.BUSY
