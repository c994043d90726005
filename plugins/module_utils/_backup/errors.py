# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The errors of backups."""

from __future__ import annotations


class BackupError(Exception):
    """An error that the operator can act on: `fail_json` in a module, a line on stderr in panelctl."""

    #: panelctl's exit status.
    status = 1


class AbsentError(BackupError):
    """A source does not exist."""


class NotAuthenticError(BackupError):
    """A file is not signed with a key of the keyring, was changed since, or belongs to another host or time."""

    status = 4


class AlteredError(NotAuthenticError):
    """The content of an archive is not what was signed. Only reading the whole archive shows that."""


class UnhealthyError(BackupError):
    """The data is in place, but the panel does not become healthy on it."""


class BusyError(BackupError):
    """Another backup, restore or prune is in progress."""

    status = 5
