# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs beside a WSGI application: settings, serving, health, database, migrations.

The application may use it too: ``from aapanel_runtime import get_settings``.
"""

from __future__ import annotations

from .problems import Problem, SettingsError
from .settings import BaseSettings, DevelopmentSettings, ProductionSettings, StagingSettings, get_settings

__version__ = "0.1.0"

__all__ = [
    "BaseSettings",
    "DevelopmentSettings",
    "Problem",
    "ProductionSettings",
    "SettingsError",
    "StagingSettings",
    "__version__",
    "get_settings",
]
