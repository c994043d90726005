# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The errors of traffic operations."""

from __future__ import annotations


class TrafficError(Exception):
    """Anything the operator can act on; the module turns it into fail_json, panelctl into a line on stderr."""


class BusyError(TrafficError):
    """Somebody else's operation is at work, and alive."""


class LostError(TrafficError):
    """The operation is no longer its caller's: it was settled, because its time was over or its owner seemed dead."""


class RefusedError(TrafficError):
    """What was asked for is possible, but unwise; says why, and how to insist."""


class UnhealthyError(TrafficError):
    """A slot, or what answers through nginx, is not what it should be; nothing was made worse by asking."""
