# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The errors of traffic operations."""

from __future__ import annotations

from .._host import exit_codes


class TrafficError(Exception):
    """An error that the operator can act on; modules pass it to fail_json, panelctl prints it."""

    #: Exit code of panelctl.
    exit_code = exit_codes.FAILED


class BusyError(TrafficError):
    """Another operation is in progress, and its owner is alive."""

    exit_code = exit_codes.BUSY


class LostError(TrafficError):
    """The caller no longer holds the operation: it was settled, because its time was over or its owner seemed dead."""

    exit_code = exit_codes.BUSY


class RefusedError(TrafficError):
    """The request is possible but unsafe; the message says why, and how to force it."""

    exit_code = exit_codes.REFUSED


class UnhealthyError(TrafficError):
    """A slot, or the answer through nginx, is not healthy."""

    exit_code = exit_codes.UNHEALTHY
