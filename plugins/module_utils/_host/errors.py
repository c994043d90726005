# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to this collection: may change in any release.

"""The error of `_host`."""

from __future__ import annotations


class HostError(Exception):
    """A step on the host failed; each package turns this into its own documented error."""
