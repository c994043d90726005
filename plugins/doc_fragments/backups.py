# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options of all backup modules."""

    DOCUMENTATION = r"""
options:
  config:
    description:
      - The settings of backups on the host; the role C(backups) writes them.
    type: path
    default: /etc/aapanel/backup.json
"""

    WAIT = r"""
options:
  wait:
    description:
      - Seconds to wait for another backup, restore or prune that is at work.
    type: float
    default: 60
"""
