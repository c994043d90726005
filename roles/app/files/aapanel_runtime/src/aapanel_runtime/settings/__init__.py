# Copyright (c) 2026, aapanel.pipeline contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings: their schema, and the validation of an environment."""

from __future__ import annotations

from .base import BaseSettings
from .environments import (
    CLASSES,
    FIELDS,
    DevelopmentSettings,
    ProductionSettings,
    StagingSettings,
    extra,
    secret_values,
)
from .validation import examine, get_settings, unknown

__all__ = [
    "CLASSES",
    "FIELDS",
    "BaseSettings",
    "DevelopmentSettings",
    "ProductionSettings",
    "StagingSettings",
    "examine",
    "extra",
    "get_settings",
    "secret_values",
    "unknown",
]
