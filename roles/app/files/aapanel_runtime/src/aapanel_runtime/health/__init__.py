# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health checks of the database and of Redis."""

from __future__ import annotations

from .checks import Check, Component, Health, from_settings

__all__ = ["Check", "Component", "Health", "from_settings"]
