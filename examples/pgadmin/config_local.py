# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Local configuration: pgAdmin imports a module of this name, which overrides its config.py.

All files that pgAdmin writes (settings, sessions, users' files, log) are below DATA_DIR.
"""

from __future__ import annotations

from pathlib import Path

DATA_DIR = str(Path(__file__).resolve().parent / "data")
UPGRADE_CHECK_ENABLED = False  # Upgrades are deployed as releases.
