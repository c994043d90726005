# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of the database and of Redis, and the SQLAlchemy engine and pools."""

from __future__ import annotations

from .engine import create_engine
from .url import Database, DatabaseURLError

__all__ = ["Database", "DatabaseURLError", "create_engine"]
